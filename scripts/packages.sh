#!/bin/sh
# Install the Debian packages that are missing, and those that are named as arguments; a second run does nothing and
# needs no network.
set -eu

# runc: the OCI runtime; nftables: networks; golang-github-containers-common: the default seccomp profile, as data; tini:
# `--init`; busybox-static: the demo's image; procps: `docker top`; a compiler, headers and libsystemd: pip builds
# systemd-python.
packages="runc nftables golang-github-containers-common tini busybox-static procps ca-certificates
    python3 python3-dev python3-venv gcc libc6-dev pkg-config libsystemd-dev $*"

missing=""
for package in $packages; do
    case $package in
    nodejs) command -v node >/dev/null && continue ;;
    # A Python of one's own, or a program from elsewhere, is as good.
    python3*) command -v "${PYTHON:-python3}" >/dev/null && "${PYTHON:-python3}" -c 'import sys, venv, ensurepip, sysconfig, os
sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null && continue ;;
    runc | crun | gcc | tini | catatonit | npm) command -v "$package" >/dev/null || [ -x "/usr/sbin/$package" ] && continue ;;
    busybox-static) command -v busybox >/dev/null && ! busybox | grep -q 'dynamic' && [ -z "$(ldd "$(command -v busybox)" 2>/dev/null | grep '=>')" ] && continue ;;
    esac
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "Debian packages are missing; as root: apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
# Programs are wanted, and no service that some of the packages would start.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt-get update -q
# shellcheck disable=SC2086  # a list of names
apt-get install -q -y --no-install-recommends $missing

#!/bin/sh
# Put the docker command line, which the tests drive the daemon with, into the folder $1 unless there is a recent one, and
# its plugin of Docker Compose 2 into $1/cli-plugins unless it is there.
#
# From Debian's packages, unpacked and not installed; of Debian 13 as this one's are older than version 26 of docker, whose
# options the tests use, and version 2 of Compose.
set -eu

oldest=26
is_recent() {
    major=$("$1" --version 2>/dev/null | sed -n 's/^Docker version \([0-9]*\).*/\1/p')
    [ "${major:-0}" -ge "$oldest" ]
}

missing=""
is_recent docker || is_recent "$1/docker" || missing="docker-cli"
[ -x "$1/cli-plugins/docker-compose" ] || missing="$missing docker-compose"
[ -n "$missing" ] || exit 0
echo "taking from Debian's packages, which are not installed: $missing"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
mirror=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v security | head -n 1)
echo "deb ${mirror:-http://deb.debian.org/debian} trixie main" >sources.list
mkdir -p lists/partial
set -- "$1" -o Dir::Etc::sourcelist="$scratch/sources.list" -o Dir::Etc::sourceparts=- \
    -o Dir::State::lists="$scratch/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root
target=$1
shift
apt-get -qq "$@" update
mkdir -p "$target/cli-plugins"
for package in $missing; do
    apt-get -qq "$@" download "$package"
    dpkg-deb -x ./"$package"_*.deb unpacked
done
# A copy that was cut off is under no name that is looked for.
keep() {
    [ ! -e "$1" ] || { cp "$1" "$2.part" && mv "$2.part" "$2"; }
}
keep unpacked/usr/bin/docker "$target/docker"
keep unpacked/usr/libexec/docker/cli-plugins/docker-compose "$target/cli-plugins/docker-compose"

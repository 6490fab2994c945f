#!/bin/sh
# Put the docker command line, which the tests drive the daemon with, into the folder $1 unless there is a recent one.
#
# From Debian's package, unpacked and not installed; of Debian 13 where this one's is older than version 26, whose options
# the tests use.
set -eu

oldest=26
is_recent() {
    major=$("$1" --version 2>/dev/null | sed -n 's/^Docker version \([0-9]*\).*/\1/p')
    [ "${major:-0}" -ge "$oldest" ]
}

is_recent docker && exit 0
is_recent "$1/docker" && exit 0
echo "no recent docker command line: taking it from Debian's docker-cli (it is not installed)"
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
apt-get -qq "$@" download docker-cli
dpkg-deb -x ./docker-cli_*.deb unpacked
mkdir -p "$target"
cp unpacked/usr/bin/docker "$target/docker"

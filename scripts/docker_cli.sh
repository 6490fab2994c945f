#!/bin/sh
# Put the docker command line, which the tests drive the daemon with, into the folder $1 unless there is one.
#
# From Debian's package docker.io, unpacked and not installed: that would start dockerd.
set -eu

command -v docker >/dev/null && exit 0
[ -x "$1/docker" ] && exit 0
echo "no docker command line: taking it from Debian's docker.io (it is not installed)"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
if [ "$(id -u)" -eq 0 ]; then
    apt-get update -qq
    chown _apt "$scratch"
fi
if ! apt-get download -qq docker-cli 2>/dev/null; then # newer Debian has the client by itself
    apt-get download -qq docker.io
fi
dpkg-deb -x ./*.deb unpacked
mkdir -p "$1"
cp unpacked/usr/bin/docker "$1/docker"

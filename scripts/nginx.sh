#!/bin/sh
# Put the files of Debian's nginx, which the tests serve from a container, into the folder $1 unless it is installed.
#
# From Debian's packages, unpacked and not installed: that would start a server on this machine's port 80.
set -eu

[ -x /usr/sbin/nginx ] && exit 0
[ -x "$1/usr/sbin/nginx" ] && exit 0
echo "no nginx: taking it from Debian's packages (they are not installed)"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
apt-get -qq update
apt-get -qq -o APT::Sandbox::User=root download nginx nginx-common
mkdir unpacked
for package in ./*.deb; do
    dpkg-deb -x "$package" unpacked
done
mkdir -p "$(dirname "$1")"
rm -rf "$1"
cp -a unpacked "$1"

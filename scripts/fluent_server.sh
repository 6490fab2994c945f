#!/bin/sh
# Put the Fluent forward server that the fluentd driver's tests send to into the folder $1 unless it is there.
#
# It is that of the npm package @fluent-org/logger: Debian has neither fluentd nor Fluent Bit.
set -eu

version=1.0.10
msgpack_version=2.8.0 # what it decodes with

grep -qs "\"version\": \"$version\"" "$1/node_modules/@fluent-org/logger/package.json" && exit 0
echo "no Fluent forward server: taking that of the npm package @fluent-org/logger $version"
mkdir -p "$1"
npm install --prefix "$1" --no-save --no-audit --no-fund --ignore-scripts --loglevel=error \
    "@fluent-org/logger@$version" "@msgpack/msgpack@$msgpack_version"

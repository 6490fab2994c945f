#!/bin/sh
# Put the npm packages that the tests need into the folder $1 unless they are there.
set -eu

# The Fluent forward server that the fluentd driver's tests send to, as Debian has neither fluentd nor Fluent Bit, and
# what it decodes with; the SDK that the API's tests use, and with it tar-stream.
packages="@fluent-org/logger@1.0.10 @msgpack/msgpack@2.8.0 dockerode@5.0.1"

missing=""
for package in $packages; do
    name=${package%@*}
    grep -qs "\"version\": \"${package##*@}\"" "$1/node_modules/$name/package.json" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "taking from npm:$missing"
mkdir -p "$1"
# All of them, as npm removes what it is not asked for.
# shellcheck disable=SC2086  # a list of names
npm install --prefix "$1" --no-save --no-audit --no-fund --ignore-scripts --loglevel=error $packages

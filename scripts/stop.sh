#!/bin/sh
# Stop the daemon that the pidfile names; with --all first its containers, and then remove everything it kept.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
bin=$here/.venv/bin
data=/var/lib/logd
run=/run/logd
export LOGD_HOST="unix://$run/logd.sock"

pid=$(cat "$run/logd.pid" 2>/dev/null || true)
if [ -z "$pid" ] || ! tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q 'logd.daemon'; then
    pid=""
fi

if [ "${1:-}" = --all ]; then
    if [ -z "$pid" ]; then
        if [ -d "$data/containers" ] && [ -n "$(ls -A "$data/containers")" ]; then
            echo "logd is not running: start it first (make run), so that containers are ended properly" >&2
            exit 1
        fi
    else
        ids=$("$bin/logd" ps -aq)
        # shellcheck disable=SC2086  # a list of ids
        [ -z "$ids" ] || "$bin/logd" rm -f $ids
    fi
fi

if [ -n "$pid" ]; then
    kill -TERM "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    echo "logd has stopped"
else
    echo "logd is not running"
fi

if [ "${1:-}" = --all ]; then
    rm -rf "$data" "$run"
    echo "$data and $run are removed"
fi

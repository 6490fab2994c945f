#!/bin/sh
# Start the daemon unless it runs, give it an image, run a container, show its log, and say how to go on.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
bin=$here/.venv/bin
log=$here/.make/daemon.log
export LOGD_HOST="${LOGD_HOST:-unix:///run/logd/logd.sock}"

if [ "$(id -u)" -ne 0 ]; then
    echo "logd runs containers and needs root: sudo make run" >&2
    exit 1
fi
getent group logd >/dev/null || groupadd --system logd

if "$bin/logd" ps >/dev/null 2>&1; then
    echo "logd is running already"
else
    echo "starting logd"
    "$bin/python" "$here/scripts/start_daemon.py" "$log" "$bin/logd" daemon --config-file "$here/config/daemon.json"
fi

if [ -z "$("$bin/logd" images -q busybox:latest)" ]; then
    echo "importing busybox:latest from this machine's busybox"
    "$bin/python" "$here/scripts/busybox_rootfs.py" | "$bin/logd" import --change 'CMD ["sh"]' - busybox:latest
fi
"$bin/logd" rm -f demo >/dev/null 2>&1 || true
"$bin/logd" run -d --name demo busybox:latest sh -c '
    echo "hello from $(hostname), process $$"
    for line in 1 2 3; do sleep 0.3; echo "line $line"; done
    sleep 0.3
    echo "this line went to stderr" >&2' >/dev/null

echo
echo "\$ logs -f -t demo"
"$bin/logs" -f -t demo

cat <<END

logd is ready. Go on with:

    export PATH=$bin:\$PATH        # logs, logd
    export DOCKER_HOST=$LOGD_HOST    # the docker command line and SDKs
    docker run --rm busybox echo hello                # or: logd run busybox echo hello
    logs -f --all                                     # follow every container

    make stop       # stop the daemon; containers go on, and the next start finds them
    make clean      # remove all containers, images and logs, and stop the daemon

Data: /var/lib/logd. Settings: $here/config/daemon.json. The daemon's own log: journald, syslog or $log.
END

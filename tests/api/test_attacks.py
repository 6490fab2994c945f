"""Attacks on the daemon and from inside a container, one a test, on a real daemon: none gets anywhere."""

import contextlib
import importlib
import json
import os
import pkgutil
import re
import secrets
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import logd.api
from logd.network import namespaces

SECRET = "hunter2-of-the-daemon"
NOBODY = 65534
BODY_BYTES = 5 << 20
GROWN_KB = 64 << 10
"""What the daemon's memory may grow by while it refuses a hundred large bodies."""
WAIT_S = 30.0


@pytest.fixture(scope="module")
def place(make_module_daemon, busybox_tar):
    """A daemon with a secret in its environment, and a container that runs."""
    daemon = make_module_daemon().start(LOGD_TEST_SECRET=SECRET)
    daemon.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
    daemon.docker("run", "-d", "-i", "--name", "target", "busybox", "sleep", "600")
    shown = json.loads(daemon.docker("inspect", "target").stdout)[0]
    return SimpleNamespace(daemon=daemon, docker=daemon.docker, target=shown)


def sh(place, *arguments):
    """Run a script in a container of its own: options, then the script."""
    command = ("run", "--rm", "--network", "none", *arguments[:-1], "busybox", "sh", "-c", arguments[-1])
    return place.docker(*command, check=False).stdout


@contextlib.contextmanager
def connected(daemon):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(WAIT_S)
        connection.connect(str(daemon.socket))
        yield connection


def ask(daemon, method, path, body=b"", head=""):
    """Return the status and the answer's body, 0 where the connection was cut."""
    with connected(daemon) as connection:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", "Content-Type: application/json"]
        lines += [head or f"Content-Length: {len(body)}", "", ""]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall("\r\n".join(lines).encode() + body)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                answer += data
    head, _, rest = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), rest


REFUSALS = (501, 503)
"""What is not supported; and what is for swarms."""


def is_refused(status):
    return 400 <= status < 500 or status in REFUSALS


def memory_kb(daemon):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{daemon.process.pid}/status").read_text())[1])


def files(daemon):
    return sorted(
        str(path) for root in ("containers", "volumes", "networks") for path in (daemon.data_root / root).iterdir()
    )


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../../tmp/x", "..", ".", "a\n", "a\0b", "\x1b[2Jx", "-rf"])
def test_a_name_that_is_a_path_or_worse_names_nothing(place, name):
    before = files(place.daemon)
    quoted = "".join(f"%{byte:02x}" for byte in name.encode())
    image = {"Image": "busybox"}
    for path, body in (
        (f"/containers/create?name={quoted}", image),
        (f"/containers/target/rename?name={quoted}", {}),
        ("/volumes/create", {"Name": name}),
        ("/containers/create", image | {"HostConfig": {"Binds": [f"{name}:/x"]}} if "/" not in name[:1] else {}),
        ("/containers/create", image | {"HostConfig": {"Runtime": name}}),
        ("/containers/create", image | {"HostConfig": {"LogConfig": {"Type": name}}}),
        ("/containers/create", image | {"HostConfig": {"VolumesFrom": [name]}}),
        ("/networks/create", {"Name": "n", "Options": {"com.docker.network.bridge.name": name}}),
        (f"/commit?container=target&repo={quoted}", {}),
        (f"/images/busybox/tag?repo={quoted}", {}),
        (f"/exec/{quoted}/start", {}),
        (f"/logd/containers/{quoted}/log/clear", {}),
    ):
        status, answer = ask(place.daemon, "POST", path, json.dumps(body).encode())
        assert is_refused(status), (path, status, answer)
        assert b"\x1b" not in answer
    assert files(place.daemon) == before


# -- bodies --------------------------------------------------------------------------------------------------------


def routes():
    modules = [importlib.import_module(f"logd.api.{found.name}") for found in pkgutil.iter_modules(logd.api.__path__)]
    found = [route for module in modules for route in getattr(module, "ROUTES", ())]
    return sorted({(one.method, re.sub(r"\{[^}]*\}", "nothing", one.path)) for one in found if one.method != "GET"})


def test_an_oversize_body_is_refused_by_every_route_and_not_kept(place):
    assert len(routes()) > 50
    before = memory_kb(place.daemon)
    for method, path in routes():
        status, answer = ask(place.daemon, method, path, b'{"x": "' + b"x" * BODY_BYTES)
        assert status in REFUSALS or status < 500, (method, path, answer)
    status, answer = ask(place.daemon, "POST", "/containers/create", b"{", f"Content-Length: {10**30}")
    assert status in {0, 400, 413}, answer
    assert memory_kb(place.daemon) - before < GROWN_KB


@pytest.mark.parametrize(
    "value",
    [
        "1" * 5000,
        "1e400",
        "-1e308",
        "1" + "0" * 30,
        "-1",
        "true",
        '"x"',
        "[[]]",
        '{"": null}',
        '["\\u0000"]',
        '"\\ud800"',
    ],
)
def test_no_value_of_a_field_is_more_than_refused(place, value):
    for field in (
        "Memory",
        "NanoCpus",
        "PidsLimit",
        "Binds",
        "PortBindings",
        "Ulimits",
        "Sysctls",
        "LogConfig",
        "Tmpfs",
    ):
        body = f'{{"Image": "busybox", "HostConfig": {{"{field}": {value}}}}}'.encode()
        status, answer = ask(place.daemon, "POST", "/containers/create", body)
        assert status in {201, 400, 404, 409, 501}, (field, answer)
        if status == 201:  # unlimited, or as dockerd converts it
            ask(place.daemon, "DELETE", f"/containers/{json.loads(answer)['Id']}")


def test_a_request_hidden_in_anothers_body_is_not_carried_out(place):
    hidden = b"POST /containers/target/kill HTTP/1.1\r\nHost: x\r\n\r\n"
    for head in (
        f"Content-Length: {5 + len(hidden)}\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nTransfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding : chunked",
        "Content-Length: +5",
        "Content-Length: 5, 5",
    ):
        ask(place.daemon, "POST", "/containers/create", b"0\r\n\r\n" + hidden, head)
    assert place.docker("inspect", "-f", "{{.State.Running}}", "target").stdout == "true\n"


# -- clients that dawdle -------------------------------------------------------------------------------------------


def test_clients_that_never_read_or_send_hold_up_nobody(place):
    place.docker("run", "-d", "--name", "slow", "busybox", "sh", "-c", "head -c 60000000 /dev/zero >/f; sleep 600")
    deadline = time.monotonic() + WAIT_S
    while "60000000" not in place.docker("exec", "slow", "stat", "-c", "%s", "/f", check=False).stdout:
        assert time.monotonic() < deadline
    before = memory_kb(place.daemon)
    with contextlib.ExitStack() as stack:
        for method, path in [
            *[("GET", "/containers/slow/export"), ("GET", "/containers/slow/archive?path=/f")] * 4,
            *[("GET", "/images/busybox/get"), ("GET", "/events"), ("GET", "/containers/slow/stats")] * 4,
            *[
                ("PUT", "/containers/slow/archive?path=/"),
                ("POST", "/images/load"),
                ("POST", "/images/create?fromSrc=-"),
            ]
            * 4,
        ]:
            connection = stack.enter_context(connected(place.daemon))
            length = "" if method == "GET" else "Content-Length: 1000000\r\n"
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{length}\r\n".encode() + b"x" * bool(length))
        assert sh(place, "echo served") == "served\n"
        place.docker("rm", "-f", "slow", timeout=WAIT_S)
        assert "slow" not in place.docker("ps", "-a").stdout
        assert memory_kb(place.daemon) - before < GROWN_KB


# -- strangers -----------------------------------------------------------------------------------------------------

STRANGER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    try:
        os.chdir(os.path.dirname(path))  # sun_path is short
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(os.path.basename(path))
        print("got in", path)
    except OSError as error:
        print(error.strerror)
"""


def test_a_stranger_gets_on_none_of_our_sockets_and_reads_none_of_our_files(place):
    place.docker("exec", "-d", "target", "sleep", "600")
    place.docker("run", "-d", "--name", "logging", "--log-driver", "json-file", "busybox", "sleep", "600")
    roots = (place.daemon.data_root, place.daemon.exec_root)
    found = [path for root in roots for path in root.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    assert {"logd.sock", "keeper.sock"} <= {path.name for path in found}
    assert len(found) >= 5, found
    place.daemon.folder.chmod(0o711)  # as /run and /var/lib are
    done = subprocess.run([sys.executable, "-c", STRANGER, *found], capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()) == {"Permission denied"}
    for path in found:
        assert path.stat().st_mode & 0o007 == 0, path
    ours = [f"/proc/{pid}" for pid in (place.daemon.process.pid, *place.daemon.processes())]
    inodes = {os.readlink(f"{one}/fd/{fd}")[8:-1] for one in ours for fd in fds(one) if is_socket(f"{one}/fd/{fd}")}
    abstract = [line for line in Path("/proc/net/unix").read_text().splitlines() if "@" in line]
    assert not [line for line in abstract if line.split()[6] in inodes], "reached whatever the permissions"
    place.docker("rm", "-f", "logging")


def fds(process):
    with contextlib.suppress(OSError):
        return os.listdir(f"{process}/fd")
    return []


def is_socket(link):
    with contextlib.suppress(OSError):
        return os.readlink(link).startswith("socket:[")
    return False


# -- from inside ---------------------------------------------------------------------------------------------------

HARMLESS = re.compile(r"pipe:\[\d+\]|(?:/dev)?/null|/dev/pts/\d+|/dev/console|/proc/\d+/fd|/bin/busybox")
"""`/null`: of the host, but there is nothing to be had from it, nor any way on."""


@pytest.mark.parametrize(
    "options", [(), ("-i",), ("-t",), ("--privileged",)], ids=["plain", "stdin", "tty", "privileged"]
)
def test_no_descriptor_of_the_host_is_in_a_container_or_an_exec(place, options):
    script = "ls -l /proc/1/fd /proc/self/fd"
    for shown in (
        place.docker("run", "--rm", "--network", "none", *options, "busybox", "sh", "-c", f"{script}; :").stdout,
        place.docker("exec", *options, "target", "sh", "-c", script).stdout,
    ):
        links = re.findall(r" -> (\S+)", shown)
        assert len(links) >= 6
        assert [one for one in links if not HARMLESS.fullmatch(one)] == []


def test_no_working_directory_leads_out_of_a_container(place):
    """As with CVE-2024-21626."""
    secret = place.daemon.folder / "secret"
    secret.write_text(SECRET)
    look = f"for up in . ..; do cat $up/../../../../..{secret}; done; echo over"
    for number in range(3, 12):
        assert sh(place, "-w", f"/proc/self/fd/{number}", look) in {"", "over\n"}


def test_the_daemons_environment_is_in_no_container_and_no_runtime(place):
    assert SECRET in Path(f"/proc/{place.daemon.process.pid}/environ").read_text()
    for shown in (
        sh(place, "env; cat /proc/1/environ"),
        sh(place, "--init", "env; cat /proc/1/environ"),
        place.docker("exec", "target", "sh", "-c", "env; cat /proc/1/environ").stdout,
        json.dumps(place.target),
        (place.daemon.exec_root / "containers" / place.target["Id"] / "config.json").read_text(),
    ):
        assert shown
        assert SECRET not in shown
        assert "LOGD_TEST" not in shown


def test_the_kernels_switches_are_masked_or_cannot_be_written(place):
    shown = sh(
        place,
        "for f in /proc/sys/kernel/core_pattern /proc/sys/vm/panic_on_oom /proc/sysrq-trigger "
        "/sys/kernel/uevent_helper /sys/fs/cgroup/cgroup.procs /sys/kernel/mm/ksm/run; do "
        "if [ -e $f ] && (echo 1 >$f) 2>/dev/null; then echo wrote $f; fi; done; "
        "for f in /proc/kcore /proc/keys /proc/timer_list /proc/latency_stats; do "
        "if [ -s $f ] || head -c1 $f 2>/dev/null | grep -q .; then echo read $f; fi; done; "
        "for d in /proc/acpi /proc/scsi /sys/firmware; do ls $d 2>/dev/null; done; "
        "mount -t tmpfs none /mnt 2>/dev/null && echo mounted; mknod /tmp/sda b 8 0 2>/dev/null && head -c1 /tmp/sda "
        "&& echo opened; echo over",
    )
    assert shown == "over\n"


def test_a_container_reaches_no_listener_of_the_hosts_loopback_by_its_bridge(place):
    """Though it routes 127.0.0.1 to the bridge, which does route that, for published ports."""
    sandbox = Path(place.target["NetworkSettings"]["SandboxKey"])
    gateway = place.target["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
    place.docker("run", "-d", "--name", "publishes", "-p", "80", "busybox", "sleep", "600")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = listener.getsockname()

        def attack():
            Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
            for line in (
                "route del local 127.0.0.1 dev lo table local",
                "route del local 127.0.0.0/8 dev lo table local",
                f"route add 127.0.0.1/32 via {gateway} dev eth0 src {place.target['NetworkSettings']['IPAddress']}",
            ):
                subprocess.run(["ip", *line.split()], check=True)
            with socket.socket() as probe:
                probe.settimeout(1)
                return probe.connect_ex(address), subprocess.run(["ip", "-s", "neigh"], check=True, capture_output=True)

        result, neighbours = namespaces.inside(sandbox, attack)
        assert gateway.encode() in neighbours.stdout, "the packets never came to the bridge"
        assert result != 0
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    place.docker("rm", "-f", "publishes")


def test_the_name_server_of_a_container_answers_no_other(place):
    network = f"n{secrets.token_hex(4)}"
    place.docker("network", "create", network)
    place.docker("run", "-d", "--name", "named", "--network", network, "busybox", "sleep", "600")
    shown = json.loads(place.docker("inspect", "named").stdout)[0]["NetworkSettings"]["Networks"][network]
    script = f"nslookup named 127.0.0.11 && echo own; nslookup -timeout=1 named {shown['IPAddress']} && echo others"
    script += f"; nslookup -timeout=1 named {shown['Gateway']} && echo host"
    done = place.docker("run", "--rm", "--network", network, "busybox", "sh", "-c", f"({script}) 2>&1", check=False)
    words = done.stdout.split()
    assert "own" in words
    assert not {"others", "host"} & set(words), done.stdout
    place.docker("rm", "-f", "named")
    place.docker("network", "rm", network)

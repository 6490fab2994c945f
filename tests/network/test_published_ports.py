"""Published ports and the walls between networks, with containers that serve HTTP, seen from all sides."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from namespaced import HOST_ADDRESS, WAIT_S, Stranger, fetch, fetch_soon, soon, stranger_in, unreachable

from logd.network import namespaces
from logd.network.nft import table_name

SERVE = "cd /tmp; echo $HOSTNAME > index.html; exec httpd -f -p {port}"


@pytest.fixture(scope="module")
def daemon(make_module_daemon: Callable[..., Any], busybox_tar: bytes) -> Any:
    made = make_module_daemon().start()
    made.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
    return made


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    with stranger_in(tmp_path_factory.mktemp("stranger")) as made:
        yield made


@pytest.fixture
def serve(daemon: Any) -> Iterator[Callable[..., str]]:
    """Return what starts a container that serves its name; all are removed afterwards."""
    names: list[str] = []

    def start(name: str, *options: str, port: int = 80) -> str:
        names.append(name)
        command = ["sh", "-c", SERVE.format(port=port)]
        daemon.docker("run", "-d", "--name", name, "--hostname", name, *options, "busybox", *command)
        return name

    yield start
    if names:
        daemon.docker("rm", "-f", *names)


@pytest.fixture
def network(daemon: Any) -> Iterator[Callable[..., str]]:
    """Return what makes a network; all are removed afterwards, after the containers."""
    names: list[str] = []

    def make(name: str, *options: str) -> str:
        daemon.docker("network", "create", *options, name)
        names.append(name)
        return name

    yield make
    if names:
        daemon.docker("network", "rm", *names)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def inspect(daemon: Any, name: str) -> dict[str, Any]:
    (shown,) = json.loads(daemon.docker("inspect", name).stdout)
    return dict(shown)


def sandbox(daemon: Any, name: str) -> Path:
    return Path(inspect(daemon, name)["NetworkSettings"]["SandboxKey"])


def address_of(daemon: Any, name: str, network: str = "bridge") -> str:
    return str(inspect(daemon, name)["NetworkSettings"]["Networks"][network]["IPAddress"])


def ask_from(daemon: Any, name: str, address: str) -> str:
    """Return what a container gets from an HTTP server."""
    return namespaces.inside(sandbox(daemon, name), lambda: fetch(address, 20.0)).strip()


def is_kept_from(daemon: Any, name: str, address: str) -> bool:
    """Tell whether a container gets no answer for a second."""
    return namespaces.inside(sandbox(daemon, name), lambda: unreachable(address))


def rules(table: str = "") -> str:
    """Return the rules of a table as nft has them, or of all."""
    command = ["nft", "list", "table", "inet", table] if table else ["nft", "list", "ruleset"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_a_published_port_is_reached_from_everywhere(
    daemon: Any, stranger: Stranger, serve: Callable[..., str]
) -> None:
    port = free_port()
    serve("web", "-p", f"{port}:80")
    serve("other")
    assert fetch_soon(f"127.0.0.1:{port}") == "web\n"
    assert fetch(f"{HOST_ADDRESS}:{port}") == "web\n"
    assert stranger.do(lambda: fetch(f"{HOST_ADDRESS}:{port}")) == "web\n"
    for container in ("web", "other"):
        assert ask_from(daemon, container, f"{HOST_ADDRESS}:{port}") == "web"
    assert daemon.docker("port", "web").stdout == f"80/tcp -> 0.0.0.0:{port}\n"
    assert daemon.docker("ps", "--filter", "name=web", "--format", "{{.Ports}}").stdout == f"0.0.0.0:{port}->80/tcp\n"


def test_what_is_not_published_is_reached_by_the_host_and_neighbours_only(
    daemon: Any, stranger: Stranger, serve: Callable[..., str]
) -> None:
    serve("quiet", "--expose", "80")
    serve("next")
    address = address_of(daemon, "quiet")
    assert fetch_soon(address) == "quiet\n"
    assert ask_from(daemon, "next", address) == "quiet"
    assert stranger.do(lambda: unreachable(address))
    assert inspect(daemon, "quiet")["NetworkSettings"]["Ports"] == {"80/tcp": None}


def test_a_port_at_the_loopback_is_the_hosts_only(stranger: Stranger, serve: Callable[..., str]) -> None:
    port, six = free_port(), free_port()
    serve("local", "-p", f"127.0.0.1:{port}:80", "-p", f"[::1]:{six}:80")
    assert fetch_soon(f"127.0.0.1:{port}") == "local\n"
    assert fetch_soon(f"[::1]:{six}") == "local\n"
    assert unreachable(f"{HOST_ADDRESS}:{port}")
    assert stranger.do(lambda: unreachable(f"{HOST_ADDRESS}:{port}"))


def test_random_ports_stay_over_a_daemon_that_is_killed_and_are_served_meanwhile(
    daemon: Any, serve: Callable[..., str]
) -> None:
    serve("lasting", "-P", "--expose", "80", "--expose", "9/udp")
    ports = inspect(daemon, "lasting")["NetworkSettings"]["Ports"]
    port = ports["80/tcp"][0]["HostPort"]
    fetch_soon(f"127.0.0.1:{port}")
    daemon.kill()
    assert fetch(f"127.0.0.1:{port}") == "lasting\n"
    daemon.start()
    assert fetch(f"127.0.0.1:{port}") == "lasting\n"
    assert inspect(daemon, "lasting")["NetworkSettings"]["Ports"] == ports
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("0.0.0.0", int(port)))
    daemon.docker("restart", "-t", "0", "lasting")
    changed = inspect(daemon, "lasting")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    assert changed != port
    assert fetch_soon(f"127.0.0.1:{changed}") == "lasting\n"


def test_a_port_that_is_taken_is_refused_in_dockers_words(daemon: Any, serve: Callable[..., str]) -> None:
    port = free_port()
    serve("first", "-p", f"{port}:80")
    refused = daemon.docker("run", "--name", "second", "-p", f"{port}:80", "busybox", "true", check=False)
    try:
        assert refused.returncode == 125
        pattern = (
            r"driver failed programming external connectivity on endpoint second \([0-9a-f]{64}\): "
            rf"Bind for 0\.0\.0\.0:{port} failed: port is already allocated"
        )
        assert re.search(pattern, refused.stderr), refused.stderr
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.1", 0))
            taken = stranger.getsockname()[1]
            daemon.docker("rm", "second")
            refused = daemon.docker("run", "--name", "second", "-p", f"{taken}:80", "busybox", "true", check=False)
        assert f"failed to bind host port 0.0.0.0:{taken}/tcp: address already in use" in refused.stderr
        daemon.docker("start", "-a", "second")
        assert fetch_soon(f"127.0.0.1:{port}") == "first\n"
    finally:
        daemon.docker("rm", "-f", "second")


def test_of_containers_that_start_at_once_those_fail_whose_port_is_taken(
    daemon: Any, serve: Callable[..., str]
) -> None:
    port = free_port()
    serve("holder", "-p", f"{port}:80")

    def run(number: int) -> tuple[bool, int, str]:
        wants_it = number % 2 == 0
        options = ("-p", f"{port}:80") if wants_it else ()
        done = daemon.docker("run", "--rm", *options, "busybox", "true", check=False)
        return wants_it, done.returncode, done.stderr

    with ThreadPoolExecutor(4) as threads:
        ended = list(threads.map(run, range(8)))
    for wants_it, code, words in ended:
        assert code == (125 if wants_it else 0), words
        assert ("port is already allocated" in words) == wants_it


def test_what_can_not_be_published_is_refused_with_the_reason(daemon: Any) -> None:
    for options, words in (
        (("-p", "80/sctp"), "sctp is not supported"),
        (("-p", "[fd00::1]:81:80"), "the container has no IPv6 address"),
    ):
        refused = daemon.docker("run", "--rm", *options, "busybox", "true", check=False)
        assert words in refused.stderr


def test_ranges_and_udp(daemon: Any, serve: Callable[..., str]) -> None:
    port = free_port()
    serve("ranged", "-p", f"{port}-{min(port + 20, 65535)}:80")
    serve("ranged2", "-p", f"{port}-{min(port + 20, 65535)}:80")
    found = [daemon.docker("port", name, "80").stdout.strip() for name in ("ranged", "ranged2")]
    assert len(set(found)) == 2
    assert [fetch_soon(one.replace("0.0.0.0", "127.0.0.1")) for one in found] == ["ranged\n", "ranged2\n"]
    daemon.docker("run", "-d", "--name", "echo", "-p", "127.0.0.1::7/udp", "busybox", "sleep", "1000")
    try:
        port = int(daemon.docker("port", "echo", "7/udp").stdout.strip().rpartition(":")[2])
        with namespaces.inside(sandbox(daemon, "echo"), bound_datagrams) as server, bound_datagrams(0) as client:
            for one in (server, client):
                one.settimeout(20)
            client.connect(("127.0.0.1", port))
            client.send(b"hello")
            message, sender = server.recvfrom(100)
            server.sendto(message, sender)
            assert client.recv(100) == b"hello"
    finally:
        daemon.docker("rm", "-f", "echo")


def test_datagrams_of_a_client_that_goes_on_reach_the_next_container(daemon: Any) -> None:
    def exchange(name: str, client: socket.socket) -> bytes:
        with namespaces.inside(sandbox(daemon, name), bound_datagrams) as server:
            server.settimeout(20)
            client.send(name.encode())
            return server.recv(100)

    def run(name: str, *options: str) -> None:
        daemon.docker("run", "-d", "--name", name, *options, "busybox", "sleep", "1000")

    run("bystander")  # else the bridge went, and with it what the kernel remembers
    run("one", "-p", "127.0.0.1::7/udp")
    try:
        port = daemon.docker("port", "one", "7/udp").stdout.strip().rpartition(":")[2]
        with bound_datagrams(0) as client:
            client.connect(("127.0.0.1", int(port)))
            assert exchange("one", client) == b"one"
            daemon.docker("rm", "-f", "one")
            run("filler")  # so that the next one has another address than the first
            run("two", "-p", f"127.0.0.1:{port}:7/udp")
            assert exchange("two", client) == b"two"
    finally:
        daemon.docker("rm", "-f", "bystander", "one", "filler", "two", check=False)


def bound_datagrams(port: int = 7) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("0.0.0.0", port))
    return made


def test_networks_do_not_reach_each_other_and_an_internal_one_has_no_way_out(
    daemon: Any, stranger: Stranger, network: Callable[..., str], serve: Callable[..., str]
) -> None:
    outside = free_port()
    server = subprocess.Popen(
        ["nsenter", f"--net={stranger.sandbox}", "busybox", "httpd", "-f", "-p", str(outside), "-h", "/etc/ssl"],
        stdin=subprocess.DEVNULL,
    )
    try:
        network("front")
        network("back", "--internal")
        serve("web", "--network", "front")
        serve("db", "--network", "back")
        serve("db2", "--network", "back")
        serve("other", "-p", "80")
        web, db = address_of(daemon, "web", "front"), address_of(daemon, "db", "back")
        published = daemon.docker("port", "other", "80").stdout.strip().rpartition(":")[2]
        assert fetch_soon(web) == "web\n"
        assert fetch_soon(f"127.0.0.1:{published}") == "other\n"
        assert ask_from(daemon, "db2", db) == "db"
        for container, address in (("other", web), ("web", db), ("db", web), ("db", f"{HOST_ADDRESS}:{published}")):
            assert is_kept_from(daemon, container, address), (container, address)
        assert ask_from(daemon, "web", f"{HOST_ADDRESS}:{published}") == "other"
        there = f"{stranger.address}:{outside}"
        soon(lambda: connect(there), "the stranger does not listen")
        namespaces.inside(sandbox(daemon, "web"), lambda: connect(there))
        with pytest.raises(OSError, match=r"unreachable|timed out"):
            namespaces.inside(sandbox(daemon, "db"), lambda: connect(there, 1.0))
        assert stranger.do(lambda: unreachable(db))
    finally:
        server.terminate()
        server.wait()


def connect(address: str, timeout_s: float = 20.0) -> None:
    host, port = address.split(":")
    socket.create_connection((host, int(port)), timeout_s).close()


def test_without_icc_neighbours_do_not_reach_each_other(
    daemon: Any, network: Callable[..., str], serve: Callable[..., str]
) -> None:
    network("shut", "-o", "com.docker.network.bridge.enable_icc=false")
    serve("one", "--network", "shut")
    serve("two", "--network", "shut", "-p", "80")
    address = address_of(daemon, "one", "shut")
    assert fetch_soon(address) == "one\n"
    assert is_kept_from(daemon, "two", address)
    published = daemon.docker("port", "two", "80").stdout.strip().rpartition(":")[2]
    fetch_soon(f"127.0.0.1:{published}")
    assert ask_from(daemon, "one", f"{HOST_ADDRESS}:{published}") == "two"


def put_back(daemon: Any, table: str, before: str) -> None:
    if rules(table) != before:
        raise OSError(f"{rules(table)}\n{daemon.log()}")


def test_rules_that_another_program_takes_away_are_put_back(daemon: Any, serve: Callable[..., str]) -> None:
    serve("one", "-p", "80")
    table = table_name(daemon.exec_root)
    published = daemon.docker("port", "one", "80").stdout.strip().rpartition(":")[2]
    before = rules(table)
    for damage in (f"delete table inet {table}", f"flush chain inet {table} publish", f"flush table inet {table}"):
        subprocess.run(["nft", damage], check=True)
        soon(lambda: put_back(daemon, table, before), "the rules are not put back")
        assert fetch_soon(f"127.0.0.1:{published}") == "one\n"
    assert daemon.log().count(f"table inet {table} was changed by another program; it is as before again") == 3


def wait_until_gone(table: str) -> None:
    """A bridge and its rules stay for a moment, for the next container."""
    deadline = time.monotonic() + WAIT_S
    while rules(table):
        assert time.monotonic() < deadline, "the rules don't go"
        time.sleep(0.02)


def test_the_rules_go_with_the_last_container_whoever_sees_its_end_and_those_of_others_stay(daemon: Any) -> None:
    table = table_name(daemon.exec_root)
    others = f"lt_{Path(daemon.folder).name.replace('-', '_')}"
    subprocess.run(["nft", f"table inet {others} {{ chain c {{ tcp dport 1 drop; }}; }}"], check=True)
    try:
        before = rules(others)
        daemon.docker("run", "-d", "--name", "only", "-p", "80", "busybox", "sleep", "1000")
        assert "masquerade" in rules(table)
        daemon.docker("rm", "-f", "only")
        wait_until_gone(table)
        assert rules(others) == before
        daemon.docker("run", "-d", "--name", "only", "-p", "80", "busybox", "sleep", "1000")
        pid = inspect(daemon, "only")["State"]["Pid"]
        daemon.kill()
        os.kill(pid, signal.SIGKILL)
        daemon.start()
        assert not inspect(daemon, "only")["State"]["Running"]
        wait_until_gone(table)
        daemon.docker("rm", "only")
    finally:
        subprocess.run(["nft", "delete", "table", "inet", others], check=True)

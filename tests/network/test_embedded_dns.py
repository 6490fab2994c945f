"""The name server in containers of networks that people make: busybox's nslookup, and packets by hand."""

import contextlib
import json
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from namespaced import soon

from logd.network import dns_wire, namespaces
from logd.network.dns import RATE

SERVER = ("127.0.0.11", 53)


@pytest.fixture(scope="module")
def daemon(make_module_daemon: Callable[..., Any], busybox_tar: bytes) -> Any:
    made = make_module_daemon().start()
    made.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
    for name, options in (("front", ()), ("back", ("--internal",))):
        made.docker("network", "create", *options, name)
    for name, options in (
        ("web1", ("--network", "front", "--network-alias", "web")),
        ("web2", ("--network", "front", "--network-alias", "web", "--hostname", "second")),
        ("db", ("--network", "back")),
        ("client", ("--network", "back", "--dns", "127.0.0.53", "--dns-option", "ndots:0")),
        ("plain", ()),
    ):
        made.docker("run", "-d", "--name", name, *options, "busybox", "sleep", "10000")
    return made


def sandbox(daemon: Any, name: str) -> Path:
    (shown,) = json.loads(daemon.docker("inspect", name).stdout)
    return Path(shown["NetworkSettings"]["SandboxKey"])


def address(daemon: Any, name: str, network: str) -> str:
    (shown,) = json.loads(daemon.docker("inspect", name).stdout)
    return str(shown["NetworkSettings"]["Networks"][network]["IPAddress"])


def look_up(daemon: Any, name: str, what: str) -> str:
    """Return what nslookup says in a container's namespace."""
    command = ["nsenter", f"--net={sandbox(daemon, name)}", "busybox", "nslookup", what, SERVER[0]]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout


def question(name: str, kind: int = dns_wire.A) -> bytes:
    head = dns_wire.HEADER.pack(77, dns_wire.RECURSION_DESIRED, 1, 0, 0, 0)
    return head + dns_wire.encode_name(name) + struct.pack(">HH", kind, dns_wire.INTERNET)


def ask(message: bytes, timeout_s: float = 10.0) -> bytes:
    """Send a datagram to the name server of this namespace and return the answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout_s)
        client.connect(SERVER)
        client.send(message)
        return client.recv(4096)


def ask_in(daemon: Any, name: str, message: bytes) -> bytes:
    return namespaces.inside(sandbox(daemon, name), lambda: ask(message))


def test_containers_of_a_network_find_each_other_by_every_name(daemon: Any) -> None:
    second = address(daemon, "web2", "front")
    short = daemon.docker("inspect", "--format", "{{.Id}}", "web2").stdout[:12]
    for name in ("web2", "WEB2", "second", short, "web2.front"):
        assert f"Address: {second}" in look_up(daemon, "web1", name), name
    both = look_up(daemon, "web1", "web")
    assert f"Address: {second}" in both
    assert f"Address: {address(daemon, 'web1', 'front')}" in both
    assert "name = web2.front" in look_up(daemon, "web1", second)


def test_the_programs_in_a_container_use_it_by_resolv_conf(daemon: Any) -> None:
    shown = daemon.docker("run", "--rm", "--network", "front", "busybox", "cat", "/etc/resolv.conf").stdout
    assert "nameserver 127.0.0.11\n" in shown
    assert "ndots:0" in shown
    found = daemon.docker("run", "--rm", "--network", "front", "busybox", "nslookup", "web1").stdout
    assert f"Address: {address(daemon, 'web1', 'front')}" in found


def test_names_of_other_networks_are_not_known_and_an_internal_one_asks_nobody(daemon: Any) -> None:
    answer = ask_in(daemon, "client", question("web1"))
    assert dns_wire.code_of(answer) == dns_wire.SERVER_FAILURE
    assert f"Address: {address(daemon, 'db', 'back')}" in look_up(daemon, "client", "db")


def test_a_container_without_a_network_of_its_own_has_no_name_server(daemon: Any) -> None:
    with pytest.raises(OSError, match=r"refused|timed out"):
        namespaces.inside(sandbox(daemon, "plain"), lambda: ask(question("web1"), 1.0))


def test_a_known_name_without_such_a_record_is_answered_with_nothing(daemon: Any) -> None:
    for kind in (dns_wire.AAAA, 15, 16, 65):
        answer = ask_in(daemon, "web1", question("web2", kind))
        assert dns_wire.code_of(answer) == dns_wire.NO_ERROR
        assert dns_wire.HEADER.unpack_from(answer)[3] == 0


def test_tcp_is_served_too_several_questions_a_connection(daemon: Any) -> None:
    def exchange() -> bytes:
        with socket.create_connection(SERVER, 10) as connection:
            message = question("web2")
            connection.sendall(2 * (struct.pack(">H", len(message)) + message))
            received = b""
            while len(received) < 2 * (2 + len(message) + 16):
                part = connection.recv(4096)
                assert part
                received += part
            return received

    received = namespaces.inside(sandbox(daemon, "web1"), exchange)
    assert received.count(socket.inet_aton(address(daemon, "web2", "front"))) == 2


def test_malformed_packets_are_refused_and_harm_nobody(daemon: Any) -> None:
    def send() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(SERVER)
            for message in (b"\0", b"\xff" * 600, question("web2")[:-3], b""):
                client.send(message)
        return ask(b"\0\7" + b"\0" * 10)

    answer = namespaces.inside(sandbox(daemon, "web1"), send)
    assert (answer[:2], dns_wire.code_of(answer)) == (b"\0\7", dns_wire.FORMAT_ERROR)
    assert dns_wire.code_of(ask_in(daemon, "web1", question("web2"))) == dns_wire.NO_ERROR


class Upstream:
    """A name server in a container's namespace that answers everything in one way, cut by UDP, whole by TCP."""

    def __init__(self, place: Path) -> None:
        self.asked: list[bytes] = []
        self._udp, self._tcp = namespaces.inside(place, self._open)
        self._threads = [threading.Thread(target=one) for one in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _open() -> tuple[socket.socket, socket.socket]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.53", 53))
        return udp, socket.create_server(("127.0.0.53", 53))

    def _answer(self, message: bytes, *, cut: bool) -> bytes:
        self.asked.append(message)
        query = dns_wire.parse_query(message)
        return dns_wire.reply(query, [dns_wire.address_record("192.0.2.77")], limit=len(message) if cut else 65535)

    def _serve_udp(self) -> None:
        while True:
            message, client = self._udp.recvfrom(4096)
            if message == b"end":
                return
            self._udp.sendto(b"\0\0" + self._answer(message, cut=True)[2:], client)  # a forgery, to be passed over
            self._udp.sendto(self._answer(message, cut=True), client)

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            with connection:
                head = connection.recv(2)
                if not head:
                    return
                answer = self._answer(connection.recv(4096), cut=False)
                connection.sendall(struct.pack(">H", len(answer)) + answer)

    def close(self, place: Path) -> None:
        def end() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"end", ("127.0.0.53", 53))
            socket.create_connection(("127.0.0.53", 53), 5).close()

        namespaces.inside(place, end)
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()


@pytest.fixture
def asking(daemon: Any) -> Iterator[tuple[Path, Upstream]]:
    """A container that was given a name server of its own, which is in its namespace."""
    options = ("--network", "front", "--dns", "127.0.0.53")
    daemon.docker("run", "-d", "--name", "asking", *options, "busybox", "sleep", "10000")
    place = sandbox(daemon, "asking")
    upstream = Upstream(place)
    yield place, upstream
    upstream.close(place)
    daemon.docker("rm", "-f", "asking")


def test_other_names_are_asked_of_the_servers_that_the_container_was_given(
    asking: tuple[Path, Upstream], daemon: Any
) -> None:
    place, upstream = asking
    cut = namespaces.inside(place, lambda: ask(question("example.org")))
    assert cut[:2] == (77).to_bytes(2, "big")
    assert dns_wire.HEADER.unpack_from(cut)[1] & dns_wire.TRUNCATED
    assert upstream.asked[0][2:] == question("example.org")[2:]

    def by_tcp() -> bytes:
        with socket.create_connection(SERVER, 10) as connection:
            message = question("example.org")
            connection.sendall(struct.pack(">H", len(message)) + message)
            return connection.recv(4096)

    assert socket.inet_aton("192.0.2.77") in namespaces.inside(place, by_tcp)
    known = namespaces.inside(place, lambda: ask(question("web1")))
    assert socket.inet_aton(address(daemon, "web1", "front")) in known


def test_names_follow_what_is_connected_renamed_and_ended(daemon: Any) -> None:
    daemon.docker("run", "-d", "--name", "guest", "busybox", "sleep", "10000")
    try:
        daemon.docker("network", "connect", "--alias", "visitor", "front", "guest")
        guest = socket.inet_aton(address(daemon, "guest", "front"))
        assert guest in ask_in(daemon, "web1", question("visitor"))
        assert guest in ask_in(daemon, "guest", question("guest"))
        daemon.docker("rename", "guest", "friend")
        assert guest in ask_in(daemon, "web1", question("friend"))
        daemon.docker("network", "disconnect", "front", "friend")
        assert guest not in ask_in(daemon, "web1", question("visitor.front"))
    finally:
        daemon.docker("rm", "-f", "guest", "friend", check=False)


def test_names_are_back_with_the_next_daemon(daemon: Any) -> None:
    place = sandbox(daemon, "web1")
    known = socket.inet_aton(address(daemon, "web2", "front"))
    daemon.kill()
    with pytest.raises(OSError, match=r"refused|timed out"):
        namespaces.inside(place, lambda: ask(question("web2"), 2.0))
    daemon.start()
    assert known in soon(lambda: namespaces.inside(place, lambda: ask(question("web2"))), "no answer")


def test_a_container_may_have_a_name_server_of_its_own_at_all_addresses(daemon: Any) -> None:
    def listen() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.create_server(("0.0.0.0", 53)):
            udp.bind(("0.0.0.0", 53))
            assert dns_wire.code_of(ask(question("web2"))) == dns_wire.NO_ERROR

    namespaces.inside(sandbox(daemon, "web1"), listen)


def test_a_container_that_floods_gets_so_many_answers_a_second_and_others_all_of_theirs(daemon: Any) -> None:
    stop, answered, began = threading.Event(), [0], time.monotonic()

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(SERVER)
            while not stop.is_set():
                client.send(question("web1"))
                with contextlib.suppress(BlockingIOError):
                    client.recv(4096, socket.MSG_DONTWAIT)
                    answered[0] += 1

    thread = threading.Thread(target=lambda: namespaces.inside(sandbox(daemon, "web2"), flood))
    thread.start()
    try:
        place = sandbox(daemon, "web1")
        while time.monotonic() < began + 2:
            assert dns_wire.code_of(namespaces.inside(place, lambda: ask(question("web2")))) == dns_wire.NO_ERROR
    finally:
        stop.set()
        thread.join()
    assert 0 < answered[0] <= RATE * (time.monotonic() - began + 1)

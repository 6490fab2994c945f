"""What the kernel says of changes to nftables, by real changes in a network namespace of the test's own."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logd.network import namespaces
from logd.network.firewall import Bridge, Forward, render
from logd.network.ports import Published
from logd.network.rules_watch import GROUP, NETLINK_NETFILTER, whole_after

PORT = Published(protocol="tcp", container_port=80, host_ip="0.0.0.0", host_port=8080)
OURS = render("logd", [Bridge(link="br-a", subnets=("10.1.0.0/24",))], [Forward(published=PORT, address="10.1.0.2")])


@pytest.fixture
def tell(tmp_path: Path) -> Iterator[Callable[[str], bytes]]:
    """Return what has nft do something, and returns all that the kernel says of it."""
    sandbox = tmp_path / "sandbox"
    namespaces.make(sandbox)
    try:
        with namespaces.inside(
            sandbox, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        ) as ear:
            ear.bind((0, 1 << (GROUP - 1)))
            ear.setblocking(False)

            def do(text: str) -> bytes:
                work = lambda: subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)  # noqa: E731
                namespaces.inside(sandbox, work)
                said = b""
                while True:
                    try:
                        said += ear.recv(1 << 16)
                    except BlockingIOError:
                        return said

            yield do
    finally:
        namespaces.remove(sandbox)


def test_our_own_transactions_leave_the_table_whole(tell: Callable[[str], bytes]) -> None:
    for _ in range(2):
        said = tell(OURS)
        assert said
        assert whole_after(said, b"logd", whole=True)
        assert whole_after(said, b"logd", whole=False)


@pytest.mark.parametrize(
    "damage",
    [
        "flush ruleset",
        "flush ruleset\ntable inet other { }",
        "delete table inet logd",
        "flush table inet logd",
        "flush chain inet logd publish",
        "flush map inet logd published",
        "delete table inet logd\ntable inet logd2 { }",
    ],
)
def test_what_others_take_away_is_noticed(tell: Callable[[str], bytes], damage: str) -> None:
    tell(OURS)
    said = tell(damage)
    assert not whole_after(said, b"logd", whole=True)
    assert whole_after(said + tell(OURS), b"logd", whole=True)


def test_what_others_do_with_tables_of_theirs_is_not_ours(tell: Callable[[str], bytes]) -> None:
    tell(OURS)
    said = tell("table inet other { chain c { tcp dport 1 drop; }; }\ntable ip logd { chain c { }; }")
    said += tell("flush chain inet other c\ndelete table inet other\ndelete table ip logd")
    assert said
    assert whole_after(said, b"logd", whole=True)
    assert not whole_after(said, b"logd", whole=False)


@pytest.mark.parametrize(
    "said", [b"", b"\0" * 64, b"\x10\0\0\0\x02\x0a", b"\xff" * 100, b"\x18\0\0\0\x02\x0a" + b"\1" * 18]
)
def test_what_is_no_message_changes_nothing(said: bytes) -> None:
    assert whole_after(said, b"logd", whole=True)

"""What the tests of real networks share: a host that is a stranger to logd, and how to ask servers."""

import contextlib
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pools import POOLS
from pyroute2 import IPRoute

from logd.network import namespaces

T = TypeVar("T")

_BASE = str(next(POOLS)["base"]).removesuffix("0/24")
HOST_ADDRESS = f"{_BASE}1"
STRANGER_ADDRESS = f"{_BASE}2"
WAIT_S = 30.0


class Stranger:
    """A network namespace with a link to this host, whose packets arrive from outside."""

    address = STRANGER_ADDRESS

    def __init__(self, folder: Path) -> None:
        self.sandbox = folder / "stranger"
        self.link = f"xt{secrets.token_hex(5)}"
        namespaces.make(self.sandbox)
        with IPRoute() as route, self.sandbox.open("rb") as sandbox:
            route.link("add", ifname=self.link, kind="veth", peer={"ifname": "eth0", "net_ns_fd": sandbox.fileno()})
            (index,) = route.link_lookup(ifname=self.link)
            route.addr("add", index=index, address=HOST_ADDRESS, prefixlen=30)
            route.link("set", index=index, state="up")
        namespaces.inside(self.sandbox, self._set_up)

    def _set_up(self) -> None:
        with IPRoute() as route:
            (index,) = route.link_lookup(ifname="eth0")
            route.addr("add", index=index, address=STRANGER_ADDRESS, prefixlen=30)
            route.link("set", index=1, state="up")
            route.link("set", index=index, state="up")
            route.route("add", dst="default", gateway=HOST_ADDRESS)

    def do(self, work: Callable[[], T]) -> T:
        """Do something as the stranger."""
        return namespaces.inside(self.sandbox, work)

    def close(self) -> None:
        with IPRoute() as route:
            for index in route.link_lookup(ifname=self.link):
                route.link("del", index=index)
        namespaces.remove(self.sandbox)


@contextlib.contextmanager
def stranger_in(folder: Path) -> Iterator[Stranger]:
    made = Stranger(folder)
    try:
        yield made
    finally:
        made.close()


def fetch(address: str, timeout_s: float = 20.0) -> str:
    """Return what an HTTP server says. Raises OSError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/", timeout=timeout_s) as answer:
        return str(answer.read().decode())


def fetch_soon(address: str) -> str:
    """Return what an HTTP server says that may still be starting."""
    return soon(lambda: fetch(address), f"no answer of {address}")


def soon(attempt: Callable[[], T], what: str) -> T:
    """Return the first result of an attempt that raises no OSError."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return attempt()
        except OSError as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: {error}") from error
            time.sleep(0.05)


def unreachable(address: str) -> bool:
    """Tell whether nothing answers at an address for a second."""
    try:
        fetch(address, 1.0)
    except (OSError, urllib.error.URLError):
        return True
    return False

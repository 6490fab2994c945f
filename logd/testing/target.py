"""What a conformance suite is told of a driver's destination: where it is, and what it has got."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from logd.testing.proxy import Address


class Received(NamedTuple):
    """A record, as the destination has it."""

    container: str
    """The container's full id."""
    stream: int
    """`record.STDOUT` or `STDERR`."""
    line: bytes


class Target(ABC):
    """A destination that is there during a test: a real server, or a peer that parses the whole protocol.

    It may serve several tests; containers have other ids each time.
    """

    upstream: Address | None = None
    """Where it listens, for the fault proxy; None of a driver that is not networked."""

    @abstractmethod
    def log_opts(self, address: Address | None) -> dict[str, str]:
        """Return the driver's log-opts for a destination at `address`, which is the fault proxy's, if it has one.

        They must make the container's full id arrive, for example `tag={{.FullID}}`.
        """

    @abstractmethod
    async def received(self, container: str) -> list[Received]:
        """Return what has come so far of the container with that id, in the order in which it came."""

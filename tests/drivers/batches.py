"""Batches of numbered lines for tests of drivers, and sending them as delivery does."""

import asyncio
import itertools
from typing import Any

from logd.batch import Batch, ContainerInfo, Group
from logd.driver import LogDriver
from logd.record import STDOUT

NOW_NS = 1_700_000_000_123_456_789  # 2023-11-14T22:13:20Z
SEND_TIMEOUT_S = 5.0
RETRY_S = 0.02
numbers = itertools.count(1)


def container(name: str = "web", **values: Any) -> ContainerInfo:
    """Return a container with an id of its own, whose first characters tell it from others."""
    return ContainerInfo(id=f"{next(numbers):064x}"[::-1], name=name, **values)


def group(*lines: bytes, stream: int = STDOUT, time_ns: int = NOW_NS, position: int = 0, **more: Any) -> Group:
    return Group(time_ns, stream, position, position + sum(map(len, lines)) + len(lines), list(lines), **more)


def batch(*lines: bytes, who: ContainerInfo | None = None, position: int = 0) -> Batch:
    return Batch(who or container(), [group(*lines, position=position)])


def numbered(first: int, count: int, width: int = 0) -> list[bytes]:
    return [b"line %d " % number + b"x" * width for number in range(first, first + count)]


def texts(lines: list[bytes]) -> list[str]:
    return [line.decode() for line in lines]


def rest(one: Batch) -> Batch:
    """Return what of a batch is not acknowledged."""
    lines = [record.line for record in one.records()]
    done, left = lines[: one.acknowledged], lines[one.acknowledged :]
    return batch(*left, who=one.container, position=sum(map(len, done)) + len(done))


async def deliver(made: LogDriver[Any], one: Batch, timeout_s: float = SEND_TIMEOUT_S) -> int:
    """Send until it is sent, as delivery does. Return how often it was tried."""
    for tries in itertools.count(1):
        try:
            async with asyncio.timeout(timeout_s):
                await made.send(one)
            return tries
        except OSError:
            one = rest(one) if one.acknowledged else one
            await reopen(made)
    raise AssertionError


async def reopen(made: LogDriver[Any]) -> None:
    """Close a driver and open it, again and again until its destination is there."""
    while True:
        await made.close()
        try:
            await made.open()
            return
        except OSError:
            await asyncio.sleep(RETRY_S)

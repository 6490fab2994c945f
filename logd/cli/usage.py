"""What containers use, from two answers of /logd/stats: rates, percentages, and how each is written.

An answer has counters, which only grow; a rate is a difference of two divided by the time between them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from logd.cli.client import Client
from logd.units import NS, format_ram_size, format_size

RESOURCES: Final = ("cpu", "memory", "io")
UNKNOWN: Final = "--"
"""docker's word for what is not known yet."""
WELL: Final = frozenset(("", "idle", "delivering"))
"""States of a log driver in which nothing is wrong."""

Answer = Mapping[str, Any]


class Usage(NamedTuple):
    """A container. Rates are bytes a second, and None before there is a second answer with the container in it."""

    id: str
    name: str
    image: str
    state: str
    health: str
    """starting, healthy, unhealthy; "" without a health check."""
    cpu_percent: float | None
    """Of one CPU, so that it may be above 100; over the time between the answers."""
    memory: int
    """The working set, in bytes."""
    memory_limit: int
    """The machine's memory where there is no limit."""
    memory_percent: float
    """Of the limit."""
    rx_bytes: int
    tx_bytes: int
    rx_rate: float | None
    tx_rate: float | None
    read_bytes: int
    written_bytes: int
    read_rate: float | None
    write_rate: float | None
    pressure: tuple[float, float, float]
    """CPU, memory, I/O: percent of the last ten seconds in which some task waited."""
    pids: int
    log_rate: float | None
    driver_state: str
    driver_lag_s: float
    restarts: int

    @property
    def condition(self) -> str:
        """The state with what is to be known of it: `running`, `running, unhealthy`."""
        return f"{self.state}, {self.health}" if self.health else self.state

    @property
    def driver(self) -> str:
        """How the log driver that fares worst fares: its lag, after its state where something is wrong."""
        lag = f"{self.driver_lag_s:.1f}s" if self.driver_lag_s else ""
        if self.driver_state in WELL:
            return lag or "-"
        return f"{self.driver_state} {lag}".strip()


def ask(client: Client, *, every: bool = False) -> Answer:
    """Return an answer of /logd/stats; `every`: of containers that don't run too."""
    answer: Answer = client.json("GET", "/logd/stats", {"all": every})
    return answer


def compare(earlier: Answer | None, now: Answer) -> list[Usage]:
    """Return the containers of the second answer, in its order."""
    before = {one["id"]: one for one in earlier["containers"]} if earlier else {}
    return [_usage(before.get(one["id"]), one) for one in now["containers"]]


def _usage(earlier: Answer | None, now: Answer) -> Usage:
    elapsed_s = (now["time_ns"] - earlier["time_ns"]) / NS if earlier and earlier["time_ns"] else 0.0

    def rate(key: str) -> float | None:
        """Return a counter's growth a second; None where the clock went back, or there is nothing to compare."""
        known = earlier is not None and earlier[key] is not None and now[key] is not None
        return max(0, now[key] - earlier[key]) / elapsed_s if earlier and known and elapsed_s > 0 else None

    cpu = rate("cpu_ns")
    limit = now["memory_limit"]
    return Usage(
        id=now["id"],
        name=now["name"],
        image=now["image"],
        state=now["state"],
        health=now["health"],
        cpu_percent=None if cpu is None else cpu / NS * 100,
        memory=now["memory_working_set"],
        memory_limit=limit,
        memory_percent=now["memory_working_set"] / limit * 100 if limit else 0.0,
        rx_bytes=now["rx_bytes"],
        tx_bytes=now["tx_bytes"],
        rx_rate=rate("rx_bytes"),
        tx_rate=rate("tx_bytes"),
        read_bytes=now["read_bytes"],
        written_bytes=now["written_bytes"],
        read_rate=rate("read_bytes"),
        write_rate=rate("written_bytes"),
        pressure=_pressure(now["pressure"]),
        pids=now["pids"],
        log_rate=rate("log_bytes"),
        driver_state=now["driver_state"],
        driver_lag_s=now["driver_lag_s"],
        restarts=now["restarts"],
    )


def _pressure(found: Mapping[str, Any]) -> tuple[float, float, float]:
    cpu, memory, io = (float(found.get(name, {}).get("avg10", 0.0)) for name in RESOURCES)
    return cpu, memory, io


def percent(value: float | None) -> str:
    """Return `12.34%`."""
    return UNKNOWN if value is None else f"{value:.2f}%"


def pair(first: str, second: str) -> str:
    """Return two figures of a cell, as docker writes them."""
    return f"{first} / {second}"


def amount(size: int) -> str:
    """Return bytes that were moved, as docker writes them: `8.39MB`."""
    return format_size(size, 3)


def rate(bytes_per_s: float | None) -> str:
    """Return a rate without its `/s`, which the column's title says."""
    return UNKNOWN if bytes_per_s is None else amount(round(bytes_per_s))


def memory_size(size: int) -> str:
    """Return bytes of memory, as docker writes them: `1.078MiB`."""
    return format_ram_size(size)


def as_json(usages: Iterable[Usage]) -> list[dict[str, Any]]:
    """Return the containers as JSON objects, with the fields' names."""
    return [{**one._asdict(), "pressure": dict(zip(RESOURCES, one.pressure, strict=True))} for one in usages]


def chosen(usages: Sequence[Usage], text: str) -> list[Usage]:
    """Return those in whose name, image or id a text is found, in whatever case."""
    wanted = text.lower()
    return [one for one in usages if any(wanted in part.lower() for part in (one.name, one.image, one.id[:12]))]

"""Containers that print 2,000 lines a second to a destination with faults: what arrives, and whether a write waited.

python tests/forward/faults.py [DESTINATIONS [FAULTS]]: the long form, a row of the table for each pair. Both are lists
with commas; all, where there is none. The tests run some in a short form. Needs root, docker's command line, gcc, and
the servers of tests/drivers.

A row: lines printed, lost, doubled (only those of a batch without acknowledgement may be), doubled although they were
acknowledged, the container's longest write(2), and by how many bytes the account is off.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from receivers import (
    LINE_BYTES,
    LOOK_S,
    MAKERS,
    TORN,
    Fluentd,
    Impostor,
    Proxied,
    Receiver,
    Splunk,
    every_second,
    make_receiver,
    twice_and_unknown,
)

from logd.logstore.progress import read_progress
from logd.testing.faults import MUTE, REFUSE, STALL, half_answer, reset_at, slow

LOGGEN_SOURCE = Path(__file__).parents[2] / "bench" / "loggen.c"
RATE = 2000
PATIENCE_S = 150.0
QUIET_S = 5.0
"""What has not come after so long without any arrival is lost."""
AT_ONCE = 3
"""How many destinations are tried at a time in the long form."""
LONGEST_WRITE_MS = 1000.0
"""A container that waits for a destination waits for seconds; on a busy machine a write may be late by itself."""


@dataclass
class Row:
    """What became of one container's lines."""

    destination: str
    fault: str
    printed: int
    lost: int
    doubled: int
    again: int
    """Lines that came once more after they had been acknowledged."""
    in_order: bool
    longest_write_ms: float
    retries: int
    difference: int | None
    """None of a container that was removed."""
    settled_s: float
    """How long it took from the end of the fault until all was there."""


class Trial:
    """A container with its destination, and what is done to the latter."""

    def __init__(self, daemon: Any, loggen: Path, name: str, receiver: Receiver, lines: int, *flags: str) -> None:
        self.daemon = daemon
        self.name = name
        self.receiver = receiver
        self.lines = lines
        self.flags = flags
        self.id = ""
        self._loggen = loggen
        self._report = loggen.parent / f"report-{secrets.token_hex(4)}"
        self._seen: list[tuple[int, int]] = []
        """How many lines had arrived after so many had been acknowledged."""
        self._watching: asyncio.Task[None] | None = None

    async def create(self) -> None:
        """Create the container, while the destination is there: Docker's journald asks for that."""
        generate = ["/w/loggen", "gen", "-n", str(self.lines), "-r", str(RATE), "-t", "-o", f"/w/{self._report.name}"]
        where = ["-v", f"{self._loggen.parent}:/w", "--network", "none", *self.flags, *self.receiver.flags()]
        self.id = (await self.docker("create", *where, "busybox", *generate)).strip()

    async def start(self) -> None:
        """Start it, and watch what is acknowledged."""
        await self.docker("start", self.id)
        if self.receiver.acknowledges:
            self._watching = asyncio.create_task(self._watch())

    async def docker(self, *arguments: str) -> str:
        return str((await asyncio.to_thread(self.daemon.docker, *arguments)).stdout)

    async def ended(self) -> None:
        """Wait until the container has printed all."""
        await until(self.has_ended, f"{self.name}: the container does not end")

    def has_ended(self) -> bool:
        return self._report.exists()

    async def has_arrived(self, count: int = 1) -> None:
        """Wait until lines arrive."""
        while len(await asyncio.to_thread(lambda: self.receiver.arrived)) < count:
            await asyncio.sleep(LOOK_S)

    async def account(self) -> dict[str, Any]:
        """Return what the log's status says of the driver."""
        (one,) = (await asyncio.to_thread(self.daemon.get, f"/logd/containers/{self.id}/log"))["drivers"]
        return dict(one)

    async def has_failed(self) -> None:
        """Wait until the driver has an error to show."""
        while not (await self.account())["error"]:
            await asyncio.sleep(LOOK_S)

    async def _watch(self) -> None:
        folder = str(self.daemon.data_root / "containers" / self.id / "log")
        while True:
            acknowledged = sum(one.positions[0] for one in read_progress(folder).values()) // LINE_BYTES
            self._seen.append((len(self.receiver.arrived), acknowledged))
            await asyncio.sleep(LOOK_S)

    async def finish(self, fault: str) -> Row:
        """Wait until all is there, and count."""
        began = time.monotonic()
        await self.ended()
        report = json.loads(self._report.read_text())
        assert report["lines"] == self.lines
        account: dict[str, Any] = {"retries": 0, "difference": None}
        if "--rm" in self.flags:
            places = [self.daemon.data_root / name / self.id for name in ("containers", "draining")]
            await until(lambda: not any(one.exists() for one in places), f"{self.name}: it is not over")
        else:
            assert (await self.docker("wait", self.id)) == "0\n"
            while (account := await self.account())["buffered"]:
                assert time.monotonic() < began + PATIENCE_S, f"{self.name}: {account}"
                await asyncio.sleep(LOOK_S)
        arrived = await self._all()
        settled_s = time.monotonic() - began
        if self._watching:
            self._watching.cancel()
        arrived = [one for one in arrived if one != TORN]
        there = list(dict.fromkeys(arrived))
        return Row(
            destination=self.name,
            fault=fault,
            printed=self.lines,
            lost=self.lines - len(there),
            doubled=len(arrived) - len(there),
            again=self._again(arrived),
            in_order=there == sorted(there),
            longest_write_ms=report["longest_write_ns"] / 1e6,
            retries=account["retries"],
            difference=account["difference"],
            settled_s=settled_s,
        )

    async def _all(self) -> list[int]:
        """Return what has arrived, once all is there or nothing comes any more."""
        before, quiet_until = 0, time.monotonic() + QUIET_S
        while True:
            arrived = await asyncio.to_thread(lambda: list(self.receiver.arrived))
            if len(arrived) > before:
                before, quiet_until = len(arrived), time.monotonic() + QUIET_S
            if len(set(arrived)) == self.lines or time.monotonic() > quiet_until:
                return arrived
            await asyncio.sleep(LOOK_S)

    def _again(self, arrived: Sequence[int]) -> int:
        again = acknowledged = 0
        seen = iter([*self._seen, (len(arrived), 0)])
        at, following = next(seen)
        for index, number in enumerate(arrived):
            while at <= index:
                acknowledged = max(acknowledged, following)
                at, following = next(seen)
            again += number < acknowledged
        return again


async def until(holds: Callable[[], bool], words: str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, words
        await asyncio.sleep(0.02)


# -- faults ----------------------------------------------------------------------------------------------------------


def every(destination: str) -> bool:
    return True


def proxied(destination: str) -> bool:
    return destination != "journald"


def acknowledging(destination: str) -> bool:
    return destination.split(maxsplit=1)[0] in {"fluentd", "splunk"}


def with_certificates(destination: str) -> bool:
    return destination.endswith("tls")


@dataclass(frozen=True)
class Fault:
    """What happens to a destination from the start of a container to its end."""

    name: str
    act: Callable[[Trial], Awaitable[None]]
    seconds: float = 4.0
    """How long the container writes."""
    happens_to: Callable[[str], bool] = every
    breaks: bool = True
    """Whether a connection may break with lines in the server's hands: without acknowledgements those are lost."""
    kills: int = 0
    """How many processes are killed meanwhile."""
    flags: tuple[str, ...] = field(default=())


async def nothing(trial: Trial) -> None:
    await trial.start()


async def absent_at_start(trial: Trial) -> None:
    await trial.receiver.become(REFUSE)
    await trial.start()
    await trial.ended()


def away(seconds: float) -> Callable[[Trial], Awaitable[None]]:
    async def act(trial: Trial) -> None:
        await trial.start()
        await trial.has_arrived()
        await trial.receiver.become(REFUSE)
        await asyncio.sleep(seconds)

    return act


def behaves_as(fault: Any) -> Callable[[Trial], Awaitable[None]]:
    async def act(trial: Trial) -> None:
        await trial.start()
        await trial.has_arrived()
        await trial.receiver.become(fault)
        await trial.ended()

    return act


async def acknowledges_half(trial: Trial) -> None:
    if isinstance(trial.receiver, Fluentd):
        trial.receiver.answer = every_second
    else:
        assert isinstance(trial.receiver, Splunk)
        trial.receiver.collector.index_at_once = False
        trial.receiver.collector.indexes_half = True
    await trial.start()
    await trial.ended()


async def acknowledges_too_much(trial: Trial) -> None:
    if isinstance(trial.receiver, Fluentd):
        trial.receiver.answer = twice_and_unknown
    else:
        assert isinstance(trial.receiver, Splunk)
        trial.receiver.collector.says_more = True
    await trial.start()
    await trial.ended()


async def bad_certificates(trial: Trial) -> None:
    """One after the other: no byte of a line is entrusted to any of them."""
    receiver = trial.receiver
    assert isinstance(receiver, Proxied)
    assert receiver.certificates is not None
    right, is_running = receiver.proxy.upstream, False
    for certificate in receiver.certificates.bad.values():
        async with Impostor(receiver.certificates.context(certificate)) as impostor:
            receiver.proxy.upstream = ("127.0.0.1", impostor.port)
            if not is_running:
                await trial.start()
                is_running = True
            tried = receiver.proxy.accepted
            await receiver.proxy.until(lambda tried=tried: receiver.proxy.accepted > tried)
            await trial.has_failed()
            account = await trial.account()
            assert "certificate" in account["error"]
            assert account["delivered"] == account["unconfirmed"] == 0
            assert impostor.heard == b""
    receiver.proxy.upstream = right


def restarted_every(seconds: float) -> Callable[[Trial], Awaitable[None]]:
    async def act(trial: Trial) -> None:
        await trial.start()
        while not trial.has_ended():
            await asyncio.sleep(seconds)
            await trial.receiver.restart()

    return act


def removed(seconds: float) -> Callable[[Trial], Awaitable[None]]:
    async def act(trial: Trial) -> None:
        await trial.receiver.become(REFUSE)
        await trial.start()
        await trial.ended()
        await asyncio.sleep(seconds)

    return act


def faults(*, away_s: float, seconds: float, kills: int) -> dict[str, Fault]:
    """Return all of them by name. `away_s`: the longest absence; `seconds`: how long a container writes at least."""
    return {
        one.name: one
        for one in (
            Fault("none", nothing, seconds, breaks=False),
            Fault("nothing listens at start", absent_at_start, seconds, breaks=False),
            Fault("away for 5 s", away(min(5, away_s)), max(seconds, min(7, away_s))),
            Fault("away for long", away(away_s), away_s + 2),
            Fault("accepts, never reads", behaves_as(STALL), seconds),
            Fault("reads, never acknowledges", behaves_as(MUTE), seconds, acknowledging),
            Fault("acknowledges half", acknowledges_half, seconds, acknowledging),
            Fault("half of an answer", behaves_as(half_answer(1)), seconds, acknowledging),
            Fault("resets mid-batch", behaves_as(reset_at(150_000)), seconds, proxied),
            Fault("1 kB/s", behaves_as(slow(1000)), seconds, proxied),
            Fault("acknowledges too much", acknowledges_too_much, seconds, acknowledging),
            Fault("bad certificates", bad_certificates, seconds, with_certificates, breaks=False),
            Fault("restarted every 2 s", restarted_every(2), max(seconds, 5)),
            Fault("processes killed", nothing, kills * 2.0 + 1, breaks=False, kills=kills),
            Fault("--rm, away for long", removed(away_s), 1, breaks=False, flags=("--rm",)),
        )
    }


LONG = faults(away_s=60, seconds=10, kills=50)
SHORT = faults(away_s=2, seconds=2, kills=2)


async def kill_at_random(daemon: Any, times: int, trials: Sequence[Trial]) -> int:
    """Kill daemon and forwarders until it is enough or the containers have ended; return how often."""
    done = 0
    for trial in trials:
        await trial.has_arrived()
    while done < times and not all(one.has_ended() for one in trials):
        await asyncio.sleep(random.uniform(0.0, 0.8))
        if random.random() < 0.5:
            await asyncio.to_thread(daemon.kill)
            await asyncio.to_thread(daemon.start)
            done += 1
        elif pids := forwarders(daemon):
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            done += 1
    return done


def forwarders(daemon: Any) -> list[int]:
    """Return the pids of the daemon's forwarders."""
    found = []
    for pid in children(daemon.process.pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text() == "logd-forward\n":
                found.append(pid)
    return found


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


async def run(
    daemon: Any,
    loggen: Path,
    folder: Path,
    destinations: Sequence[str],
    fault: Fault,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Do it to some destinations at once, each with a container; return what became of their lines."""
    trials = []
    lines = int(fault.seconds * RATE)
    try:
        for name in destinations:
            receiver = make_receiver(name, folder / name.replace(" ", "-"))
            trials.append(Trial(daemon, loggen, name, receiver, lines, *fault.flags))
            await receiver.start()
        for trial in trials:
            await trial.create()
        async with asyncio.timeout(fault.seconds + 2 * PATIENCE_S):
            await asyncio.gather(*(fault.act(one) for one in trials))
            if fault.kills:
                killed = await kill_at_random(daemon, fault.kills, trials)
                say(f"{killed} kills")
            for trial in trials:
                await trial.receiver.heal()
            return [await trial.finish(fault.name) for trial in trials]
    finally:
        for trial in trials:
            await trial.receiver.stop()
            if trial.id:
                await asyncio.to_thread(daemon.docker, "rm", "-f", trial.id, check=False)


def judge(row: Row, fault: Fault) -> None:
    """See that a row is as it has to be."""
    assert row.longest_write_ms < LONGEST_WRITE_MS, row
    assert not row.difference, row
    assert row.again == 0, row
    if acknowledging(row.destination) or not fault.breaks or row.destination == "journald":
        assert row.lost == 0, row
        assert row.in_order, row
    if not row.retries and not fault.kills:
        assert row.doubled == 0, row


def groups(fault: Fault, wanted: Sequence[str] = tuple(MAKERS)) -> list[list[str]]:
    """Return the destinations that a fault can happen to, some at a time."""
    them = [one for one in wanted if fault.happens_to(one)]
    return [them[at : at + AT_ONCE] for at in range(0, len(them), AT_ONCE)]


def build_loggen(folder: Path) -> Path:
    """Compile the generator, statically, for use inside a container that has its folder."""
    folder.chmod(0o777)
    subprocess.run(["gcc", "-O2", "-static", "-o", folder / "loggen", LOGGEN_SOURCE], check=True)
    return folder / "loggen"


def main() -> None:
    """Print the table, each row when it is known."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import ROOT, Daemon

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # a collector whose client was reset says so
    wanted = sys.argv[1].split(",") if len(sys.argv) > 1 else list(MAKERS)
    only = sys.argv[2].split(",") if len(sys.argv) > 2 else list(LONG)
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        loggen = build_loggen(Path(scratch))
        daemon = Daemon(Path(tempfile.mkdtemp(prefix="ld-", dir="/tmp")))
        try:
            daemon.start()
            image = subprocess.run(
                [sys.executable, ROOT / "scripts" / "busybox_rootfs.py"], check=True, capture_output=True
            ).stdout
            daemon.docker("import", "-", "busybox:latest", stdin=image, text=False)
            print(
                "destination  fault  printed  lost  doubled  again  order  longest write ms  retries  off by  settled s"
            )
            for fault in (LONG[one] for one in only):
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    for number, group in enumerate(groups(fault, wanted)):
                        try:
                            rows = asyncio.run(run(daemon, loggen, Path(folder) / str(number), group, fault))
                        except Exception as error:
                            print(f"{', '.join(group)} | {fault.name} | FAILED: {type(error).__name__} {error}")
                            continue
                        for row in rows:
                            show(row, fault)
        finally:
            daemon.close()


def show(row: Row, fault: Fault) -> None:
    try:
        judge(row, fault)
        verdict = ""
    except AssertionError:
        verdict = " | NOT AS IT HAS TO BE"
    order = "in order" if row.in_order else "mixed"
    print(
        f"{row.destination} | {row.fault} | {row.printed} | {row.lost} | {row.doubled} | {row.again} | {order} | "
        f"{row.longest_write_ms:.1f} | {row.retries} | {row.difference} | {row.settled_s:.1f}{verdict}",
        flush=True,
    )


if __name__ == "__main__":
    main()

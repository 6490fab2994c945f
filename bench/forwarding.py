"""Compare how logd and dockerd deliver lines: json-file, fluentd, syslog over TCP, journald. Needs root.

    python bench/forwarding.py [--quick] [--only WORKLOAD,…] [--work DIR] [--rounds N]

From `docker start` until the last line is at the destination, the same one for both: a file, a receiver in C, a
systemd-journald of our own. All runs in a mount namespace of its own, so that a journald of the host gets nothing. The
result goes to standard output as tables, and to DIR as JSON.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import workloads
from command_line import chosen, parser, run_all
from destinations import QUEUE_LENGTHS, Receiver, build_receiver, journald, receiver
from engines import IMAGE, Dockerd, Engine, Logd, build_image, run, versions
from processes import Meter
from results import Case, Measures, Results
from workloads import shared_folder, until

WORKLOADS = ("json_file", "fluentd", "syslog", "journald", "latency")
LINE_BYTES = 100
ARRIVAL_S = 300.0
INSIDE = "--inside"

Arrived = Callable[[], bool]
Options = Mapping[str, str]
"""Log-opts."""


@contextmanager
def created(engine: Engine, driver: str, options: Options, folder: Path, *generate: str) -> Iterator[str]:
    """A container that writes lines once it is started, and then stays until it is removed; its name."""
    name = engine.fresh_name()
    opts = [part for option, value in options.items() for part in ("--log-opt", f"{option}={value}")]
    where = ["--network", "none", "--name", name, "-v", f"{folder}:/w", "--log-driver", driver]
    run(engine.cli("create", *where, *opts, IMAGE, "/loggen", "gen", *generate, "-k", "/w/end"))
    try:
        yield name
    finally:
        (folder / "end").touch()
        engine.remove(name)


def measure(engine: Engine, name: str, lines: int, arrived: Arrived) -> Measures:
    """Start the container and wait until all has arrived."""
    daemons = Meter(engine.daemons() + engine.helpers())
    forwarders = Meter(engine.forwarders())
    began = time.monotonic()
    run(engine.cli("start", name))
    daemons.add(engine.helpers())

    def all_arrived() -> bool:
        daemons.tick()
        forwarders.tick()
        return arrived()

    until(all_arrived, ARRIVAL_S)
    took = time.monotonic() - began
    gigabytes = lines * LINE_BYTES / 1e9
    found = {"lines/s": lines / took, "CPU s/GB": (daemons.used() + forwarders.used()) / gigabytes}
    return found | ({"forwarder CPU s/GB": forwarders.used() / gigabytes} if forwarders.last else {})


class Bench:
    """The engines of this run, and its sizes."""

    def __init__(self, work: Path, *, quick: bool, rounds: int | None) -> None:
        self.work, self.quick = work, quick
        self.rounds = rounds or (2 if quick else 5)
        image = build_image(work)
        self.loggen = work / "loggen"
        self.receiver = build_receiver(work)
        self.engines: list[Engine] = []
        for kind in (Logd, Dockerd):
            try:
                self.engines.append(kind(work / f"{kind.name}-{time.time_ns()}", image))
            except FileNotFoundError as missing:
                print(f"MISSING: {missing}; its figures are left out", flush=True)
        self.results = Results(work / "forwarding.json", versions(self.engines))
        print(f"engines: {self.results.kept['header']}")
        for engine in self.engines:  # what a daemon does once, such as starting a forwarder, is not measured
            self.to_json_file(engine, 1000, "4096")

    def compare(
        self, title: str, deliver: Callable[[Engine], Measures], goal: float, rounds: int | None = None
    ) -> None:
        cases: list[Case] = [(engine.name, partial(deliver, engine)) for engine in self.engines]
        self.results.interleave(title, cases, rounds or self.rounds, {"lines/s": [("logd", "dockerd", goal)]})

    # -- json-file -------------------------------------------------------------------------------------------------

    def json_file(self) -> None:
        lines = 1_000_000 if self.quick else 4_000_000
        for title, buffer in (("4 KiB writes", "4096"), ("one write a line", "0")):
            deliver = partial(self.to_json_file, lines=lines, buffer=buffer)
            self.compare(f"json-file, {lines} lines of 100 bytes, {title}", deliver, 3.0)

    def to_json_file(self, engine: Engine, lines: int, buffer: str) -> Measures:
        with (
            shared_folder(self.work) as folder,
            created(engine, "json-file", {}, folder, "-n", str(lines), "-b", buffer) as name,
        ):
            files: list[Path] = []

            def arrived() -> bool:
                if not files:
                    files.append(Path(run(engine.cli("inspect", "-f", "{{.LogPath}}", name))))
                return workloads.last_number(files) == lines - 1

            found = measure(engine, name, lines, arrived)
            if (there := int(run(["wc", "-l", str(files[0])]).split()[0])) != lines:
                raise RuntimeError(f"{files[0]} has {there} lines, not {lines}")
            return found

    # -- sockets ---------------------------------------------------------------------------------------------------

    def fluentd(self) -> None:
        lines = 300_000 if self.quick else 1_000_000
        deliver = partial(self.to_receiver, kind="forward", driver="fluentd", lines=lines)
        self.compare(f"fluentd, {lines} lines of 100 bytes, logd's acknowledged", deliver, 5.0)

    def syslog(self) -> None:
        lines = 300_000 if self.quick else 1_000_000
        deliver = partial(self.to_receiver, kind="lines", driver="syslog", lines=lines)
        self.compare(f"syslog over TCP, {lines} lines of 100 bytes", deliver, 5.0)

    def to_receiver(self, engine: Engine, kind: str, driver: str, lines: int) -> Measures:
        with (
            self.destination(kind) as there,
            shared_folder(self.work) as folder,
            created(engine, driver, options(engine, driver, there), folder, "-n", str(lines)) as name,
        ):
            found = measure(engine, name, lines, lambda: there.seen().records >= lines)
            there.check(lines)
            return found

    def destination(self, kind: str, text: int | None = None) -> AbstractContextManager[Receiver]:
        return receiver(self.receiver, kind, self.work, text)

    # -- journald --------------------------------------------------------------------------------------------------

    def journald(self) -> None:
        lines = 100_000 if self.quick else 300_000
        for queue, length in QUEUE_LENGTHS.items():
            deliver = partial(self.to_journald, lines=lines, queue_length=length)
            self.compare(f"journald, {lines} lines of 100 bytes, {queue} of {length}", deliver, 1.5)

    def to_journald(self, engine: Engine, lines: int, queue_length: int) -> Measures:
        with (
            journald(queue_length) as journal,
            shared_folder(self.work) as folder,
            created(engine, "journald", {}, folder, "-n", str(lines)) as name,
        ):
            before = journal.entries()
            of_journald = Meter([journal.process.pid])
            found = measure(engine, name, lines, lambda: journal.entries() >= before + lines)
            spent = of_journald.used() / (lines * LINE_BYTES / 1e9)
            texts = journal.texts(name)
            checked = subprocess.run(
                [str(self.loggen), "check", "-n", str(lines)], stdin=texts.stdout, capture_output=True, check=False
            )
            texts.wait()
            if checked.returncode:
                raise RuntimeError(f"the journal has not each line once: {checked.stdout.decode()}")
            return found | {"journald CPU s/GB": spent}

    # -- latency ---------------------------------------------------------------------------------------------------

    def latency(self) -> None:
        """Age of a line at its arrival; the first half second is left out."""
        seconds = 3 if self.quick else 10
        cases: list[Case] = [(one.name, partial(self.ages, one, seconds)) for one in self.engines]
        goals = {"p99 ms": [("logd", "", -250.0)]}
        title = "Latency to an acknowledged fluentd at 1,000 lines/s (dockerd's without acknowledgement)"
        self.results.interleave(title, cases, min(self.rounds, 3), goals)

    def ages(self, engine: Engine, seconds: int) -> Measures:
        lines = 1000 * seconds
        clock = subprocess.Popen(
            [str(self.loggen), "lat", "-k", "500"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert clock.stdin
        with (
            self.destination("forward", clock.stdin.fileno()) as there,
            shared_folder(self.work) as folder,
            created(
                engine, "fluentd", options(engine, "fluentd", there), folder, "-n", str(lines), "-r", "1000"
            ) as name,
        ):
            run(engine.cli("start", name))
            until(lambda: there.seen().records >= lines, seconds + 30)
            there.check(lines)
        found = json.loads(clock.communicate()[0])
        return {"p50 ms": found["p50_ns"] / 1e6, "p99 ms": found["p99_ns"] / 1e6, "max ms": found["max_ns"] / 1e6}

    def stop(self) -> None:
        for engine in self.engines:
            engine.stop()


def options(engine: Engine, driver: str, there: Receiver) -> Options:
    address = f"127.0.0.1:{there.seen().port}"
    if driver == "syslog":
        return {"syslog-address": f"tcp://{address}"}
    acknowledged = {"fluentd-request-ack": "true"} if engine.name == "logd" else {}
    return {"fluentd-address": address} | acknowledged


def main() -> None:
    command = parser(__doc__, WORKLOADS, quick="small sizes, a minute or two")
    command.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    arguments = command.parse_args()
    names = chosen(arguments.only, WORKLOADS)
    if not arguments.inside:
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv, INSIDE])
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit("stopped"))  # and the engines with it
    run_all(Bench(arguments.work, quick=arguments.quick, rounds=arguments.rounds), names)


if __name__ == "__main__":
    main()

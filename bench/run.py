"""Compare logd with dockerd, podman and a bare pipe, side by side in one run. Needs root.

    python bench/run.py [--quick] [--only WORKLOAD,…] [--work DIR] [--rounds N]

Peers that are not installed are said to be missing. The result goes to standard output as tables, and to DIR as JSON.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import workloads
from command_line import chosen, parser, run_all
from engines import Dockerd, Engine, Logd, Podman, build_image, versions
from results import Case, Measures, Results

WORKLOADS = ("memory", "capture", "many", "read", "near_end", "follow", "order", "start")
"""In this order: memory is measured of daemons that are fresh."""


class Bench:
    """The engines of this run, and its sizes."""

    def __init__(self, work: Path, *, quick: bool, rounds: int | None) -> None:
        self.work, self.quick, self.rounds = work, quick, rounds
        self.image = build_image(work)
        self.loggen = work / "loggen"
        self.engines: list[Engine] = []
        for kind in (Logd, Dockerd, Podman):
            try:
                self.engines.append(kind(work / f"{kind.name}-{time.time_ns()}", self.image))
            except FileNotFoundError as missing:
                print(f"MISSING: {missing}; its figures are left out", flush=True)
        self.results = Results(work / "results.json", versions(self.engines))
        print(f"engines: {self.results.kept['header']}")

    def times(self, full: int, quick: int) -> int:
        return self.rounds or (quick if self.quick else full)

    def cases(self, measure: Callable[[Engine, str], Measures], *, one_driver: bool = False) -> list[Case]:
        return [
            (f"{engine.name} {driver}", partial(measure, engine, driver))
            for engine in self.engines
            for driver in (engine.drivers[:1] if one_driver else engine.drivers)
        ]

    def capture(self) -> None:
        lines = 1_000_000 if self.quick else 5_000_000
        for title, options, floor in (("4 KiB writes", ["-b", "4096"], 0.9), ("one write a line", ["-b", "0"], 2.0)):
            sizes = {"containers": 1, "lines": lines, "options": options}
            cases = [("cat", lambda s=sizes: workloads.capture_by_cat(self.loggen, self.work, **s))]
            cases += self.cases(lambda e, d, s=sizes: workloads.capture(e, d, self.work, **s))
            ours = "logd local"
            goals = {
                "MB/s": [(ours, "cat", floor), (ours, "dockerd json-file", 8.0), (ours, "dockerd local", 5.0),
                         (ours, "podman k8s-file", 1.5), ("logd local-defaults", "cat", floor)],
                "CPU s/GB": [(ours, "", -0.6)],
            }  # fmt: skip
            self.results.interleave(f"Capture of {lines} lines of 100 bytes, {title}", cases, self.times(5, 2), goals)

    def many(self) -> None:
        sizes = {"containers": 20, "lines": 10_000 if self.quick else 50_000, "options": ["-s", "200", "-b", "0"]}
        cases = [("cat", lambda: workloads.capture_by_cat(self.loggen, self.work, **sizes))]
        cases += self.cases(lambda e, d: workloads.capture(e, d, self.work, **sizes))
        goals = {"MB/s": [("logd local", "cat", 0.7)]}
        self.results.interleave("20 containers at once, one write a line", cases, self.times(5, 2), goals)

    def read(self) -> None:
        lines = 200_000 if self.quick else 1_000_000
        with ExitStack() as stack:
            cases: list[Case] = []
            for engine in self.engines:
                name, last_ns = stack.enter_context(workloads.written(engine, engine.drivers[0], self.work, lines))
                measure = partial(workloads.read, engine, name, self.loggen, lines, last_ns)
                cases.append((f"{engine.name} {engine.drivers[0]}", measure))
            goals = {"MB/s": [("logd local", "dockerd json-file", 20.0)]}
            self.results.interleave(f"Reading a log of {lines} lines", cases, self.times(5, 2), goals)

    def near_end(self) -> None:
        """`--since` near the end of a large log, logd alone: the others read everything before it."""
        lines = 2_000_000 if self.quick else 20_000_000
        engine = self.engines[0]
        with workloads.written(engine, engine.drivers[0], self.work, lines) as (name, last_ns):
            cases: list[Case] = [("logd local", partial(workloads.read_end, engine, name, last_ns))]
            goals = {"since over floor ms": [("logd local", "", -30.0)]}
            self.results.interleave(f"--since near the end of {lines / 1e7:.1f} GB", cases, self.times(5, 2), goals)

    def follow(self) -> None:
        seconds = 3 if self.quick else 6
        cases = self.cases(lambda e, d: workloads.latency(e, d, self.loggen, self.work, seconds), one_driver=True)
        goals = {"p50 ms": [("logd local", "", -0.12)], "p99 ms": [("logd local", "", -0.4)]}
        self.results.interleave("Latency of `logs -f` at 1,000 lines/s", cases, self.times(5, 2), goals)

    def order(self) -> None:
        cases = self.cases(lambda e, d: workloads.order(e, d, self.loggen), one_driver=True)
        goals = {"out of order %": [("logd local", "", -1.0)]}
        self.results.interleave(
            "Order of stdout against stderr, 5,000 alternating lines/s", cases, self.times(5, 2), goals
        )

    def start(self) -> None:
        cases = self.cases(workloads.start, one_driver=True)
        goals = {"ms": [("logd local", "dockerd json-file", -0.4)]}
        self.results.interleave("`run --rm` of a program that does nothing", cases, self.times(20, 5), goals)

    def memory(self) -> None:
        count = 10 if self.quick else 50
        cases = self.cases(lambda e, d: workloads.memory(e, d, count), one_driver=True)
        goals = {"MiB a container": [("logd local", "", -0.6)], "idle daemon MiB": [("logd local", "", -50.0)]}
        self.results.interleave(f"Memory with {count} idle containers", cases, 1, goals)

    def stop(self) -> None:
        for engine in self.engines:
            engine.stop()


def main() -> None:
    arguments = parser(__doc__, WORKLOADS, quick="small sizes, a few minutes").parse_args()
    names = chosen(arguments.only, WORKLOADS)
    run_all(Bench(arguments.work, quick=arguments.quick, rounds=arguments.rounds), names)


if __name__ == "__main__":
    main()

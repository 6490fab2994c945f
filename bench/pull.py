"""Compare how logd and dockerd pull from a registry on loopback. Needs root and Debian's docker-registry.

    python bench/pull.py [--quick] [--only WORKLOAD,…] [--work DIR] [--rounds N]

files        500 MB of this machine's files in 6 layers: wall time, CPU time, memory
small_files  a layer of 100,000 small files: the same
follower     how old a line is when `logs -f` gives it out, with a pull of `files` going on, and without
tree         the tree of `small_files`: both have the same files, modes, owners, times, links, contents, attributes

The engines take turns. CPU time is that of the daemon and of all its children that have ended. The registry's images
are made once in DIR; the result goes to standard output as tables, and to DIR as JSON.
"""

import hashlib
import json
import os
import stat
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self

from command_line import chosen, parser, run_all
from engines import Dockerd, DockerLike, Engine, Logd, build_image, run, versions
from processes import children, pss_mib, rss_mib
from registry import Registry, host_image, small_files_image
from results import Case, Measures, Results
from workloads import shared_folder

WORKLOADS = ("files", "small_files", "follower", "tree")
HOST, SMALL = "host", "small"
PULL_S = 600
SAMPLE_S = 0.05
LINES_A_SECOND = 200
QUIET_S = 5
GROWTH_MIB = 30.0
TICKS = os.sysconf("SC_CLK_TCK")


class Memory(threading.Thread):
    """How far a process grows while the block lasts, and how large all below it are together, in MiB.

    The process by RSS: pages that it shares with helpers would make its PSS fall. They by PSS.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self.before = self.peak = rss_mib(pid)
        self._others = set(_below(pid))
        self.helpers = 0.0

    def run(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self.peak = max(self.peak, rss_mib(self._pid))
            self.helpers = max(self.helpers, sum(map(pss_mib, set(_below(self._pid)) - self._others)))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def _below(pid: int) -> list[int]:
    try:
        found = children(pid)
    except OSError:
        return []
    return found + [deeper for child in found for deeper in _below(child)]


def cpu_with_children(pid: int) -> float:
    """CPU time of a process and of its children that have ended and were waited for, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def daemon_of(engine: Engine) -> int:
    assert isinstance(engine, DockerLike)
    assert engine.process
    return engine.process.pid


class Images:
    """Gives each engine an image that it does not have; in the same round all get the same."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._given: Counter[tuple[str, str]] = Counter()

    def next(self, engine: Engine, name: str) -> str:
        number = self._given[engine.name, name]
        self._given[engine.name, name] += 1
        return self._registry.variant(name, number)


def pull(engine: Engine, images: Images, name: str) -> Measures:
    """Pull an image that is not there."""
    image = images.next(engine, name)
    pid = daemon_of(engine)
    os.sync()
    with Memory(pid) as memory:
        used, began = cpu_with_children(pid), time.monotonic()
        run(engine.cli("pull", "-q", image), timeout=PULL_S)
        took = time.monotonic() - began
        used = cpu_with_children(pid) - used
    return {"s": took, "CPU s": used, "daemon grows MiB": memory.peak - memory.before, "helpers MiB": memory.helpers}


@contextmanager
def followed(engine: Engine, loggen: Path, work: Path) -> Iterator[Measures]:
    """A container that prints lines and a follower of it, for the length of the block; then how old the lines were."""
    found: Measures = {}
    with shared_folder(work) as folder:
        name = engine.fresh_name()
        argv = ["/loggen", "gen", "-n", "10000000", "-r", str(LINES_A_SECOND), "-b", "0", "-g", "/w/go"]
        run(engine.run_argv(engine.drivers[0], argv, "-d", "--name", name, "-v", f"{folder}:/w"))
        try:
            follower = subprocess.Popen(
                engine.cli("logs", "-f", name), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            clock = subprocess.Popen([str(loggen), "lat", "-k", "100"], stdin=follower.stdout, stdout=subprocess.PIPE)
            assert follower.stdout
            follower.stdout.close()
            time.sleep(0.7)
            (folder / "go").touch()
            time.sleep(1)
            yield found
        finally:
            engine.remove(name)
        ages = json.loads(clock.communicate(timeout=60)[0])
        follower.wait(10)
    found |= {f"{one} ms": ages[f"{one}_ns"] / 1e6 for one in ("p50", "p99", "max")}


def follower_with_pull(engine: Engine, loggen: Path, work: Path, images: Images) -> Measures:
    image = images.next(engine, HOST)
    os.sync()
    with followed(engine, loggen, work) as found:
        run(engine.cli("pull", "-q", image), timeout=PULL_S)
    return found


def follower_without(engine: Engine, loggen: Path, work: Path) -> Measures:
    with followed(engine, loggen, work) as found:
        time.sleep(QUIET_S)
    return found


def tree_of(engine: Engine, images: Images) -> dict[str, str]:
    """Pull the image of small files and return the tree of its layer: name → all there is to say of it."""
    image = images.next(engine, SMALL)
    run(engine.cli("pull", "-q", image), timeout=PULL_S)
    data = json.loads(run(engine.cli("image", "inspect", image)))[0]
    root = os.fsencode(data["GraphDriver"]["Data"]["UpperDir"])
    found = {}
    for folder, folders, files in os.walk(root):
        for path in [os.path.join(folder, name) for name in (*folders, *files)]:
            found[os.fsdecode(os.path.relpath(path, root))] = _described(path)
    return found


def _described(path: bytes) -> str:
    info = os.lstat(path)
    size = info.st_size if not stat.S_ISDIR(info.st_mode) else "-"
    names = sorted(os.listxattr(path, follow_symlinks=False))
    attributes = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
    content = ""
    if stat.S_ISREG(info.st_mode):
        content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
    elif stat.S_ISLNK(info.st_mode):
        content = repr(os.readlink(path))
    links = info.st_nlink if not stat.S_ISDIR(info.st_mode) else "-"
    return f"{info.st_mode:o} {info.st_uid}:{info.st_gid} {size} {info.st_mtime_ns} {links} {content} {attributes}"


class Bench:
    """The engines of this run, and its registry."""

    def __init__(self, work: Path, *, quick: bool, rounds: int | None) -> None:
        self.work = work
        self.rounds = rounds or (2 if quick else 5)
        image = build_image(work)
        self.loggen = work / "loggen"
        self.registry = Registry(work)
        self.images = Images(self.registry)
        self.engines: list[Engine] = []
        try:
            self.registry.image(HOST, host_image())
            self.registry.image(SMALL, small_files_image())
            for kind in (Logd, Dockerd):
                try:
                    self.engines.append(kind(work / f"{kind.name}-{time.time_ns()}", image))
                except FileNotFoundError as missing:
                    print(f"MISSING: {missing}; its figures are left out", flush=True)
        except BaseException:
            self.stop()
            raise
        self.results = Results(work / "pull.json", versions(self.engines))
        print(f"engines: {self.results.kept['header']}")

    def _compare(self, title: str, name: str) -> None:
        cases: list[Case] = [(engine.name, partial(pull, engine, self.images, name)) for engine in self.engines]
        goals = {
            "s": [("logd", "dockerd", -1.0)],
            "CPU s": [("logd", "dockerd", -1.0)],
            "daemon grows MiB": [("logd", "", -GROWTH_MIB)],
        }
        self.results.interleave(title, cases, self.rounds, goals)

    def files(self) -> None:
        self._compare("Pull of 500 MB in 6 layers", HOST)

    def small_files(self) -> None:
        self._compare("Pull of a layer of 100,000 small files", SMALL)

    def follower(self) -> None:
        cases: list[Case] = []
        for engine in self.engines:
            without = partial(follower_without, engine, self.loggen, self.work)
            during = partial(follower_with_pull, engine, self.loggen, self.work, self.images)
            cases += [(f"{engine.name} at rest", without), (f"{engine.name} pulling", during)]
        goals = {"p99 ms": [("logd pulling", "logd at rest", -2.0), ("logd pulling", "dockerd pulling", -1.0)]}
        self.results.interleave("Latency of `logs -f` at 200 lines/s beside a pull", cases, self.rounds, goals)

    def tree(self) -> None:
        trees = [tree_of(engine, self.images) for engine in self.engines]
        print(f"\n## The tree of {len(trees[0])} files\n")
        for engine, tree in zip(self.engines[1:], trees[1:], strict=True):
            differ = sorted(name for name in trees[0].keys() | tree.keys() if trees[0].get(name) != tree.get(name))
            print(f"- logd against {engine.name}: {len(differ)} differ{'' if differ else ': the same tree'}")
            for name in differ[:10]:
                print(f"  {name}:\n    logd    {trees[0].get(name)}\n    {engine.name} {tree.get(name)}")

    def stop(self) -> None:
        for engine in self.engines:
            engine.stop()
        self.registry.stop()


def main() -> None:
    arguments = parser(__doc__, WORKLOADS, quick="fewer rounds").parse_args()
    names = chosen(arguments.only, WORKLOADS)
    run_all(Bench(arguments.work, quick=arguments.quick, rounds=arguments.rounds), names)


if __name__ == "__main__":
    main()

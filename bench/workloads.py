"""What is measured. Starting and ending containers is outside the time measured, unless starting is the measure."""

import json
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engines import DockerLike, Engine, run
from processes import Meter, cpu_seconds, pss_mib

MARK = re.compile(rb"S(\d{10}) \d{19} ")


@contextmanager
def shared_folder(work: Path) -> Iterator[Path]:
    """A folder that containers see as /w."""
    folder = work / f"shared-{time.monotonic_ns()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def until(reached: Callable[[], bool], timeout: float, step: float = 0.002) -> None:
    end = time.monotonic() + timeout
    while not reached():
        if time.monotonic() > end:
            raise TimeoutError(f"not reached within {timeout} s")
        time.sleep(step)


def last_number(files: list[Path]) -> int:
    """The number of the last whole line in an engine's files, -1 for none."""
    for path in reversed(files):
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 4096))
                found = MARK.findall(file.read())
        except FileNotFoundError:
            continue
        if found:
            return int(found[-1])
    return -1


# -- capture ---------------------------------------------------------------------------------------------------------


def capture(
    engine: Engine, driver: str, work: Path, *, containers: int, lines: int, options: list[str]
) -> dict[str, float]:
    """From the first line written until the last line of the last container is in the engine's file."""
    with shared_folder(work) as folder:
        names = [engine.fresh_name() for _ in range(containers)]
        try:
            for name in names:
                argv = ["/loggen", "gen", "-n", str(lines), *options, "-g", "/w/go", "-k", "/w/end", "-o", f"/w/{name}"]
                run(engine.run_argv(driver, argv, "-d", "--name", name, "-v", f"{folder}:/w"))
            meter = Meter(engine.daemons() + engine.helpers())
            where = {name: engine.log_files(name, driver) for name in names}
            rotates = driver.endswith("defaults")
            (folder / "go").touch()
            pending = set(names)
            stored_at: dict[str, float] = {}

            def all_stored() -> bool:
                meter.tick()
                for name in list(pending):
                    if not (folder / name).exists():
                        continue
                    files = engine.log_files(name, driver) if rotates else where[name] or engine.log_files(name, driver)
                    if last_number(files) == lines - 1:
                        pending.discard(name)
                        stored_at[name] = time.time()
                return not pending

            until(all_stored, 300)
            used = meter.used()
            reports = [json.loads((folder / name).read_text()) for name in names]
            first = min(report["first_ns"] for report in reports) / 1e9
            seconds = max(stored_at.values()) - first
            size = size_of(options) * lines * containers
            return {"MB/s": size / 1e6 / seconds, "CPU s/GB": used / (size / 1e9)}
        finally:
            (folder / "go").touch()
            (folder / "end").touch()
            engine.remove(*names)


def size_of(options: list[str]) -> int:
    return int(options[options.index("-s") + 1]) if "-s" in options else 100


def capture_by_cat(loggen: Path, work: Path, *, containers: int, lines: int, options: list[str]) -> dict[str, float]:
    """`loggen gen | cat > file`: the floor, no engine at all."""
    with shared_folder(work) as folder:
        pairs = []
        for number in range(containers):
            argv = [str(loggen), "gen", "-n", str(lines), *options, "-g", f"{folder}/go", "-o", f"{folder}/{number}"]
            generator = subprocess.Popen(argv, stdout=subprocess.PIPE)
            with (folder / f"{number}.log").open("wb") as target:
                pairs.append((generator, subprocess.Popen(["cat"], stdin=generator.stdout, stdout=target)))
            assert generator.stdout
            generator.stdout.close()
        time.sleep(0.3)
        meter = Meter([cat.pid for _, cat in pairs])
        (folder / "go").touch()
        for generator, cat in pairs:
            while cat.poll() is None:
                meter.tick()
                time.sleep(0.001)
            generator.wait()
        end = time.time()
        first = min(json.loads((folder / str(number)).read_text())["first_ns"] for number in range(containers)) / 1e9
        size = size_of(options) * lines * containers
        return {"MB/s": size / 1e6 / (end - first), "CPU s/GB": meter.used() / (size / 1e9)}


# -- reading ---------------------------------------------------------------------------------------------------------


@contextmanager
def written(engine: Engine, driver: str, work: Path, lines: int) -> Iterator[tuple[str, int]]:
    """A container that has written its lines and ended; its name, and the time of its last line in ns."""
    with shared_folder(work) as folder:
        name = engine.fresh_name()
        argv = ["/loggen", "gen", "-n", str(lines), "-o", "/w/report"]
        run(engine.run_argv(driver, argv, "-d", "--name", name, "-v", f"{folder}:/w"))
        try:
            run(engine.cli("wait", name), timeout=600)
            yield name, json.loads((folder / "report").read_text())["last_ns"]
        finally:
            engine.remove(name)


def read_all(engine: Engine, name: str, loggen: Path, lines: int) -> dict[str, float]:
    """`logs` of the whole log into a program that checks every line."""
    before = sum(map(cpu_seconds, engine.daemons()))
    began = time.monotonic()
    reader = subprocess.Popen(engine.cli("logs", name), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    checked = subprocess.run(
        [str(loggen), "check", "-n", str(lines)], stdin=reader.stdout, capture_output=True, check=False
    )
    reader.wait()
    took = time.monotonic() - began
    used = sum(map(cpu_seconds, engine.daemons())) - before
    wrong = sum(value for key, value in json.loads(checked.stdout).items() if key != "lines")
    return {"MB/s": lines * 100 / 1e6 / took, "CPU s/GB": used / (lines * 100 / 1e9), "wrong lines": wrong}


def read(engine: Engine, name: str, loggen: Path, lines: int, last_ns: int) -> dict[str, float]:
    return {**read_all(engine, name, loggen, lines), **read_end(engine, name, last_ns)}


def read_end(engine: Engine, name: str, last_ns: int) -> dict[str, float]:
    """`--tail 100`, `--since` the last 2 ms, and a bare `inspect`, which is the CLI's floor."""
    mid = last_ns - 2_000_000
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(mid // 10**9)) + f".{mid % 10**9:09d}Z"

    def timed(*arguments: str) -> float:
        taken = []
        for _ in range(5):
            began = time.monotonic()
            run(engine.cli(*arguments))
            taken.append((time.monotonic() - began) * 1e3)
        return statistics.median(taken)

    floor = timed("inspect", "-f", "{{.Id}}", name)
    tail, near_end = timed("logs", "--tail", "100", name), timed("logs", "--since", since, name)
    return {"inspect ms": floor, "tail ms": tail, "since ms": near_end, "since over floor ms": near_end - floor}


# -- following -------------------------------------------------------------------------------------------------------


def latency(engine: Engine, driver: str, loggen: Path, work: Path, seconds: int) -> dict[str, float]:
    """Age of a line when `logs -f` has given it out, at 1,000 lines/s; the first half second is left out."""
    with shared_folder(work) as folder:
        name = engine.fresh_name()
        argv = ["/loggen", "gen", "-n", str(1000 * seconds), "-r", "1000", "-g", "/w/go"]
        run(engine.run_argv(driver, argv, "-d", "--name", name, "-v", f"{folder}:/w"))
        try:
            follower = subprocess.Popen(
                engine.cli("logs", "-f", name), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            clock = subprocess.Popen([str(loggen), "lat", "-k", "500"], stdin=follower.stdout, stdout=subprocess.PIPE)
            assert follower.stdout
            follower.stdout.close()
            time.sleep(0.7)
            (folder / "go").touch()
            found = json.loads(clock.communicate(timeout=seconds + 30)[0])
            follower.wait(10)
            return {"p50 ms": found["p50_ns"] / 1e6, "p99 ms": found["p99_ns"] / 1e6, "max ms": found["max_ns"] / 1e6,
                    "lines seen": found["lines"]}  # fmt: skip
        finally:
            engine.remove(name)


def order(engine: Engine, driver: str, loggen: Path) -> dict[str, float]:
    """Lines that alternate between stdout and stderr, 5,000 a second in bursts of 50: how many come out of order."""
    name, lines = engine.fresh_name(), 10_000
    run(engine.run_argv(driver, ["/loggen", "gen", "-n", str(lines), "-e", "-r", "5000"], "-d", "--name", name))
    try:
        run(engine.cli("wait", name))
        reader = subprocess.Popen(engine.cli("logs", name), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        checked = subprocess.run(
            [str(loggen), "check", "-n", str(lines)], stdin=reader.stdout, capture_output=True, check=False
        )
        reader.wait()
        found = json.loads(checked.stdout)
        return {"out of order %": 100 * found["disorder"] / lines, "missing": found["missing"]}
    finally:
        engine.remove(name)


# -- starting, memory ------------------------------------------------------------------------------------------------


def start(engine: Engine, driver: str) -> dict[str, float]:
    """`run --rm` of a program that does nothing."""
    began = time.monotonic()
    run(engine.run_argv(driver, ["/bin/true"], "--rm"))
    return {"ms": (time.monotonic() - began) * 1e3}


def memory(engine: Engine, driver: str, containers: int) -> dict[str, float]:
    """What idle containers cost: their helpers and the daemon's growth, PSS in MiB."""
    names = [engine.fresh_name() for _ in range(containers)]
    time.sleep(2)
    idle = sum(map(pss_mib, engine.daemons()))
    before = set(engine.helpers())
    try:
        for name in names:
            run(engine.run_argv(driver, ["sleep", "3600"], "-d", "--name", name))
        time.sleep(2)
        helpers = set(engine.helpers()) - before
        grown = sum(map(pss_mib, engine.daemons())) - idle
        of_helpers = sum(map(pss_mib, helpers))
        found = {
            "MiB a container": (of_helpers + grown) / containers,
            "MiB a helper": of_helpers / max(1, len(helpers)),
        }
        return {**found, "idle daemon MiB": idle} if isinstance(engine, DockerLike) else found
    finally:
        engine.remove(*names)

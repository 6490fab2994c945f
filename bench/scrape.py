"""What a scrape of many running containers costs the daemon, and what it costs when nobody scrapes. Needs root.

    python bench/scrape.py [--containers N] [--scrapes N] [--idle SECONDS] [--work DIR]

CPU time is the daemon's, of all its threads, from schedstat, so that a busy machine does not change it much. With
strace installed the files that a scrape opens are counted from outside.
"""

import argparse
import http.client
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from processes import cpu_seconds, matching

from logd.runtime.oci import cgroup_path
from logd.sampling.registry import Samples

ROOT = Path(__file__).parents[1]
READY_S = 60
STARTS_AT_ONCE = 4
PING_S = 0.005
GOAL_MS, GOAL_IDLE = 50, 0.01
EMPTY: Mapping[str, str] = {}


class Daemon:
    """logd in a folder of its own, with `containers` that sleep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = str(folder / "s")
        roots = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/run"]
        argv = [sys.executable, "-m", "logd.daemon", *roots, "-H", f"unix://{self.socket}", "--metrics-addr", ""]
        with (folder / "daemon.log").open("wb") as log:
            self.process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.ids: list[str] = []
        until = time.monotonic() + READY_S
        while True:
            try:
                self.ask("GET", "/_ping")
                return
            except OSError:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise
                time.sleep(0.05)

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, method: str, path: str, body: object = None, headers: Mapping[str, str] = EMPTY) -> bytes:
        connection = http.client.HTTPConnection("d", timeout=120)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(120)
        try:
            connection.sock.connect(self.socket)
            data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
            kind = {"Content-Type": "application/json"} if body is not None and not isinstance(body, bytes) else {}
            connection.request(method, path, data, {**kind, **headers})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {content[:500]!r}")
        return content

    def fill(self, number: int) -> None:
        """Start containers."""
        program = [sys.executable, str(ROOT / "scripts" / "busybox_rootfs.py")]
        tar = subprocess.run(program, check=True, capture_output=True).stdout
        self.ask("POST", "/images/create?fromSrc=-&repo=busybox&tag=latest", tar)
        with ThreadPoolExecutor(STARTS_AT_ONCE) as pool:
            self.ids = list(pool.map(self._start, range(number)))

    def _start(self, number: int) -> str:
        spec = {"Image": "busybox", "Cmd": ["sleep", "1000000"], "HostConfig": {"NetworkMode": "none"}}
        identifier = json.loads(self.ask("POST", f"/containers/create?name=service-{number}", spec))["Id"]
        self.ask("POST", f"/containers/{identifier}/start")
        return str(identifier)

    def scrape(self, *, gzip: bool, accept: str = "") -> bytes:
        return self.ask(
            "GET", "/metrics", headers={"Accept-Encoding": "gzip" if gzip else "identity", "Accept": accept}
        )

    def close(self) -> None:
        with ThreadPoolExecutor(STARTS_AT_ONCE) as pool:
            list(pool.map(lambda one: self.ask("DELETE", f"/containers/{one}?force=1"), self.ids))
        self.process.terminate()
        self.process.wait(60)
        for pid in matching(f"{self.folder}/run"):
            subprocess.run(["kill", "-9", str(pid)], check=False)
        shutil.rmtree(self.folder)


def measure(daemon: Daemon, count: int, *, gzip: bool, accept: str = "") -> dict[str, float]:
    """Scrape `count` times: CPU and wall time of each in ms, and the size."""
    cpu_ms, wall_ms, size = [], [], 0
    for _ in range(count):
        before_s, begun_s = cpu_seconds(daemon.pid), time.perf_counter()
        size = len(daemon.scrape(gzip=gzip, accept=accept))
        wall_ms.append((time.perf_counter() - begun_s) * 1e3)
        cpu_ms.append((cpu_seconds(daemon.pid) - before_s) * 1e3)
    return {
        "cpu_ms": statistics.median(cpu_ms),
        "cpu_min_ms": min(cpu_ms),
        "cpu_max_ms": max(cpu_ms),
        "wall_ms": statistics.median(wall_ms),
        "bytes": size,
    }


def lag_ms(daemon: Daemon, count: int) -> dict[str, float]:
    """How long a /_ping takes while there are scrapes, and while there are none."""
    found = {}
    for name, scrapes in (("without", 0), ("with", count)):
        scraping = threading.Thread(target=_scrape_often, args=(daemon, scrapes))
        scraping.start()
        took_ms = []
        until = time.monotonic() + 2
        while scraping.is_alive() or (not scrapes and time.monotonic() < until):
            begun_s = time.perf_counter()
            daemon.ask("GET", "/_ping")
            took_ms.append((time.perf_counter() - begun_s) * 1e3)
            time.sleep(PING_S)
        scraping.join()
        found[f"ping_{name}_median_ms"] = statistics.median(took_ms)
        found[f"ping_{name}_max_ms"] = max(took_ms)
    return found


def _scrape_often(daemon: Daemon, count: int) -> None:
    for _ in range(count):
        daemon.scrape(gzip=True)


def files_opened(daemon: Daemon, count: int) -> float | None:
    """How many files the daemon opens for a scrape; None without strace."""
    if shutil.which("strace") is None:
        return None
    trace = daemon.folder / "trace"
    argv = ["strace", "-f", "-q", "-e", "trace=open,openat,openat2", "-o", str(trace), "-p", str(daemon.pid)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as tracing:
        time.sleep(1)  # until it is attached; it says nothing of it
        for _ in range(count):
            daemon.scrape(gzip=True)
        tracing.terminate()
    opened = re.findall(r'open\w*\([^"]*"([^"]*)', trace.read_text())
    for path in sorted(set(opened)):
        print(f"  opened: {path} ({opened.count(path)} times)")
    return len(opened) / count


def reading_ms(daemon: Daemon, count: int) -> float:
    """CPU time of the kernel's figures alone, read in this process as the daemon reads them."""
    samples = Samples()
    pids = {one: json.loads(daemon.ask("GET", f"/containers/{one}/json"))["State"]["Pid"] for one in daemon.ids}
    for one, pid in pids.items():
        samples.begin(one, cgroup_path(one), pid)
    took = []
    for _ in range(count):
        begun_s = time.thread_time()
        for one in daemon.ids:
            samples.read(one)
        took.append((time.thread_time() - begun_s) * 1e3)
    samples.close()
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, default=500)
    parser.add_argument("--scrapes", type=int, default=20)
    parser.add_argument("--idle", type=float, default=30)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--json", type=Path, help="where to keep the figures")
    options = parser.parse_args()
    daemon = Daemon(Path(tempfile.mkdtemp(prefix="ls-", dir=options.work)))
    found: dict[str, object] = {"containers": options.containers}
    try:
        begun_s = time.monotonic()
        daemon.fill(options.containers)
        print(f"{options.containers} containers after {time.monotonic() - begun_s:.0f} s")
        before_s, begun_s = cpu_seconds(daemon.pid), time.monotonic()
        time.sleep(options.idle)
        idle = (cpu_seconds(daemon.pid) - before_s) / (time.monotonic() - begun_s)
        found["idle"] = idle
        print(f"idle: {idle:.2%} of a core (goal: at most {GOAL_IDLE:.0%})")
        daemon.scrape(gzip=True)  # which renders the labels
        for name, gzip, accept in (
            ("text", False, ""),
            ("text, gzip", True, ""),
            ("OpenMetrics, gzip", True, "application/openmetrics-text"),
        ):
            one = measure(daemon, options.scrapes, gzip=gzip, accept=accept)
            found[name] = one
            print(
                f"{name}: {one['cpu_ms']:.1f} ms of CPU ({one['cpu_min_ms']:.1f} to {one['cpu_max_ms']:.1f}), "
                f"{one['wall_ms']:.1f} ms, {one['bytes'] / 1e6:.2f} MB (goal: at most {GOAL_MS} ms of CPU)"
            )
        found["reading_ms"] = reading_ms(daemon, options.scrapes)
        print(f"of it for reading cgroups: {found['reading_ms']:.1f} ms")
        found["opened"] = files_opened(daemon, 5)
        print(f"files opened for a scrape: {found['opened']} (goal: 0)")
        found["lag"] = lag_ms(daemon, options.scrapes)
        print(", ".join(f"{name} {value:.1f}" for name, value in found["lag"].items()))
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))
    finally:
        daemon.close()


if __name__ == "__main__":
    main()

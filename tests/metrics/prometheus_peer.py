"""The real Prometheus: scrapes what it is told to, and answers queries."""

import json
import math
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

READY_TIMEOUT_S = 60.0
WAIT_S = 60.0


class Answer(NamedTuple):
    """One series of an instant query's answer, without the metric's name."""

    labels: dict[str, str]
    value: float
    time_s: float


class Prometheus:
    """`prometheus` with a configuration and storage of its own, on a port of the loopback."""

    def __init__(self, folder: Path, configuration: str) -> None:
        """`configuration`: prometheus.yml's text; the paths of its rules are relative to `folder`."""
        program = shutil.which("prometheus")
        assert program, "the tests need Prometheus (Debian: prometheus)"
        self.log_file = folder / "prometheus.log"
        (folder / "prometheus.yml").write_text(configuration)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        flags = {
            "--config.file": folder / "prometheus.yml",
            "--storage.tsdb.path": folder / "storage",
            "--web.listen-address": self.address,
            "--log.level": "warn",
        }
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [program, *(f"{flag}={value}" for flag, value in flags.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMAXPROCS": "1"},
            )

    def wait_until_ready(self) -> "Prometheus":
        """Return once it serves queries."""
        self._wait(self._is_ready, "is not ready", READY_TIMEOUT_S)
        return self

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, f"Prometheus ended:\n{self.log()}"
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def query(self, expr: str, at_s: float | None = None) -> list[Answer]:
        """Return the answer to an instant query; a scalar has no labels."""
        parameters = {"query": expr} | ({} if at_s is None else {"time": str(at_s)})
        found = self.get("query", parameters)
        if found["resultType"] == "scalar":
            found["result"] = [{"metric": {}, "value": found["result"]}]
        return [_answer(one) for one in found["result"]]

    def value(self, expr: str) -> float:
        """Return the value of a query that has one series."""
        [only] = self.query(expr)
        return only.value

    def wait_for(self, expr: str, holds: Callable[[list[Answer]], bool], timeout_s: float = WAIT_S) -> list[Answer]:
        """Ask until the answer is as wanted, and return it."""
        answers: list[Answer] = []

        def asked() -> bool:
            answers[:] = self.query(expr)
            return holds(answers)

        self._wait(asked, lambda: f"{expr}: {answers}", timeout_s)
        return answers

    def get(self, what: str, parameters: dict[str, str] | None = None) -> Any:
        """Return the data of an answer of the API, below /api/v1/."""
        url = f"http://{self.address}/api/v1/{what}?{urllib.parse.urlencode(parameters or {})}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{what} {parameters}: {error.read().decode()}") from error

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def close(self) -> None:
        """End it; its folder stays."""
        self._process.kill()
        self._process.wait()

    def _wait(self, holds: Callable[[], bool], failed: str | Callable[[], str], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > deadline:
                told = failed if isinstance(failed, str) else failed()
                raise AssertionError(f"Prometheus after {timeout_s:.0f} s: {told}\n{self.log()}")
            time.sleep(0.05)


def _answer(one: Any) -> Answer:
    time_s, value = one["value"]
    labels = {name: text for name, text in one["metric"].items() if name != "__name__"}
    return Answer(labels, float(value) if value != "NaN" else math.nan, float(time_s))

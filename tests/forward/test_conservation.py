"""After a mix of drivers, kills and a full disk nothing is unaccounted for, as any scraper sees it, meanwhile too."""

import contextlib
import http.client
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from full_disk import mounted
from probing import PLUGIN, wait_until
from prometheus_client.parser import text_string_to_metric_families

PRINTER = """
i=0
while [ ! -e /w/end ]; do
  i=$((i+1)); echo "INFO line $i of this container"
  [ $((i % 3)) != 0 ] || echo "ERROR line $i" >&2
  [ $((i % 200)) != 0 ] || sleep 0.02
done
"""
"""About 10,000 lines a second, of two streams."""
DRIVERS = "json-file,s=syslog,p=probe"
TERMS = (
    "delivered_bytes_total",
    "unconfirmed_bytes_total",
    "buffered_bytes",
    "unread_gap_bytes",
    "dropped_bytes_total",
)


class Page:
    """What a scraper sees at a moment."""

    def __init__(self, daemon: Any) -> None:
        connection = http.client.HTTPConnection("localhost")
        with contextlib.closing(connection), socket.socket(socket.AF_UNIX) as connection.sock:
            connection.sock.settimeout(60)
            connection.sock.connect(str(daemon.socket))
            connection.request("GET", "/metrics")
            self.text = connection.getresponse().read().decode()
        found = text_string_to_metric_families(self.text)
        self._samples = [sample for family in found for sample in family.samples]

    def __getitem__(self, name: str) -> dict[tuple[str, str], float]:
        """Return the values of a driver's metric by container and driver, all reasons together."""
        values: dict[tuple[str, str], float] = {}
        for one in self._samples:
            if one.name == f"logd_driver_{name}":
                of = one.labels["name"], one.labels["driver"]
                values[of] = values.get(of, 0) + one.value
        return values

    def total(self, name: str, /, **labels: str) -> float:
        return sum(one.value for one in self._samples if one.name == name and labels.items() <= one.labels.items())

    def adds_up(self) -> None:
        """See that nothing is unaccounted for, by the daemon's own word and by a sum of what stands on the page."""
        assert set(self["unaccounted_bytes"].values()) <= {0.0}, self.text
        captured, terms = self["captured_bytes_total"], [self[name] for name in TERMS]
        for of in self["unaccounted_bytes"]:
            assert captured[of] == sum(term.get(of, 0) for term in terms), (of, self.text)


class Scraper:
    """Scrapes again and again, beside the test; what it sees is wrong is raised at its end."""

    def __init__(self, daemon: Any) -> None:
        self._daemon = daemon
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.scrapes = 0
        self._wrong: AssertionError | None = None

    def _run(self) -> None:
        while not self._done.wait(0.1):
            try:
                Page(self._daemon).adds_up()
                self.scrapes += 1
            except (OSError, http.client.HTTPException):
                continue  # the daemon is just away
            except AssertionError as error:
                self._wrong = error
                return

    def __enter__(self) -> "Scraper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._wrong is not None:
            raise self._wrong


class Sink:
    """A syslog server of a few lines, which takes what comes, when it is up."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._listening.close()
        self._taken: list[socket.socket] = []

    def up(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        try:
            while True:
                taken, _ = listening.accept()
                self._taken.append(taken)
                threading.Thread(target=self._take, args=(taken,), daemon=True).start()
        except OSError:
            return

    def _take(self, taken: socket.socket) -> None:
        try:
            while taken.recv(1 << 16):
                pass
        except OSError:
            return

    def down(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for one in self._taken:
            one.close()
        self._taken.clear()


@pytest.fixture
def small(make_daemon: Callable[..., Any], busybox_tar: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A daemon with busybox and the plugin, all that it keeps on a disk of 64 MB."""
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))
    daemon = make_daemon()
    with mounted(daemon.data_root, "64m"):
        daemon.start(PYTHONPATH=str(PLUGIN))
        daemon.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
        yield daemon
        daemon.docker("rm", "-f", *daemon.docker("ps", "-aq").stdout.split(), check=False)
        daemon.stop()


@pytest.mark.parametrize("rounds", [1, pytest.param(8, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_nothing_is_unaccounted_for_after_a_mix_of_drivers_kills_and_a_full_disk(
    small: Any, probe: Any, tmp_path: Path, rounds: int
) -> None:
    target, sink, rng = probe(), Sink(), random.Random(rounds)
    target.behave("refuse")
    (tmp_path / "w").mkdir()
    options = [
        "max-file=2",
        "undelivered-max-size=400k",
        f"s:syslog-address=tcp://127.0.0.1:{sink.port}",
        f"p:probe-file={target.file}",
    ]
    options = [word for one in (*options, f"p:probe-mood={target.mood_file}") for word in ("--log-opt", one)]
    run = ["run", "-d", "--network", "none", "-v", f"{tmp_path}/w:/w", "--log-driver", DRIVERS, *options]
    for name, size in (("one", "20m"), ("two", "100k")):  # of which the latter has old segments to let go
        small.docker(*run, "--log-opt", f"max-size={size}", "--name", name, "busybox", "sh", "-c", PRINTER)
    with Scraper(small) as scraper:
        for _ in range(rounds):
            faults(small, target, sink, rng)
        (tmp_path / "w" / "end").touch()
        small.docker("wait", "one", "two")
        target.behave("well")
        sink.up()
        last = wait_until(lambda: nothing_waits(Page(small)))
    sink.down()
    last.adds_up()
    assert scraper.scrapes > 0
    assert len(last["unaccounted_bytes"]) == 6
    assert last.total("logd_store_dropped_bytes_total") > 0
    assert last.total("logd_driver_dropped_bytes_total", driver="p") > 0
    for name in ("one", "two"):
        of = {"name": name}
        captured = last.total("logd_captured_bytes_total", **of)
        assert captured == last.total("logd_driver_captured_bytes_total", **of, driver="p") > 0
        assert last.total("logd_driver_delivered_bytes_total", **of, driver="json-file") > 0
        assert last.total("logd_driver_unconfirmed_bytes_total", **of, driver="s") > 0


def faults(daemon: Any, target: Any, sink: Sink, rng: random.Random) -> None:
    """Have destinations fail and come back, processes be killed, and the disk be full, in this order."""
    more(daemon, "logd_captured_bytes_total")
    kill_forwarders(daemon)
    sink.up()
    target.behave("reset")
    more(daemon, "logd_driver_unconfirmed_bytes_total")
    daemon.kill()
    daemon.start(PYTHONPATH=str(PLUGIN))
    more(daemon, "logd_captured_bytes_total")
    target.behave(rng.choice(("refuse", "hang")))
    filler = fill_up(daemon.data_root)
    more(daemon, "logd_store_dropped_bytes_total")
    kill_forwarders(daemon)
    sink.down()
    filler.unlink()
    more(daemon, "logd_stored_bytes", 1)
    target.behave("well")
    more(daemon, "logd_driver_delivered_bytes_total")
    target.behave("refuse")


def fill_up(disk: Path) -> Path:
    """Take what is free, and what others give up meanwhile, to the last block; return the file that has it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    return filler


def more(daemon: Any, name: str, least: float = 100_000) -> None:
    """Wait until a sum over all containers has grown."""
    before = Page(daemon).total(name)
    wait_until(lambda: Page(daemon).total(name) >= before + least)


def kill_forwarders(daemon: Any) -> None:
    for one in daemon.get("/logd/plugins")["forwarders"]:
        if one["pid"]:
            os.kill(one["pid"], signal.SIGKILL)


def nothing_waits(page: Page) -> Page | None:
    """Return the page if all drivers have come to the end, by an account that is whole."""
    waiting, gaps = page["buffered_bytes"], page["unread_gap_bytes"]
    is_done = len(waiting) == 6 and not any(waiting.values()) and not any(gaps.values())
    return page if is_done else None


def test_a_driver_that_holds_up_its_forwarder_is_seen_and_holds_up_no_scrape(
    forwarding: Any, run: Any, probe: Any
) -> None:
    target = probe()
    target.behave("spin")
    run("echo one; sleep 60", "--name", "spinning", "--log-driver", "probe", *target.options())
    took_s, others = [], {"name": "spinning", "driver": "probe"}

    def is_held_up() -> bool:
        began_s = time.monotonic()
        page = Page(forwarding)
        took_s.append(time.monotonic() - began_s)
        return page.total("logd_driver_state", **others, state="no answer") == 1

    wait_until(is_held_up)
    page = wait_until(lambda: (one := Page(forwarding)).total("logd_driver_lag_seconds", **others) > 0 and one)
    assert page.total("logd_driver_up", **others) == 0
    assert took_s[-1] < 5.0  # a forwarder that hangs is waited for a tenth of a second
    target.behave("well")
    page = wait_until(lambda: (one := Page(forwarding)).total("logd_driver_delivered_bytes_total") == 4 and one)
    page.adds_up()

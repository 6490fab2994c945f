"""rsyslogd's imfile ships a container's JSON file, while the forwarder that writes it is killed again and again.

imfile is a tailer that is not ours: it keeps inode and offset of what it has read, follows a file that is renamed, and
has mmjsonparse read each line. What is torn, written twice or left out in the file is torn, doubled or missing there.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from probing import wait_until

from logd.cli.client import Client

CONFIG = """
global(workDirectory="{folder}")
module(load="imfile" mode="inotify")
module(load="mmjsonparse")
input(type="imfile" file="{file}" tag="container" ruleset="ship")
template(name="text" type="list" option.jsonf="on") {{ property(outname="log" name="$!log" format="jsonf") }}
ruleset(name="ship") {{
  action(type="mmjsonparse" cookie="")
  if $parsesuccess == "OK" then {{
    action(type="omfile" file="{folder}/shipped" template="text")
  }} else {{
    action(type="omfile" file="{folder}/torn")
  }}
}}
"""
LINES = 100
AHEAD = 3000
"""Lines that may be printed and not shipped yet: half a file. Who follows a name never sees a file that is moved twice
before it was opened, so what is written at once after a kill must not fill one."""
MAX_SIZE = "500k"
STOP_S = 30.0


class Tailer:
    """rsyslogd from `start` to `stop`; one that is started again goes on where it was."""

    def __init__(self, folder: Path, file: str) -> None:
        folder.mkdir()
        self.folder = folder
        self._shipped: list[int] = []
        self._read = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.config = folder / "rsyslog.conf"
        self.config.write_text(CONFIG.format(folder=folder, file=file))

    def start(self) -> None:
        with (self.folder / "errors").open("ab") as errors:
            command = ["rsyslogd", "-n", "-C", "-f", str(self.config), "-i", str(self.folder / "pid")]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(STOP_S)
            self.process = None

    def shipped(self) -> list[int]:
        """What it has made of each line until now: the number that the container printed."""
        assert self.process is None or self.process.poll() is None, (self.folder / "errors").read_text()
        with suppress(FileNotFoundError), (self.folder / "shipped").open("rb") as file:
            file.seek(self._read)
            data = file.read()
            end = data.rfind(b"\n") + 1
            self._read += end
            self._shipped += (int(json.loads(line)["log"]) for line in data[:end].splitlines())
        return self._shipped


@pytest.fixture
def tailers() -> Iterator[list[Tailer]]:
    made: list[Tailer] = []
    yield made
    for one in made:
        one.stop()


def forwarder(daemon: Any) -> int:
    """Return the pid of the forwarder that runs the built-in drivers, 0 while there is none."""
    found = Client(daemon.host).json("GET", "/logd/plugins")["forwarders"]
    return next((one["pid"] for one in found if one["plugin"] == "logd" and one["state"] == "running"), 0)


class Printer:
    """A container that prints numbered lines as fast as they are shipped, and not much faster."""

    def __init__(self, run: Any, folder: Path, *options: str) -> None:
        os.mkfifo(folder / "numbers")
        self.container: str = run("cat /w/numbers", "-v", f"{folder}:/w", *options)
        self.count = 0
        self._pipe = (folder / "numbers").open("wb", buffering=0)

    def print(self, shipped: int) -> None:
        """Print on, where that many lines have been shipped."""
        while self.count < shipped + AHEAD:
            self._pipe.write(b"".join(b"%d\n" % (self.count + one) for one in range(1, LINES + 1)))
            self.count += LINES

    def end(self) -> None:
        self._pipe.close()


@pytest.fixture
def printers() -> Iterator[list[Printer]]:
    made: list[Printer] = []
    yield made
    for one in made:
        one.end()


@pytest.mark.soak
@pytest.mark.parametrize(("kills", "restarts"), [(6, 2), (50, 10)])
@pytest.mark.timeout(600)
def test_a_tailer_by_inode_and_offset_ships_each_line_once_whenever_the_forwarder_is_killed(
    run: Any, forwarding: Any, tmp_path: Path, printers: list[Printer], tailers: list[Tailer], kills: int, restarts: int
) -> None:
    options = ["--log-driver", "json-file", "--log-opt", f"max-size={MAX_SIZE}", "--log-opt", "max-file=4"]
    printer = Printer(run, tmp_path, *options)
    printers.append(printer)
    file = Path(forwarding.docker("inspect", "--format", "{{.LogPath}}", printer.container).stdout.strip())
    tailer = Tailer(tmp_path / "tailer", str(file))
    tailers.append(tailer)
    tailer.start()
    inodes: list[int] = []
    killed = 0

    def is_shipped(count: int) -> bool:
        """Have it print on; whether that many lines have been shipped."""
        printer.print(len(tailer.shipped()))
        if file.exists() and (inode := file.stat().st_ino) not in inodes[-1:]:
            inodes.append(inode)
        return len(tailer.shipped()) >= count

    for number in range(kills):
        more = len(tailer.shipped()) + random.randint(1, 3 * AHEAD)
        wait_until(lambda more=more: is_shipped(more))
        killed = wait_until(lambda killed=killed: (pid := forwarder(forwarding)) != killed and pid)
        os.kill(killed, signal.SIGKILL)
        if number % (kills // restarts) == 1:
            wait_until(lambda: len(tailer.shipped()) == printer.count)  # else it would not find what is moved meanwhile
            tailer.stop()
            tailer.start()
    wait_until(lambda: is_shipped(1) and len(inodes) > 2)
    printer.end()
    assert forwarding.docker("wait", printer.container).stdout == "0\n"
    wait_until(lambda: len(tailer.shipped()) >= printer.count)
    tailer.stop()  # it has shipped all that it has read by then
    assert tailer.shipped() == list(range(1, printer.count + 1))
    assert not (tailer.folder / "torn").exists(), "a line was no JSON"
    sys.stdout.write(f"{printer.count} lines, {kills} kills, {len(inodes)} files, {restarts} restarts of rsyslogd\n")
    account = json.loads(forwarding.logd("log", "driver", "ls", "--format", "json", printer.container).stdout)[0]
    assert (account["difference"], account["dropped"], account["buffered"]) == (0, {}, 0)

"""Where the engines of a comparison deliver to: a receiver in C on a socket, and a systemd-journald of our own."""

import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from engines import REPOSITORY, run
from workloads import until

JOURNALD = "/lib/systemd/systemd-journald"
JOURNALD_SETTINGS = """[Journal]
Storage=volatile
ReadKMsg=no
Audit=no
RateLimitIntervalSec=0
RuntimeMaxUse=2G
RuntimeKeepFree=1M
ForwardToSyslog=no
ForwardToWall=no
"""
TAIL_SEQNUM_AT = 160
"""In a journal file, the number of its last entry, which goes on over rotation: systemd.io/JOURNAL_FILE_FORMAT."""
QUEUE = Path("/proc/sys/net/unix/max_dgram_qlen")
QUEUE_LENGTHS = {"systemd's queue": 512, "the kernel's queue": 10}
"""How many datagrams may wait on a socket made from then on: systemd sets that when a host boots with it."""
READY_S = 20.0


def build_receiver(work: Path) -> Path:
    receiver = work / "receiver"
    run(["gcc", "-O2", "-static", "-o", str(receiver), str(REPOSITORY / "bench" / "receiver.c")])
    return receiver


class Seen(NamedTuple):
    """What a receiver has shared: see receiver.c."""

    port: int
    records: int
    sum: int
    strange: int
    bytes: int


class Receiver:
    """One process that counts what it is sent."""

    def __init__(self, program: Path, kind: str, shared: Path, text: int | None = None) -> None:
        """`text` is a descriptor that gets the records' texts."""
        self.shared = shared
        shared.write_bytes(bytes(8 * len(Seen._fields)))
        argv = [str(program), "-o", str(shared), *(["-p"] if text is not None else []), kind]
        self.process = subprocess.Popen(argv, stdout=text)
        until(lambda: bool(self.seen().port), READY_S)

    def seen(self) -> Seen:
        return Seen(*struct.unpack("5Q", self.shared.read_bytes()))

    def check(self, lines: int) -> None:
        """Raise if what came is anything but each line once."""
        seen = self.seen()
        if (seen.records, seen.sum, seen.strange) != (lines, lines * (lines - 1) // 2, 0):
            raise RuntimeError(f"{lines} lines were sent, and this came: {seen}")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.shared.unlink()


@contextmanager
def receiver(program: Path, kind: str, work: Path, text: int | None = None) -> Iterator[Receiver]:
    running = Receiver(program, kind, work / f"received-{time.monotonic_ns()}", text)
    try:
        yield running
    finally:
        running.stop()


class Journald:
    """A journald at the usual place of this mount namespace, which must not be the host's; its journal is in memory."""

    def __init__(self, queue_length: int) -> None:
        for program in (JOURNALD, "journalctl"):
            if not shutil.which(program):
                raise FileNotFoundError(f"{program} is not installed (Debian: systemd)")
        for folder in ("/run/systemd", "/run/log"):
            Path(folder).mkdir(exist_ok=True)
            run(["mount", "-t", "tmpfs", "-o", "size=3g", "tmpfs", folder])
        for folder in ("/run/systemd/journal", "/run/systemd/journald.conf.d", "/run/log/journal"):
            Path(folder).mkdir()
        Path("/run/systemd/journald.conf.d/bench.conf").write_text(JOURNALD_SETTINGS)
        self.queue_before = QUEUE.read_text()
        QUEUE.write_text(str(queue_length))
        self.process = subprocess.Popen([JOURNALD], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.counted = 0
        until(Path("/run/systemd/journal/socket").exists, READY_S)
        until(lambda: bool(self._journals()), READY_S)

    def _journals(self) -> list[Path]:
        return list(Path("/run/log/journal").glob("*/system.journal"))

    def entries(self) -> int:
        """How many entries the journal has, those that journald has let go included."""
        for journal in self._journals():  # while journald begins another file there is none of that name
            with journal.open("rb") as file:
                file.seek(TAIL_SEQNUM_AT)
                self.counted = int.from_bytes(file.read(8), "little")
        return self.counted

    def texts(self, container: str) -> subprocess.Popen[bytes]:
        """Print the texts of a container's entries on a pipe."""
        argv = ["journalctl", "-D", "/run/log/journal", "-q", "-o", "cat", "--no-pager", f"CONTAINER_NAME={container}"]
        return subprocess.Popen(argv, stdout=subprocess.PIPE)

    def stop(self) -> None:
        QUEUE.write_text(self.queue_before)
        self.process.terminate()
        self.process.wait(READY_S)
        for folder in ("/run/systemd", "/run/log"):
            run(["umount", "-l", folder])


@contextmanager
def journald(queue_length: int) -> Iterator[Journald]:
    running = Journald(queue_length)
    try:
        yield running
    finally:
        running.stop()

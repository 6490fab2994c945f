"""journald: lines as entries of systemd's journal, with the fields that Docker's driver of that name gives them.

Source: moby daemon/logger/journald (fields), systemd.journal-fields(7), https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
(datagrams).

A batch counts as sent once journald has read all of it from its socket (SIOCOUTQ), not before: what lay in the queue of
a journald that died is sent again. That journald has kept what it read is not confirmed by anything: its rate limit
drops entries without a word to the sender. The ordinals show that.

An entry is a datagram, as the protocol has it. Several in one, with an empty line between, are not in its
documentation: systemd 252 takes them, half as fast again, but by its source a later journald stops after the first one
(journald-native.c, what process_entry returns).
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from logd.batch import Batch, ContainerInfo, Group, Partial, exec_of
from logd.driver import CommonOptions, LogDriver, opt
from logd.hookspecs import hookimpl
from logd.record import STDERR, STDOUT
from logd.units import format_time_short

SOCKET: Final = "/run/systemd/journal/socket"
PRIORITIES: Final = {STDOUT: 6, STDERR: 3}
"""Informational and error: Docker's choice."""
SEND_BUFFER_BYTES: Final = 8 << 20
"""As sd_journal_sendv has it: an entry up to this size is a datagram, a larger one a file in memory."""
CHECKED_EACH: Final = 1000
"""Records after which those that journald has read are acknowledged, so that a slow one is not sent them again."""
SHORTEST_PAUSE_S: Final = 0.0001
LONGEST_PAUSE_S: Final = 0.05
PAUSE_GROWTH: Final = 1.25
"""How long a queue that is full, or not read yet, is left alone. A sender that the kernel wakes would be woken for each
entry, at the cost of journald, which is what limits how much gets through."""
THREADS: Final = 4
SO_SNDBUFFORCE: Final = 32
"""asm-generic/socket.h."""
SIOCOUTQ: Final = 0x5411
"""unix_ioctl: the bytes that were sent and not yet read."""
LONGEST_NAME: Final = 64
"""Of a field, journald's limit."""
_RESERVED: Final = """
MESSAGE MESSAGE_ID PRIORITY CODE_FILE CODE_LINE CODE_FUNC ERRNO INVOCATION_ID USER_INVOCATION_ID DOCUMENTATION TID
SYSLOG_FACILITY SYSLOG_IDENTIFIER SYSLOG_PID SYSLOG_TIMESTAMP SYSLOG_RAW UNIT USER_UNIT OBJECT_PID COREDUMP_UNIT
CONTAINER_ID CONTAINER_ID_FULL CONTAINER_NAME CONTAINER_TAG IMAGE_NAME CONTAINER_PARTIAL_MESSAGE
CONTAINER_PARTIAL_ID CONTAINER_PARTIAL_ORDINAL CONTAINER_PARTIAL_LAST CONTAINER_LOG_EPOCH CONTAINER_LOG_ORDINAL
CONTAINER_EXEC
"""
RESERVED: Final = frozenset(_RESERVED.split())
"""Fields with a meaning of their own, which no label takes on."""

_MEMO: Final = struct.Struct("<32sQ")


def parse_socket(text: str) -> str:
    """Parse the path of journald's socket."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is not an absolute path")
    return text


@dataclass(frozen=True, kw_only=True)
class JournaldOptions(CommonOptions):
    """Docker's journald has no log-opts but those that all drivers have."""

    journald_socket: str = opt(parse_socket, default=SOCKET, help="where journald takes entries (logd's own option)")

    def check_host(self) -> None:
        """Ask whether a journald is there."""
        try:
            connect(self.journald_socket).close()
        except OSError as error:
            raise ValueError(
                f"journald is not enabled on this host ({self.journald_socket}: {error.strerror})"
            ) from error


# -- entries ----------------------------------------------------------------------------------------------------------


def sanitize(name: str) -> str:
    """Return a name as a field's: upper case, other characters as underscores, none of them at the beginning."""
    return re.sub("[^A-Z0-9]", "_", re.sub("[a-z]+", lambda match: match[0].upper(), name)).lstrip("_")


def is_free(name: str) -> bool:
    """Whether a label may have the name, and journald takes it."""
    return name not in RESERVED and 0 < len(name) <= LONGEST_NAME and not name[0].isdigit()


def field(name: str, value: bytes) -> bytes:
    """Return a field of an entry; one with a newline in it has its length before it."""
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value)
    return b"%s=%s\n" % (name.encode(), value)


def fields(values: Mapping[str, str]) -> bytes:
    """Return several fields."""
    return b"".join(field(name, value.encode("utf-8", "surrogateescape")) for name, value in values.items())


def container_fields(container: ContainerInfo, tag: str, attributes: Mapping[str, str], epoch: str) -> bytes:
    """Return the fields that all of a container's entries share."""
    extras = {sanitize(name): value for name, value in attributes.items()}
    return fields(
        {name: value for name, value in extras.items() if is_free(name)}
        | {
            "CONTAINER_ID": container.id[:12],
            "CONTAINER_ID_FULL": container.id,
            "CONTAINER_NAME": container.name,
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": container.image_name,
            "SYSLOG_IDENTIFIER": tag,
            "CONTAINER_LOG_EPOCH": epoch,
        }
    )


def partial_fields(partial: Partial | None) -> bytes:
    """Return what tells of a part of a line."""
    if partial is None:
        return b""
    return fields(
        {
            "CONTAINER_PARTIAL_ID": partial.id,
            "CONTAINER_PARTIAL_ORDINAL": str(partial.ordinal),
            "CONTAINER_PARTIAL_LAST": "true" if partial.last else "false",
            **({} if partial.last else {"CONTAINER_PARTIAL_MESSAGE": "true"}),
        }
    )


def exec_fields(group: Group) -> bytes:
    """Return what tells of the exec that has printed the lines."""
    exec_id = exec_of(group)
    return fields({"CONTAINER_EXEC": exec_id}) if exec_id else b""


def entries(groups: Iterable[Group], shared: bytes, ordinal: int) -> Iterator[bytes]:
    """Give the entries, the first of them with the ordinal."""
    for group in groups:
        head = b"%sPRIORITY=%d\nSYSLOG_TIMESTAMP=%s\n%s" % (
            shared,
            PRIORITIES[group.stream],
            format_time_short(group.time_ns).encode(),
            partial_fields(group.partial) + exec_fields(group),
        )
        for line in group.lines:
            if b"\n" in line:
                yield b"%sCONTAINER_LOG_ORDINAL=%d\n%s" % (head, ordinal, field("MESSAGE", line))
            else:
                yield b"%sCONTAINER_LOG_ORDINAL=%d\nMESSAGE=%s\n" % (head, ordinal, line)
            ordinal += 1


# -- the socket -------------------------------------------------------------------------------------------------------


def connect(path: str) -> socket.socket:
    """Return a socket on which `send` never waits. Raises OSError."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        connected.setblocking(False)
        connected.connect(path)
        try:
            connected.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
        except PermissionError:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    except OSError:
        connected.close()
        raise
    return connected


def pauses() -> Iterator[float]:
    """Give the lengths, in seconds, of one pause after the other, for ever."""
    pause_s = SHORTEST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(PAUSE_GROWTH * pause_s, LONGEST_PAUSE_S)


def surely_read(sizes: list[int], unread_bytes: int) -> int:
    """Return how many datagrams of these sizes, from the first on, are no longer in a queue with so many bytes.

    The kernel counts the memory that a datagram takes, which is more than its size.
    """
    count = len(sizes)
    while count and sizes[count - 1] <= unread_bytes:
        count -= 1
        unread_bytes -= sizes[count]
    return count


class Sending:
    """A batch on its way, in a thread of its own."""

    def __init__(self, path: str, batch: Batch, shared: bytes, ordinal: int) -> None:
        self.batch = batch
        self._path = path
        self._shared = shared
        self._ordinal = ordinal
        self._stopped = threading.Event()
        self._sizes: list[int] = []
        """Of the datagrams that were sent."""

    def stop(self) -> None:
        """Have the thread end soon."""
        self._stopped.set()

    def run(self) -> None:
        """Send it; acknowledge what journald has read. Raises OSError."""
        with contextlib.closing(connect(self._path)) as journal:
            for entry in entries(self.batch.groups, self._shared, self._ordinal):
                try:
                    journal.send(entry)
                except OSError as error:
                    self._send_hard(journal, entry, error)
                self._sizes.append(len(entry))
                if len(self._sizes) % CHECKED_EACH == 0:
                    self._acknowledge(journal)
            for pause_s in pauses():
                self._acknowledge(journal)
                if self.batch.acknowledged == len(self.batch):
                    return
                self._pause(journal, pause_s)

    def _send_hard(self, journal: socket.socket, entry: bytes, error: OSError) -> None:
        """Send what was not taken at once: wait for room, or make a file of it."""
        for pause_s in pauses():
            if error.errno in {errno.EMSGSIZE, errno.ENOBUFS}:
                self._send_file(journal, entry)
                return
            if not isinstance(error, BlockingIOError):
                raise error
            self._pause(journal, pause_s)
            try:
                journal.send(entry)
            except OSError as another:
                error = another
            else:
                return

    def _send_file(self, journal: socket.socket, entry: bytes) -> None:
        """Send an entry that no datagram can hold: a sealed file in memory."""
        with open(os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb", buffering=0) as file:
            view = memoryview(entry)
            while view:
                view = view[file.write(view) :]
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
            for pause_s in pauses():
                try:
                    socket.send_fds(journal, [b""], [file.fileno()])
                except BlockingIOError:
                    self._pause(journal, pause_s)
                else:
                    return

    def _acknowledge(self, journal: socket.socket) -> None:
        """Acknowledge what journald has read, and see that it is still there: if it died, its queue is lost."""
        read = surely_read(self._sizes, struct.unpack("i", fcntl.ioctl(journal, SIOCOUTQ, bytes(4)))[0])
        if read > self.batch.acknowledged:
            with contextlib.suppress(BlockingIOError):
                journal.send(b"")  # journald passes over it; the kernel refuses it if nobody is left to read it
            self.batch.ack(read)

    def _pause(self, journal: socket.socket, seconds: float) -> None:
        if self._stopped.is_set():
            self._acknowledge(journal)
            raise TimeoutError("journald does not read its socket")
        time.sleep(seconds)


# -- the driver -------------------------------------------------------------------------------------------------------


@dataclass
class Sequence:
    """Numbers the records of a container, so that a gap can be seen."""

    epoch: bytes
    """32 bytes that name the sequence."""
    last: int = 0
    """The ordinal of the last record that was sent."""

    def memo(self) -> bytes:
        """Return it as 40 bytes."""
        return _MEMO.pack(self.epoch, self.last)


_threads: Final = ThreadPoolExecutor(THREADS, "journald")


class JournaldDriver(LogDriver[JournaldOptions]):
    """The host's journal. The memo of a batch is the ordinal of its last record."""

    name = "journald"
    options_type = JournaldOptions
    max_in_flight = THREADS
    confirms = False

    def __init__(self, options: JournaldOptions) -> None:
        super().__init__(options)
        self._sequences: dict[str, Sequence] = {}
        self._shared: dict[str, bytes] = {}

    async def open(self) -> None:
        """See whether journald is there. Each batch has a socket of its own."""
        connect(self.options.journald_socket).close()

    async def send(self, batch: Batch) -> None:
        """Send the batch, and wait until journald has read it."""
        container = batch.container
        sequence = self._sequences.get(container.id)
        if sequence is None:
            sequence = self._sequences[container.id] = Sequence(sha256(batch.id.encode()).digest())
        shared = self._shared.get(container.id)
        if shared is None:
            tag, attributes = self.tag(container), self.attributes(container)
            shared = container_fields(container, tag, attributes, sequence.epoch.hex())
            self._shared[container.id] = shared
        sending = Sending(self.options.journald_socket, batch, shared, sequence.last + 1)
        try:
            await _run(sending)
        finally:
            sequence.last += batch.acknowledged
            batch.memo = sequence.memo()

    async def close(self) -> None:
        """Nothing is held open."""

    def resume(self, container: ContainerInfo, memo: bytes) -> None:
        """Go on counting after the last record that counts."""
        self._shared.pop(container.id, None)
        self._sequences.pop(container.id, None)
        if len(memo) == _MEMO.size:
            self._sequences[container.id] = Sequence(*_MEMO.unpack(memo))

    def forget(self, container: ContainerInfo) -> None:
        """Let go of the container's sequence."""
        super().forget(container)
        self._shared.pop(container.id, None)
        self._sequences.pop(container.id, None)


async def _run(sending: Sending) -> None:
    """Run it in a thread; when cancelled, stop it and wait for that, so that what it has acknowledged stays true."""
    job = _threads.submit(sending.run)
    ended = asyncio.wrap_future(job)
    try:
        await asyncio.shield(ended)
    except asyncio.CancelledError:
        sending.stop()
        if not job.cancel():
            await asyncio.wait([ended])
            ended.exception()  # how it came to its end is of no interest
        raise


@hookimpl
def logd_log_drivers() -> list[type[JournaldDriver]]:
    """The drivers of this module."""
    return [JournaldDriver]

"""What a log driver is handed: a batch of one container's lines, in groups that share stream and time.

A line stands at (stream, position), a count of bytes since the container was created. Together with the container's
id that names a record for ever, so that a receiver can leave out what it gets twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple


@dataclass(frozen=True, kw_only=True)
class ContainerInfo:
    """The container whose output a driver delivers. What is in it comes from outside: data, never a path or command."""

    id: str
    """64 hexadecimal digits."""
    name: str
    """Without a slash before it."""
    image_id: str = ""
    """`sha256:` and 64 hexadecimal digits."""
    image_name: str = ""
    """The reference by which the image was asked for."""
    entrypoint: str = ""
    """The program."""
    args: tuple[str, ...] = ()
    created_ns: int = 0
    """Unix time."""
    env: tuple[str, ...] = ()
    """NAME=value."""
    labels: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    """The container's own folder on the host, chosen by the engine, for a driver that keeps files beside the store."""
    run_folder: str = ""
    """The folder on the host of what belongs to running processes, for a driver that has pipes or sockets."""
    log_opts: dict[str, str] = field(default_factory=dict)
    """The log-opts as they were written, for tags that show one (`.Config`)."""
    log_path: str = ""
    """The file that Docker calls LogPath, json-file's; empty without one."""


class Partial(NamedTuple):
    """Which part of an over-long line a record is; Docker's partial metadata."""

    id: str
    """64 hexadecimal digits that all parts of a line share, the same whenever the line is delivered again."""
    ordinal: int
    """From 1."""
    last: bool


class ExecId(str):
    """The value of the field EXEC_FIELD of lines that an exec has printed, which no processor can have made."""

    __slots__ = ()


EXEC_FIELD: Final = "exec"
"""12 hexadecimal digits, with which the exec's id begins."""


class Group(NamedTuple):
    """Lines of one stream that arrived at one time, without their newlines."""

    time_ns: int
    """When the first byte arrived, Unix time."""
    stream: int
    """`record.STDOUT` or `STDERR`."""
    position: int
    """Of the first line."""
    end: int
    """After the last line and its newline."""
    lines: list[bytes]
    """Any bytes; a newline inside a line only where a line processor joined several."""
    partial: Partial | None = None
    """Then there is exactly one line."""
    fields: list[dict[str, Any] | None] | None = None
    """What a line processor has read out of each line, JSON values by name; for destinations with structure.

    Lines of an exec have EXEC_FIELD too; all of a group are of the same, or the container's own.
    """


def exec_of(group: Group) -> str:
    """Return which exec has printed the lines, nothing for the container's own."""
    value = group.fields[0].get(EXEC_FIELD) if group.fields and group.fields[0] else None
    return value if isinstance(value, ExecId) else ""


class Dropped(NamedTuple):
    """A stretch of a stream that is not delivered, and why: lost before it got here, or left out by a processor."""

    stream: int
    position: int
    end: int
    reason: str


Item = Group | Dropped
"""What a container's output is made of on its way to a driver, in its order."""


class Record(NamedTuple):
    """One line, or a part of an over-long one."""

    time_ns: int
    stream: int
    position: int
    line: bytes
    ordinal: int
    """Among the records of its group, which share a time, from 0."""
    partial: Partial | None
    fields: dict[str, Any] | None = None


class Batch:
    """Lines of one container in the order of their arrival, at least one.

    Batch-wise drivers walk over `groups`, simple ones over `records()`. `ack` tells of a part that the destination
    has taken, so that only the rest is sent again when `send` fails after it.
    """

    def __init__(self, container: ContainerInfo, groups: Sequence[Group]) -> None:
        self.container = container
        self.groups = groups
        self.acknowledged = 0
        """How many records, from the first on, the destination is known to have taken."""
        self.left_out: dict[int, str] = {}
        """Records that the driver does not send, by their numbers from 0, and why: see `leave_out`."""
        self.memo = b""
        """At most 64 bytes that are kept with the cursor once the batch is acknowledged: see LogDriver.resume."""
        self._count = sum(len(group.lines) for group in groups)

    def __len__(self) -> int:
        """Return the number of records."""
        return self._count

    @property
    def size(self) -> int:
        """How many bytes of the container's output the batch stands for."""
        return sum(group.end - group.position for group in self.groups)

    @property
    def id(self) -> str:
        """A name that is the same whenever this batch's first record is sent first: `CONTAINER:STREAM:POSITION`."""
        first = self.groups[0]
        return f"{self.container.id}:{first.stream}:{first.position}"

    def records(self) -> Iterator[Record]:
        """Give the lines one by one."""
        for time_ns, stream, position, _, lines, partial, fields in self.groups:
            at = position
            for ordinal, line in enumerate(lines):
                yield Record(time_ns, stream, at, line, ordinal, partial, fields[ordinal] if fields else None)
                at += len(line) + 1

    def ack(self, records: int) -> None:
        """Note that the destination has taken the first `records` records for good. Never goes back."""
        self.acknowledged = min(max(self.acknowledged, records), self._count)

    def leave_out(self, record: int, reason: str) -> None:
        """Note that a record is not sent, because the destination has no room for such a one, and is done with.

        `record` is its number, from 0. When it is acknowledged, or `send` returns, it counts as dropped for that
        reason, a word such as "empty".
        """
        self.left_out[record] = reason

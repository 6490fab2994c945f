"""The nouns that every room shares: a run of lines, and a stretch that is missing.

A place in a container's output is (stream, position): the count of bytes of that stream since the container was
created. It only grows and is never used twice.
"""

from typing import Any, Final, NamedTuple, Self

STDOUT: Final = 1
"""Docker's number of the stream (also on the wire of the API)."""
STDERR: Final = 2
STREAM_NAMES: Final = {STDOUT: "stdout", STDERR: "stderr"}


class Run(NamedTuple):
    """Bytes of one stream that share a time: whole lines, but for the last at the end of the output.

    `time_ns` is when the first byte of its first line arrived (Unix time); all lines of the run share it.
    """

    time_ns: int
    stream: int
    position: int
    data: bytes


class ExecRun(Run):
    """A run that an exec has printed, a process beside the container's first one; `exec_id` says which."""

    exec_id: str
    """The first 12 hexadecimal digits of the exec's id."""

    @classmethod
    def of(cls, exec_id: str, run: Run) -> Self:
        """Return a run as one of an exec's."""
        made = cls(*run)
        made.exec_id = exec_id
        return made

    def _replace(self, **changes: Any) -> Self:
        return self.of(self.exec_id, super()._replace(**changes))


class Gap(NamedTuple):
    """A stretch of one stream that is not in the store. `length` is in bytes, 0 where it is not known."""

    time_ns: int
    stream: int
    position: int
    length: int
    reason: str

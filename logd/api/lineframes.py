"""Runs of log lines to the bytes that Docker's clients read: prefixes before lines, frames around them.

Source: Docker Engine API 1.47, ContainerLogs and ContainerAttach (stream format); the prefixes, dockerd 27.
"""

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote_plus

from logd.record import STDERR, STREAM_NAMES, ExecRun, Gap, Run
from logd.stdcopy import SYSTEM_ERROR, frame, frame_lines, header
from logd.units import NS, format_time


def details_prefix(attributes: Mapping[str, str]) -> bytes:
    """Return what `--details` puts before a line: sorted k=v, percent-encoded, with commas, and a space."""
    pairs = (f"{quote_plus(key)}={quote_plus(attributes[key])}" for key in sorted(attributes))
    return f"{','.join(pairs)} ".encode()


def describe_gap(gap: Gap) -> str:
    """Return the words for a stretch that is not there."""
    amount = f"{gap.length} bytes" if gap.length else "bytes"
    return f"{amount} of {STREAM_NAMES.get(gap.stream, 'output')} are missing ({gap.reason})"


class LineEncoder:
    """Encodes runs for one client.

    `multiplexed`: 8-byte headers, else bare bytes (a terminal's stream). `per_line`: a frame a line, for clients
    that take a frame for a line; else a frame holds all neighbouring lines of one stream. `details`, if there are to be
    any, are the container's; a line of an exec has `exec` among them.
    """

    def __init__(
        self,
        *,
        multiplexed: bool = True,
        per_line: bool = False,
        timestamps: bool = False,
        details: Mapping[str, str] | None = None,
    ) -> None:
        self._multiplexed = multiplexed
        self._per_line = per_line
        self._timestamps = timestamps
        self._attributes = details
        self._details = b"" if details is None else details_prefix(details)
        self._inside = dict.fromkeys(STREAM_NAMES, False)
        self._second: Final = _SecondCache()

    def encode(self, items: Iterable[Run | Gap]) -> bytes:
        """Return the bytes of runs; a gap becomes a line on stderr, since stdout's bytes are the container's own."""
        pieces: list[bytes] = []
        pending: list[bytes] = []
        stream = 0
        for item in items:
            if item.stream != stream or isinstance(item, Gap):
                self._flush(stream, pending, pieces)
                stream = item.stream
            if isinstance(item, Run):
                self._add_with_prefixes(item, pending)
            else:
                for number in (item.stream,) if item.stream else tuple(self._inside):
                    self._inside[number] = False
                pieces.append(self._framed(STDERR, f"logd: {describe_gap(item)}\n".encode()))
        self._flush(stream, pending, pieces)
        return b"".join(pieces)

    def error(self, message: str) -> bytes:
        """Return an error in the stream, at which the docker CLI stops with status 1."""
        text = f"Error grabbing logs: {message}\n".encode()
        return frame(SYSTEM_ERROR, text) if self._multiplexed else text

    def _flush(self, stream: int, pending: list[bytes], pieces: list[bytes]) -> None:
        if not pending:
            return
        if not self._multiplexed:
            pieces.extend(pending)
        elif self._per_line:
            pieces.append(frame_lines(stream, b"".join(pending)))
        else:
            pieces.append(header(stream, sum(map(len, pending))))
            pieces.extend(pending)
        pending.clear()

    def _framed(self, stream: int, data: bytes) -> bytes:
        return frame(stream, data) if self._multiplexed else data

    def _add_with_prefixes(self, run: Run, pending: list[bytes]) -> None:
        """Add the run's bytes with the prefix before every line, but not inside a line that comes in parts."""
        data = run.data
        if not self._timestamps and not self._details:
            pending.append(data)
            return
        prefix = (self._second.format(run.time_ns) + b" " if self._timestamps else b"") + self._details_of(run)
        if not self._inside[run.stream]:
            pending.append(prefix)
        whole = data.endswith(b"\n")
        self._inside[run.stream] = not whole
        if whole:  # no prefix after the last newline
            pending += (data[:-1].replace(b"\n", b"\n" + prefix), b"\n")
        else:
            pending.append(data.replace(b"\n", b"\n" + prefix))

    def _details_of(self, run: Run) -> bytes:
        if self._attributes is not None and isinstance(run, ExecRun):
            return details_prefix({**self._attributes, "exec": run.exec_id})
        return self._details


class _SecondCache:
    """Formats times; runs of one second share most of their text."""

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def format(self, time_ns: int) -> bytes:
        """Return RFC 3339 with nine digits."""
        second, fraction = divmod(time_ns, NS)
        if second != self._second:
            self._second, self._text = second, format_time(second * NS)[:-10].encode()
        return b"%s%09dZ" % (self._text, fraction)

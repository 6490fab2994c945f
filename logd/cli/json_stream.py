"""The answers that are JSON objects, a line each: how work goes on, and at the end perhaps why it failed.

Source: Docker Engine API 1.47, ImageCreate, ImageLoad, ImageBuild; the shapes are dockerd's.
"""

import json
from collections.abc import Iterator
from typing import Any

from logd.cli.client import Response
from logd.errors import LogdError


class Failed(LogdError):
    """What the daemon says at last; `exit_code` is that of a build's command, if it was one that failed."""

    def __init__(self, message: str, code: object) -> None:
        super().__init__(message)
        if isinstance(code, int) and 0 < code < 256:
            self.exit_code = code


def results(response: Response) -> Iterator[dict[str, Any]]:
    """Yield the objects. Raises Failed for the error that one of them reports."""
    rest = b""
    with response:
        while not response.ended:
            *lines, rest = (rest + response.receive()).split(b"\n")
            yield from map(_result, filter(bytes.strip, lines))
    if rest.strip():
        yield _result(rest)


def _result(line: bytes) -> dict[str, Any]:
    item: dict[str, Any] = json.loads(line)
    if "error" in item:
        raise Failed(str(item["error"]), (item.get("errorDetail") or {}).get("code"))
    return item

"""The daemon's side of the process that works on a container's files: start it, feed it, read what it says."""

import asyncio
import contextlib
import dataclasses
import json
import signal
from collections.abc import AsyncIterator
from typing import Any, Final

from logd.errors import InvalidParameter, LogdError, NotFound
from logd.files.request import Extraction, Place, Selection, Task
from logd.images.limits import Limits
from logd.images.worker import ENVIRONMENT, command, feed

CHUNK: Final = 256 << 10
MAX_LINE: Final = 256 << 20
"""Bytes of the line that it prints; a list of changes has about a hundred for each."""


class Answer:
    """What the process said in its first line, and the tar that follows it, chunk by chunk."""

    def __init__(self, process: asyncio.subprocess.Process, result: dict[str, Any]) -> None:
        self._process = process
        self.result = result

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the tar. Raises LogdError at its end if it is not whole."""
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(CHUNK):
            yield chunk
        await _check_end(self._process)


@contextlib.asynccontextmanager
async def answered(
    task: Task,
    place: Place,
    *,
    path: str = "",
    extraction: Extraction = Extraction(),  # noqa: B008 - it is frozen
    selection: Selection = Selection(),  # noqa: B008
    body: AsyncIterator[bytes] | None = None,
    limits: Limits = Limits(),  # noqa: B008
) -> AsyncIterator[Answer]:
    """Start a task and give its answer; the process ends with the block.

    Raises NotFound for a path that is not there, InvalidParameter for what the request is at fault for, LogdError.
    """
    options = {
        "place": dataclasses.asdict(place),
        "path": path,
        "extraction": dataclasses.asdict(extraction),
        "selection": dataclasses.asdict(selection),
        "limits": dataclasses.asdict(limits),
    }
    process = await asyncio.create_subprocess_exec(
        *command("logd.files.process", task, json.dumps(options)),
        stdin=asyncio.subprocess.PIPE if body is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
        cwd="/",
        limit=MAX_LINE if task == "changes" else CHUNK,
    )
    feeding = None if body is None else asyncio.create_task(feed(process, body), name="files-feed")
    try:
        yield Answer(process, await _first_line(process, feeding))
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _first_line(process: asyncio.subprocess.Process, feeding: asyncio.Task[None] | None) -> dict[str, Any]:
    """Return the line; an error of the feeding ends the wait."""
    assert process.stdout is not None
    reading = asyncio.ensure_future(process.stdout.readline())
    waiting: set[asyncio.Future[Any]] = {reading} if feeding is None else {reading, feeding}
    try:
        while not reading.done():
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if feeding in done:
                assert feeding is not None
                feeding.result()
                waiting = {reading}
    finally:
        reading.cancel()
    line = reading.result()
    if not line.endswith(b"\n"):
        await _check_end(process)
        raise LogdError("the process for a container's files said nothing")
    result: dict[str, Any] = json.loads(line)
    if "missing" in result:
        raise NotFound("no such file or directory")
    if "refused" in result:
        raise InvalidParameter(result["refused"])
    if "failed" in result:
        raise LogdError(result["failed"])
    return result


async def _check_end(process: asyncio.subprocess.Process) -> None:
    """Wait for the end; raises LogdError if it is not a good one."""
    assert process.stderr is not None
    errors = (await process.stderr.read()).decode(errors="replace").strip()
    status = await process.wait()
    if status:
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        raise LogdError(f"the process for a container's files ended {how}: {errors or 'it said nothing'}")

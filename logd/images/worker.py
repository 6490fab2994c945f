"""The daemon's side of the unpacking process: start it, feed it, read what it found."""

import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final

import logd
from logd.errors import InvalidParameter, LogdError
from logd.images.limits import Limits

ENVIRONMENT: Final = {
    "PYTHONPATH": str(Path(next(iter(logd.__path__))).parent),
    "PYTHONUTF8": "1",  # names are UTF-8 or escaped bytes, whatever the daemon's locale
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
}
PROGRESS_S: Final = 0.25


def command(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line that runs a module of ours as a process of its own, in ENVIRONMENT."""
    return sys.executable, "-P", "-m", module, *arguments


async def unpack_layer(
    folder: Path,
    source: AsyncIterator[bytes] | Path,
    lower: Sequence[Path],
    limits: Limits,
    progress: Callable[[int], Any] | None = None,
    *,
    copy: Path | None,
    digest: str = "",
    any_links: bool = False,
    fills: bool = False,
) -> dict[str, Any]:
    """Unpack a layer into the empty `folder`, above the directories `lower`, the nearest first: see LayerTree.

    Returns what logd.images.unpack says of a layer; its blob is `source`, or the new file `copy` (`copied`);
    without `copy` there is none of what is no blob. `digest` is that of `source` if it is known.
    `any_links` and `fills`: see LayerTree, Source.
    `progress` is awaited with the bytes read so far; it works for a file only. Raises InvalidParameter for a bad
    archive, LogdError where the system failed.
    """
    options = {
        "limits": dataclasses.asdict(limits),
        "lower": [str(path) for path in lower],
        "copy": str(copy or ""),
        "digest": digest,
        "any_links": any_links,
        "fills": fills,
    }
    if not isinstance(source, Path):
        return await _run("layer", folder, options, source, None)
    with await asyncio.to_thread(source.open, "rb", buffering=0) as file:
        return await _run("layer", folder, options, file, progress)


async def split_archive(folder: Path, source: AsyncIterator[bytes], limits: Limits) -> dict[str, Any]:
    """Put the files of an archive of images into the empty `folder`.

    Returns files (name → the number that is its file's name) and links (name → target). Raises as above.
    """
    return await _run("archive", folder, {"limits": dataclasses.asdict(limits)}, source, None)


async def gzip_layer(kept: Path, new: Path) -> dict[str, Any]:
    """Make the gzip of a kept layer: see logd.images.gzipper. Raises LogdError."""
    process = await asyncio.create_subprocess_exec(
        *command("logd.images.gzipper", str(kept), str(new)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
        cwd="/",
    )
    try:
        output, errors = await _output(process, None)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _result(process.returncode, output, errors)


async def _run(
    task: str,
    folder: Path,
    options: dict[str, Any],
    source: AsyncIterator[bytes] | IO[bytes],
    progress: Callable[[int], Any] | None,
) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *command("logd.images.unpack", task, str(folder), json.dumps(options)),
        stdin=asyncio.subprocess.PIPE if isinstance(source, AsyncIterator) else source,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
        cwd="/",
    )
    feeding: asyncio.Task[None] | None = None
    try:
        if isinstance(source, AsyncIterator):
            feeding = asyncio.create_task(feed(process, source), name="images-feed")
        elif progress is not None:
            feeding = asyncio.create_task(_watch(source, progress), name="images-progress")
        output, errors = await _output(process, feeding if isinstance(source, AsyncIterator) else None)
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _result(process.returncode, output, errors)


async def _output(process: asyncio.subprocess.Process, feeding: asyncio.Task[None] | None) -> tuple[bytes, bytes]:
    """Wait for the end of the process; an error of the feeding ends the wait."""
    assert process.stdout is not None
    assert process.stderr is not None
    reading = asyncio.gather(process.stdout.read(), process.stderr.read(), process.wait())
    waiting: set[asyncio.Future[Any]] = {reading} if feeding is None else {reading, feeding}
    try:
        while not reading.done():
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if feeding in done:
                assert feeding is not None
                feeding.result()
                waiting = {reading}
    except BaseException:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        raise
    output, errors, _ = reading.result()
    return output, errors


async def feed(process: asyncio.subprocess.Process, chunks: AsyncIterator[bytes]) -> None:
    """Write the chunks to the process; that it left early is told by its result."""
    assert process.stdin is not None
    try:
        async for chunk in chunks:
            try:
                process.stdin.write(chunk)
                await process.stdin.drain()
            except (BrokenPipeError, ConnectionResetError):
                return
    finally:
        process.stdin.close()


async def _watch(file: IO[bytes], progress: Callable[[int], Any]) -> None:
    """Tell how far the process has read: it shares the descriptor's offset with us."""
    while True:
        await asyncio.sleep(PROGRESS_S)
        await progress(os.lseek(file.fileno(), 0, os.SEEK_CUR))


def _result(status: int | None, output: bytes, errors: bytes) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(output)
    except ValueError:
        what = f"by {signal.Signals(-status).name}" if status and status < 0 else f"with status {status}"
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise LogdError(f"unpacking ended {what}: {last or 'it said nothing'}") from None
    if "refused" in result:
        raise InvalidParameter(f"the archive is refused: {result['refused']}")
    if "failed" in result:
        raise LogdError(f"unpacking failed: {result['failed']}")
    return result

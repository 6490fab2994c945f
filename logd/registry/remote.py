"""The daemon's side of the process that speaks with a registry."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

import logd
from logd import errors
from logd.errors import LogdError
from logd.registry.settings import Credentials, Settings

MAX_LINE: Final = 64 << 20
"""Bytes of an answer; the longest has a manifest in it."""
ENVIRONMENT: Final = {
    "PYTHONPATH": str(Path(next(iter(logd.__path__))).parent),
    "PYTHONUTF8": "1",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
}
"""Proxies of the daemon's environment come with the settings."""

Progress = Callable[[dict[str, int]], None]
"""Gets {"current": bytes} or {"waits": seconds}."""


class Remote:
    """Asks the process. Every method raises the LogdError that the registry's answer is."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, tuple[asyncio.Future[dict[str, Any]], Progress | None]] = {}
        self._last = 0
        self._end: LogdError | None = None

    async def ask(self, do: str, *, progress: Progress | None = None, **fields: Any) -> dict[str, Any]:
        """Have one thing done: see logd.registry.process for what there is and what it answers."""
        self._last += 1
        return await self.say({"id": self._last, "do": do, **fields}, progress)

    async def say(self, line: dict[str, Any], progress: Progress | None = None) -> dict[str, Any]:
        """Send a line and wait for its answer."""
        assert self._process.stdin is not None
        if self._end is not None:
            raise self._end
        number = line.get("id", 0)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future, progress
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its end is told by `listen`
                self._process.stdin.write(msgspec.json.encode(line) + b"\n")
                await self._process.stdin.drain()
            return await future
        finally:
            self._waiting.pop(number, None)

    async def listen(self) -> None:
        """Take the answers until there are no more; who still waits then is told so."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        complaints = asyncio.create_task(self._process.stderr.read(), name="registry-complaints")
        try:
            while line := await self._process.stdout.readline():
                answer = json.loads(line)
                future, progress = self._waiting.get(answer["id"], (None, None))
                if future is None or future.done():
                    continue
                if "error" in answer:
                    future.set_exception(_error(answer))
                elif "result" in answer:
                    future.set_result(answer["result"])
                elif progress is not None:
                    progress(answer)
            last = (await complaints).decode(errors="replace").strip().rpartition("\n")[2]
        finally:
            complaints.cancel()
        self._end = LogdError(f"the process that speaks with the registry has ended: {last or 'it said nothing'}")
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(self._end)


@contextlib.asynccontextmanager
async def connected(
    domain: str,
    path: str,
    settings: Settings,
    credentials: Credentials,
    *,
    actions: str = "pull",
    mirrors: bool = True,
    mount_from: Sequence[str] = (),
) -> AsyncIterator[Remote]:
    """Speak with a registry about the repository `path` ("" for none); the process ends with the block.

    Raises LogdError if no endpoint of the registry answers.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "logd.registry.process"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
        cwd="/",
        limit=MAX_LINE,
    )
    remote = Remote(process)
    listening = asyncio.create_task(remote.listen(), name="registry")
    opening = {
        "domain": domain,
        "path": path,
        "actions": actions,
        "settings": settings,
        "credentials": credentials,
        "mirrors": mirrors,
        "mount_from": list(mount_from),
    }
    try:
        await remote.say(opening)
        yield remote
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def _error(answer: dict[str, Any]) -> LogdError:
    kind = getattr(errors, answer["error"], LogdError)
    return (
        kind(answer["message"])
        if isinstance(kind, type) and issubclass(kind, LogdError)
        else LogdError(answer["message"])
    )

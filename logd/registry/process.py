"""The process that speaks with one registry about one repository: `python -m logd.registry.process`.

A line of JSON on stdin asks for one thing, lines on stdout answer it, several things at a time. The first line opens:

    {"domain": …, "path": …, "actions": "pull", "settings": {…}, "credentials": {…}, "mirrors": true, "mount_from": […]}

then {"id": n, "do": VERB, …}, answered by any number of {"id": n, "current": bytes} and {"id": n, "waits": seconds},
and one {"id": n, "result": {…}} or {"id": n, "error": CLASS of logd.errors, "message": …}; the opening has the id 0.

    manifest  wanted (tag or digest)           data (text), media_type, digest
    tags                                       tags, all of them
    blob      digest, size, path               –
    has_blob  digest                           there
    upload    digest, size, path, mount_from   there (it was), mounted (from which repository), uploaded
    put       name, data, media_type           digest
    check                                      identity_token

It is a process of its own because what it reads is a stranger's, and because digesting and copying a registry's
gigabytes would hold up whoever reads logs. It ends when its stdin does.
"""

import asyncio
import contextlib
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from logd import errors
from logd.errors import LogdError
from logd.registry.download import download
from logd.registry.repository import LINE_ERRORS, Repository
from logd.registry.settings import Credentials, Settings
from logd.registry.upload import upload
from logd.registry.words import told

MAX_LINE: Final = 32 << 20
"""Bytes of a request; the longest has a manifest in it."""
TELL_S: Final = 0.1
MAX_MEMORY: Final = 2 << 30
"""Bytes of address space."""


class Opening(msgspec.Struct):
    """The first line."""

    domain: str
    path: str
    actions: str
    settings: Settings
    credentials: Credentials
    mirrors: bool = True
    mount_from: list[str] = []


class Request(msgspec.Struct):
    """One thing to do."""

    id: int
    do: str
    wanted: str = ""
    digest: str = ""
    size: int = 0
    path: str = ""
    mount_from: str = ""
    name: str = ""
    data: str = ""
    media_type: str = ""


class Process:
    """Answers the requests about one repository."""

    def __init__(self, repository: Repository, attempts: int) -> None:
        self._repository = repository
        self._attempts = attempts

    async def answer(self, request: Request) -> None:
        """Do one thing and say how it went."""
        try:
            result = await self._do(request)
        except LogdError as error:
            say(id=request.id, error=class_of(error), message=str(error))
        except LINE_ERRORS as error:
            say(id=request.id, error="Unavailable", message=told(error))
        else:
            say(id=request.id, result=result)

    async def _do(self, request: Request) -> dict[str, Any]:
        repository, tell = self._repository, _teller(request.id)
        match request.do:
            case "manifest":
                found = await repository.manifest(request.wanted)
                return {"data": found.data.decode(), "media_type": found.media_type, "digest": found.digest}
            case "tags":
                return {"tags": await repository.tags()}
            case "blob":
                await download(
                    repository,
                    request.digest,
                    request.size,
                    Path(request.path),
                    attempts=self._attempts,
                    tell=tell,
                    waits=lambda seconds: say(id=request.id, waits=seconds),
                )
                return {}
            case "has_blob":
                return {"there": await repository.has_blob(request.digest)}
            case "upload":
                path, mount = Path(request.path), request.mount_from
                return await upload(repository, request.digest, request.size, path, mount, self._attempts, tell)
            case "put":
                return {
                    "digest": await repository.put_manifest(request.name, request.data.encode(), request.media_type)
                }
            case "check":
                await repository.check()
                return {"identity_token": repository.identity_token}
        raise LogdError(f"{request.do!r} is not known")


def class_of(error: LogdError) -> str:
    """Return the name of the error's class in logd.errors, or of the one that it is derived from."""
    return next(kind.__name__ for kind in type(error).__mro__ if hasattr(errors, kind.__name__))


def say(**line: Any) -> None:
    """Print one line."""
    data = msgspec.json.encode(line) + b"\n"
    while data:
        data = data[os.write(1, data) :]


def _teller(number: int) -> Callable[[int], None]:
    """Return what says how far a transfer is, not more often than people can see."""
    last = 0.0

    def tell(current: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= TELL_S:
            last = now
            say(id=number, current=current)

    return tell


async def serve() -> None:
    """Read requests until there are no more; what is under way then is given up."""
    reader = asyncio.StreamReader(limit=MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    opening = msgspec.json.decode(await reader.readline(), type=Opening)
    async with Repository(
        opening.domain, opening.path, opening.settings, opening.credentials, opening.actions
    ) as repository:
        connecting = asyncio.create_task(repository.open(mirrors=opening.mirrors, mount_from=opening.mount_from))
        reading = asyncio.create_task(reader.readline())
        await asyncio.wait((connecting, reading), return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():  # nothing is asked before it is: whoever would ask is gone
            connecting.cancel()
            return
        try:
            connecting.result()
        except LogdError as error:
            say(id=0, error=class_of(error), message=str(error))
            return
        say(id=0, result={})
        process = Process(repository, opening.settings.attempts)
        async with asyncio.TaskGroup() as tasks:
            running = set()
            while line := await reading:
                reading = asyncio.create_task(reader.readline())
                task = tasks.create_task(process.answer(msgspec.json.decode(line, type=Request)))
                running.add(task)
                task.add_done_callback(running.discard)
            for task in running:
                task.cancel()


def main() -> None:
    """Serve, with bounds."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(serve())


if __name__ == "__main__":
    main()

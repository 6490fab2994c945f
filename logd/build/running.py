"""The containers of a build's steps: made of the image so far, run or filled with files, committed, removed."""

import asyncio
import codecs
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec

from logd.build.context import Context
from logd.build.options import BuildOptions
from logd.container import Container
from logd.engine.engine import Engine
from logd.errors import InvalidParameter, LogdError, NotFound
from logd.images.image import Image
from logd.record import Run
from logd.spec import ContainerSpec, HealthConfig, HostConfig, LogConfig, convert

STDOUT: Final = 1
RED: Final = "\x1b[91m"
NORMAL: Final = "\x1b[0m"
"""Docker's builder, version 1, has no other way to tell a client what came on standard error."""

Say = Callable[[str], Awaitable[None]]
"""Sends text to who asked for the build."""


class CommandFailed(InvalidParameter):
    """A command of RUN ended with a status that is not 0."""

    def __init__(self, command: str, status: int) -> None:
        super().__init__(f"The command '{command}' returned a non-zero code: {status}")
        self.status_code = status


@contextlib.asynccontextmanager
async def step_container(
    engine: Engine, context: Context, options: BuildOptions, image: Image, config: dict[str, Any], command: list[str]
) -> AsyncIterator[Container]:
    """Give a container of the image, not started, for the length of a step. Raises LogdError.

    Its output is kept by nobody but who is attached.
    """
    asked = convert(config, ContainerSpec, "Config.")
    spec = msgspec.structs.replace(
        asked,
        image=image.id,
        cmd=command,
        entrypoint=[""],
        healthcheck=HealthConfig(test=["NONE"]),
        on_build=[],
        exposed_ports={},
    )
    host: HostConfig = msgspec.structs.replace(options.host, log_config=LogConfig(type="none"))
    name = context.new_step()
    keeps = not options.remove
    creating = asyncio.ensure_future(engine.create(name, spec, host, {}))
    try:
        container, _ = await asyncio.shield(creating)
        yield container
    except LogdError:
        # Docker leaves the container of a command that failed, for whoever wants to look into it.
        keeps = not options.force_remove and _has_run(engine, name)
        raise
    except BaseException:
        keeps = False
        raise
    finally:
        if keeps:
            context.keep(name)
        else:
            await asyncio.shield(_remove(engine, name, creating))


def _has_run(engine: Engine, name: str) -> bool:
    try:
        return bool(engine.get(name).state.started_ns)
    except NotFound:
        return False


async def _remove(engine: Engine, name: str, creating: asyncio.Future[Any]) -> None:
    await asyncio.wait({creating})
    with contextlib.suppress(NotFound):
        await engine.remove(name, force=True, volumes=True)


async def run(engine: Engine, container: Container, say: Say) -> None:
    """Run the container to its end, its output said as it comes. Raises CommandFailed."""
    decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in (1, 2)}
    ended = engine.waiter(container.id, "next-exit")
    try:
        async with engine.attach(container.id) as attachment:
            await engine.start(container.id)
            while found := await attachment.read():
                for one in found:
                    if isinstance(one, Run) and (text := decoders[one.stream].decode(one.data)):
                        await say(text if one.stream == STDOUT else f"{RED}{text}{NORMAL}")
        status = await ended
    finally:
        ended.cancel()
    if status:
        raise CommandFailed(" ".join(container.spec.cmd), status)

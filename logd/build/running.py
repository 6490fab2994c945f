"""The containers of a build's steps: made of the image so far, run or filled with files, committed, removed."""

import codecs
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from logd.build.options import BuildOptions
from logd.container import Container
from logd.engine.engine import Engine
from logd.errors import InvalidParameter, LogdError
from logd.images.image import Image
from logd.record import Run
from logd.spec import ContainerSpec, HealthConfig, HostConfig, LogConfig, convert

Say = Callable[[str], Awaitable[None]]
"""Sends text to who asked for the build."""


class CommandFailed(InvalidParameter):
    """A command of RUN ended with a status that is not 0."""

    def __init__(self, command: str, status: int) -> None:
        super().__init__(f"The command '{command}' returned a non-zero code: {status}")
        self.status_code = status


@contextlib.asynccontextmanager
async def step_container(
    engine: Engine, options: BuildOptions, image: Image, config: dict[str, Any], command: list[str]
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
    container, _ = await engine.create(None, spec, host, {})
    try:
        yield container
    except BaseException:
        if options.force_remove or not container.state.started_ns:
            await engine.remove(container.id, force=True, volumes=True)
        else:
            with contextlib.suppress(LogdError):
                await engine.kill(container.id)
        raise
    if options.remove:
        await engine.remove(container.id, force=True, volumes=True)


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
                        await say(text)
        status = await ended
    finally:
        ended.cancel()
    if status:
        raise CommandFailed(" ".join(container.spec.cmd), status)

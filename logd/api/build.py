"""`docker build`, by the builder of version 1: a context in, lines of JSON out.

Source: Docker Engine API 1.47, ImageBuild; dockerd 27 for what it says. BuildKit's protocol (version 2) is not spoken.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from logd import references
from logd.api.call import Call, Route
from logd.api.progress import Progress
from logd.build.builder import Builder
from logd.build.context import BUILDS, taken
from logd.build.options import BuildOptions
from logd.build.running import CommandFailed
from logd.errors import InvalidParameter, LogdError, Unsupported
from logd.images.image import Image
from logd.images.report import Report
from logd.registry.settings import Credentials, decoded, read_credentials
from logd.spec import HostConfig, Ulimit

T = TypeVar("T")

NO_BUILDKIT: Final = "BuildKit is not supported: build with DOCKER_BUILDKIT=0 (docker), or with `logd build`"


async def build(call: Call) -> web.StreamResponse:
    """POST /build."""
    options = _options(call)
    progress = Progress(call)
    quiet = call.flag("q")

    async def tell(message: dict[str, Any]) -> None:
        if not quiet or "stream" not in message:
            await progress.send(message)

    async def pull(work: Callable[[Report], Awaitable[Image]]) -> Image:
        return await progress.follow(work)

    root = call.parts.config.data_root / BUILDS
    try:
        async with taken(root, call.request.content.iter_any()) as context:
            builder = Builder(call.engine, call.parts.images, call.parts.registries, context, options, tell, pull)
            image = await builder.build()
    except LogdError as error:
        await progress.fail(error, code=error.status_code if isinstance(error, CommandFailed) else None)
    else:
        for name in options.names:
            labels = image.labels or {}
            call.parts.events.publish("image", "tag", image.id, {**labels, "name": name.familiar})
        if quiet:
            await progress.send({"stream": f"{image.id}\n"})
    return await progress.end()


async def cancel(call: Call) -> web.StreamResponse:
    """POST /build/cancel: BuildKit's; a build of version 1 ends with its client."""
    raise Unsupported(NO_BUILDKIT)


def _options(call: Call) -> BuildOptions:
    if call.text("version") == "2":
        raise Unsupported(NO_BUILDKIT)
    for name in ("remote", "squash", "outputs"):
        if call.text(name) and call.text(name) not in {"0", "false", "client-session"}:
            raise Unsupported(f"{name} is not supported by the builder")
    names = tuple(references.parse(text).with_default_tag() for text in call.query.getall("t", []))
    if any(name.digest for name in names):
        raise InvalidParameter("refusing to create a tag with a digest reference")
    arguments = _json(call, "buildargs", dict[str, str | None]) or {}
    return BuildOptions(
        names=names,
        dockerfile=call.text("dockerfile") or "Dockerfile",
        target=call.text("target"),
        arguments={name: value for name, value in arguments.items() if value is not None},
        labels=_json(call, "labels", dict[str, str]) or {},
        no_cache=call.flag("nocache"),
        pull=call.flag("pull"),
        remove=call.flag("rm", default=True),
        force_remove=call.flag("forcerm"),
        platform=call.text("platform"),
        host=_host(call),
        credentials=_credentials(call.request.headers.get("X-Registry-Config", "")),
    )


def _host(call: Call) -> HostConfig:
    """Return what containers of RUN get of the host."""

    def number(key: str) -> int:
        return call.number(key) or 0

    return HostConfig(
        network_mode=call.text("networkmode"),
        memory=number("memory"),
        memory_swap=number("memswap"),
        cpu_shares=number("cpushares"),
        cpu_quota=number("cpuquota"),
        cpu_period=number("cpuperiod"),
        cpuset_cpus=call.text("cpusetcpus"),
        cpuset_mems=call.text("cpusetmems"),
        cgroup_parent=call.text("cgroupparent"),
        shm_size=number("shmsize"),
        extra_hosts=[one for text in call.query.getall("extrahosts", []) for one in text.split(",") if one],
        security_opt=call.query.getall("securityopt", []),
        ulimits=_json(call, "ulimits", list[Ulimit]) or [],
    )


def _json(call: Call, key: str, kind: type[T]) -> T | None:
    """Return a parameter that is JSON, None where it is absent or null. Raises InvalidParameter."""
    try:
        return msgspec.json.decode(call.text(key) or "null", type=kind | None)
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"{key}: {error}") from error


def _credentials(header: str) -> dict[str, Credentials]:
    """Return who asks which registry, from X-Registry-Config: base64 of {registry: AuthConfig}."""
    if not header:
        return {}
    found = msgspec.json.decode(decoded(header, "X-Registry-Config"), type=dict[str, msgspec.Raw])
    return {registry: read_credentials(bytes(raw)) for registry, raw in found.items()}


ROUTES: Final = [
    Route("POST", "/build", build),
    Route("POST", "/build/cancel", cancel),
]

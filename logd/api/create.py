"""POST /containers/create, and what older versions of the API meant by it.

Source: Docker Engine API 1.47, ContainerCreate; the differences of older versions, its version history.
"""

from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from msgspec.structs import replace

from logd.api.call import Call, Route, Version, answer
from logd.errors import InvalidParameter, NotFound
from logd.spec import decode_create

if TYPE_CHECKING:
    from logd.spec import HostConfig, Mount

ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
"""Other names of one architecture, as users write them in a platform."""


async def create(call: Call) -> web.Response:
    """Create a container; it does not start."""
    body = await call.body()
    if not body:
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    spec, host, networking = decode_create(body)
    host = _as_meant(call.version, host)
    if call.version >= Version(1, 41) and call.text("platform"):
        _check_platform(call, call.text("platform"), spec.image)
    container, warnings = await call.engine.create(call.text("name") or None, spec, host, networking)
    return answer({"Id": container.id, "Warnings": warnings}, 201)


def _as_meant(version: Version, host: "HostConfig") -> "HostConfig":
    """Return the settings with the defaults of the client's version, without fields that it does not have."""
    changes: dict[str, Any] = {}
    if version < Version(1, 25):
        changes["auto_remove"] = False  # the client did it itself
    if version < Version(1, 40) and not host.ipc_mode:
        changes["ipc_mode"] = "shareable"
    if version < Version(1, 42):
        changes |= {"console_size": [0, 0], "mounts": [_fitting(mount) for mount in host.mounts]}
    else:
        changes["kernel_memory"] = 0
    if version < Version(1, 43):
        changes["annotations"] = {}
    return replace(host, **changes)


def _fitting(mount: "Mount") -> "Mount":
    """Return a mount as API versions before 1.42 took it: options of another type of mount counted for nothing."""
    bind = mount.bind_options
    return replace(
        mount,
        bind_options=replace(bind, create_mountpoint=False) if bind else None,
        volume_options=mount.volume_options if mount.type == "volume" else None,
        tmpfs_options=mount.tmpfs_options if mount.type == "tmpfs" else None,
    )


def _check_platform(call: Call, platform: str, reference: str) -> None:
    """Refuse a platform that the image is not for: dockerd says then that there is no such image."""
    os_name, _, architecture = platform.lower().partition("/")
    if not architecture and os_name != "linux":
        os_name, architecture = "linux", os_name
    wanted = architecture.partition("/")[0]
    image = call.parts.images.resolve(reference)
    has = image.config.get("architecture", "")
    if os_name != image.config.get("os", "linux") or ARCHITECTURES.get(wanted, wanted) not in {"", has}:
        raise NotFound(
            f"image with reference {reference} was found but its platform "
            f"({image.config.get('os', 'linux')}/{has}) does not match the specified platform ({platform})"
        )


ROUTES: Final = [Route("POST", "/containers/create", create, lasting=True, action=("container", "create"))]

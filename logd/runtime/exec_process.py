"""process.json of an exec: the process of the container's own bundle with what is asked for.

So it has the container's seccomp filter, limits, AppArmor profile and no_new_privs. Source: OCI runtime specification
1.0.2, config.md, "process"; Docker Engine API 1.47, ContainerExec.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from logd.container import Container
from logd.runtime import capabilities
from logd.runtime.oci import CONFIG_NAME, default_env
from logd.runtime.users import resolve_user


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What an exec is to be; an empty `user` or `working_dir` is the container's, `env` goes over the container's."""

    argv: Sequence[str]
    env: Sequence[str] = ()
    user: str = ""
    working_dir: str = ""
    tty: bool = False
    privileged: bool = False
    console_size: tuple[int, int] | None = None
    """Rows and columns."""


def make_process(container: Container, wish: Wish) -> bytes:
    """Return process.json of an exec in a running container (blocks).

    Raises InvalidParameter for an unknown user, in Docker's words; OSError, ValueError.
    """
    config: dict[str, Any] = orjson.loads((container.exec_dir / CONFIG_NAME).read_bytes())
    process: dict[str, Any] = config["process"]
    spec = msgspec.structs.replace(container.spec, tty=wish.tty, env=[*container.spec.env, *wish.env])
    process |= {"args": list(wish.argv), "env": default_env(spec), "terminal": wish.tty}
    process.pop("consoleSize", None)
    if wish.tty and wish.console_size is not None:
        process["consoleSize"] = {"height": wish.console_size[0], "width": wish.console_size[1]}
    if wish.working_dir:
        process["cwd"] = wish.working_dir
    if wish.user:
        user = resolve_user(container.rootfs, wish.user, container.host.group_add)
        process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}
    process["capabilities"] = _capabilities(process, privileged=wish.privileged)
    return orjson.dumps(process)


def _capabilities(process: dict[str, Any], *, privileged: bool) -> dict[str, list[str]]:
    """Return the container's bounding set, or all that this daemon has; root has them at once, others may get them."""
    bounding = process["capabilities"]["bounding"]
    if privileged:
        bounding = capabilities.resolve([], [], privileged=True)
    return {"bounding": bounding} | (
        {"effective": bounding, "permitted": bounding} if process["user"]["uid"] == 0 else {}
    )

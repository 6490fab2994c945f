"""What viewers, who come by the read-only socket, are shown of things: all but what people put secrets into.

Commands and their arguments, environment variables, what a health check runs, log-opts and options of volume drivers
are emptied, not left out, so that clients find the shape that they know. Labels, names, paths and logs are shown.
"""

from collections.abc import Mapping
from typing import Any, Final

from logd.errors import Forbidden

EMPTIED: Final = ("Env", "Cmd", "Entrypoint", "OnBuild", "Shell")
"""Of a container's Config and of an image's; each is a list."""
PROCESS_COLUMNS: Final = "-eo user,pid,ppid,c,stime,tty,time,comm"
"""For ps: as its -f, but for the arguments of commands."""


def config(shown: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a Config without what may be secret."""
    if shown is None:
        return None
    emptied: dict[str, Any] = {**shown, **{name: [] for name in EMPTIED if name in shown}}
    if shown.get("Healthcheck"):
        emptied["Healthcheck"] = {**shown["Healthcheck"], "Test": shown["Healthcheck"].get("Test", [])[:1]}
    return emptied


def container(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ContainerJSON without what may be secret."""
    host: dict[str, Any] = {**shown["HostConfig"]}
    host["LogConfig"] = {"Type": host["LogConfig"]["Type"], "Config": {}}
    host |= {name: {} for name in ("Annotations", "StorageOpt") if name in host}
    if host.get("Mounts"):
        host["Mounts"] = [_mount(mount) for mount in host["Mounts"]]
    return {**shown, "Args": [], "Config": config(shown["Config"]), "HostConfig": host}


def _mount(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shown.items() if name != "VolumeOptions"}


def summary(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return a list's item without the arguments of the command."""
    host = {name: value for name, value in shown["HostConfig"].items() if name != "Annotations"}
    return {**shown, "Command": str(shown["Command"]).partition(" ")[0], "HostConfig": host}


def image(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image's inspection without what may be secret."""
    names = (name for name in ("Config", "ContainerConfig") if name in shown)
    return {**shown, **{name: config(shown[name]) for name in names}}


def event(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event without the command of an exec, which follows a colon."""
    action = str(shown["Action"])
    if not action.startswith("exec_"):
        return dict(shown)
    action = action.partition(":")[0]
    return {**shown, "Action": action, **({"status": action} if "status" in shown else {})}


def info(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return /info without proxies, whose addresses may have a password in them, and the runtimes' arguments."""
    proxies = {name: "" for name in ("HttpProxy", "HttpsProxy", "NoProxy") if name in shown}
    runtimes = {name: {"path": runtime.get("path", "")} for name, runtime in shown["Runtimes"].items()}
    return {**shown, **proxies, "Runtimes": runtimes}


def ps_args(asked: str) -> str:
    """Return the arguments for ps. Raises Forbidden for others: they could show the environment of processes."""
    if asked:
        raise Forbidden("ps_args: this socket is for viewers, who have columns of its own")
    return PROCESS_COLUMNS

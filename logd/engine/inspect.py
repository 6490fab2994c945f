"""Docker's shapes of a container: ContainerJSON (inspect) and ContainerSummary (list).

Source: Docker Engine API 1.47, GET /containers/{id}/json and GET /containers/json; the wording of a status is that
of go-units' HumanDuration.
"""

import time
from typing import Any, Final

import msgspec

from logd.container import Container, Health, State
from logd.engine.logopts import log_path
from logd.engine.network_shapes import endpoints_shape, settings_shape
from logd.engine.networks import Networks
from logd.spec import to_docker
from logd.units import NS, ZERO_TIME, format_time_short

STORAGE_DRIVER: Final = "overlay2"
"""Docker's name for layers stacked by overlayfs."""
MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


def human_duration(duration_s: float) -> str:
    """Return "Less than a second", "5 seconds", "About a minute", "3 hours", "2 weeks", … as Docker rounds them."""
    seconds = int(duration_s)
    hours = int(duration_s / HOUR + 0.5)
    if seconds < MINUTE:
        return "Less than a second" if seconds < 1 else "1 second" if seconds == 1 else f"{seconds} seconds"
    if seconds < HOUR:
        minutes = seconds // MINUTE
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{seconds // HOUR // 24 // 365} years"


def describe(state: State, now_ns: int) -> str:
    """Return a state as `docker ps` shows it: "Up 5 seconds", "Exited (0) 3 minutes ago", "Created"."""
    since_start = human_duration((now_ns - state.started_ns) / NS)
    since_exit = human_duration((now_ns - state.finished_ns) / NS)
    if state.running:
        if state.paused:
            return f"Up {since_start} (Paused)"
        if state.restarting:
            return f"Restarting ({state.exit_code}) {since_exit} ago"
        return f"Up {since_start}{_health_words(state.health)}"
    if state.removing:
        return "Removal In Progress"
    if state.dead:
        return "Dead"
    if not state.started_ns:
        return "Created"
    return f"Exited ({state.exit_code}) {since_exit} ago" if state.finished_ns else ""


def _health_words(health: Health | None) -> str:
    if health is None:
        return ""
    return " (health: starting)" if health.status == "starting" else f" ({health.status})"


def command_line(container: Container) -> str:
    """Return path and arguments in one line; arguments with a blank are in quotes."""
    arguments = [f"'{one}'" if " " in one else one for one in container.args]
    return " ".join([container.path, *arguments])


def summary(container: Container, networks: Networks) -> dict[str, Any]:
    """Return the list's item of a container."""
    return {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": container.image_ref,
        "ImageID": container.image_id,
        "Command": command_line(container),
        "Created": container.created_ns // NS,
        "Ports": [],
        "Labels": dict(container.spec.labels),
        "State": container.state.status,
        "Status": describe(container.state, time.time_ns()),
        "HostConfig": {"NetworkMode": container.host.network_mode}
        | ({"Annotations": dict(container.host.annotations)} if container.host.annotations else {}),
        "NetworkSettings": {"Networks": endpoints_shape(networks, container)},
        "Mounts": _mounts(container),
    }


def inspect(container: Container, lower: list[str], networks: Networks) -> dict[str, Any]:
    """Return everything of a container; `lower` are the folders of its image's layers, the top one first."""
    state = container.state
    return {
        "Id": container.id,
        "Created": format_time_short(container.created_ns),
        "Path": container.path,
        "Args": list(container.args),
        "State": {
            "Status": state.status,
            "Running": state.running,
            "Paused": state.paused,
            "Restarting": state.restarting,
            "OOMKilled": state.oom_killed,
            "Dead": state.dead,
            "Pid": state.pid,
            "ExitCode": state.exit_code,
            "Error": state.error,
            "StartedAt": _time(state.started_ns),
            "FinishedAt": _time(state.finished_ns),
        }
        | ({"Health": _health(state.health)} if state.health else {}),
        "Image": container.image_id,
        "ResolvConfPath": str(container.dir / "resolv.conf"),
        "HostnamePath": str(container.dir / "hostname"),
        "HostsPath": str(container.dir / "hosts"),
        "LogPath": log_path(container),
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": STORAGE_DRIVER,
        "Platform": container.os,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": to_docker(container.host),
        "GraphDriver": {
            "Data": {
                "ID": container.id,
                "LowerDir": ":".join(lower),
                "MergedDir": str(container.rootfs),
                "UpperDir": str(container.upper),
                "WorkDir": str(container.dir / "work"),
            },
            "Name": STORAGE_DRIVER,
        },
        "Mounts": _mounts(container),
        "Config": to_docker(container.spec),
        "NetworkSettings": settings_shape(networks, container),
    }


def _health(health: Health) -> dict[str, Any]:
    probes = [
        {"Start": _time(one.start_ns), "End": _time(one.end_ns), "ExitCode": one.exit_code, "Output": one.output}
        for one in health.log
    ]
    return {"Status": health.status, "FailingStreak": health.failing_streak, "Log": probes}


def _time(time_ns: int) -> str:
    return format_time_short(time_ns) if time_ns else ZERO_TIME


def _mounts(container: Container) -> list[dict[str, Any]]:
    shown = []
    for mount in container.mounts:
        item: dict[str, Any] = msgspec.to_builtins(mount)
        shown.append({key: value for key, value in item.items() if value or key not in {"Type", "Name", "Driver"}})
    return shown

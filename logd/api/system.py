"""The daemon and its machine: ping, version, info, disk usage.

Source: Docker Engine API 1.47, System. Every value is the true one; what has none here has Docker's empty value.
"""

import asyncio
import os
import platform
import socket
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from aiohttp import web

import logd
from logd import plugins
from logd.api import host, viewers
from logd.api.call import NEWEST, OLDEST, Call, Route, Version, answer
from logd.api.images import as_of, users_of
from logd.api.volumes import list_with_sizes
from logd.errors import InvalidParameter
from logd.units import format_time_short

SERVER_VERSION: Final = version("logd")
UNKNOWN: Final = "N/A"
"""dockerd's word for the version of a part that it can't find out."""
NO_STORE: Final = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
USAGE_TYPES: Final = frozenset(("container", "image", "volume", "build-cache"))


async def ping(call: Call) -> web.Response:
    """GET and HEAD /_ping. The builder is Docker's older one, of which /build then says that there is none."""
    headers = {**NO_STORE, "Builder-Version": "1", "Swarm": "inactive"}
    text = "OK" if call.request.method == "GET" else ""
    return web.Response(text=text, headers=headers, content_type="text/plain", charset="utf-8")


async def get_version(call: Call) -> web.Response:
    """GET /version."""
    config = call.parts.config
    runtime = config.runtimes.get(config.default_runtime)
    details = {
        "GitCommit": "",
        "ApiVersion": str(NEWEST),
        "MinAPIVersion": str(OLDEST),
        "GoVersion": f"python{platform.python_version()}",
        "Os": "linux",
        "Arch": host.go_architecture(),
        "BuildTime": _build_time(),
        "KernelVersion": platform.release(),
        "Experimental": "false",
    }
    components: list[dict[str, Any]] = [{"Name": "Engine", "Version": SERVER_VERSION, "Details": details}]
    for name, path in ((config.default_runtime, runtime.path if runtime else ""), ("init", config.init_path)):
        found = await asyncio.to_thread(host.program_version, path)
        if found:
            shown = Path(path).name if name == "init" else name
            component = {"GitCommit": found.get("commit", "")}
            components.append({"Name": shown, "Version": found.get("version", ""), "Details": component})
    flat = {name: value for name, value in details.items() if name != "Experimental"}
    return answer({"Platform": {"Name": "logd"}, "Components": components, "Version": SERVER_VERSION, **flat})


def _build_time() -> str:
    """Return when this package was installed."""
    return format_time_short(os.stat(logd.__file__).st_mtime_ns)


async def info(call: Call) -> web.Response:
    """GET /info."""
    config, release = call.parts.config, host.os_release()
    support = host.cgroup_support()
    runtime = config.runtimes.get(config.default_runtime)
    runtime_version = await asyncio.to_thread(host.program_version, runtime.path if runtime else "")
    init_version = await asyncio.to_thread(host.program_version, config.init_path)
    body: dict[str, Any] = {
        "ID": await asyncio.to_thread(daemon_id, config.data_root),
        **_container_counts(call),
        "Images": len(call.parts.images.list()),
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", host.filesystem_type(config.data_root)], ["Supports d_type", "true"]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": sorted({*plugins.RESERVED, *plugins.load().drivers} - {"none"}),
        },
        **support,
        **host.network_settings(),
        "Debug": config.debug,
        "NFd": host.open_descriptors(),
        "NGoroutines": len(asyncio.all_tasks()),
        "SystemTime": format_time_short(time.time_ns()),
        "LoggingDriver": config.log_driver,
        "NEventsListener": call.parts.events.listeners,
        "KernelVersion": platform.release(),
        "OperatingSystem": release.get("PRETTY_NAME", ""),
        "OSVersion": release.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "IndexServerAddress": "",
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": None,
            "AllowNondistributableArtifactsHostnames": None,
            "InsecureRegistryCIDRs": [],
            "IndexConfigs": {},
            "Mirrors": None,
        },
        "NCPU": os.cpu_count() or 1,
        "MemTotal": host.memory_total(),
        "GenericResources": None,
        "DockerRootDir": str(config.data_root),
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": socket.gethostname(),
        "Labels": list(config.labels),
        "ExperimentalBuild": False,
        "ServerVersion": SERVER_VERSION,
        "Runtimes": {
            name: {"path": one.path} | ({"runtimeArgs": list(one.args)} if one.args else {})
            for name, one in config.runtimes.items()
        },
        "DefaultRuntime": config.default_runtime,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": config.init_path,
        "ContainerdCommit": _commit({}),
        "RuncCommit": _commit(runtime_version),
        "InitCommit": _commit(init_version),
        "SecurityOptions": _security_options(call),
        "CDISpecDirs": [],
        "Warnings": host.limit_warnings(support) or None,
    }
    return answer(viewers.info(body) if call.viewer else body)


def daemon_id(data_root: Path) -> str:
    """Return the id that the daemon gave its data root, "" where it has none."""
    try:
        return (data_root / "id").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def _container_counts(call: Call) -> dict[str, int]:
    states = [container.state for container in call.engine.containers()]
    running = sum(state.has_process and not state.paused for state in states)
    paused = sum(state.has_process and state.paused for state in states)
    return {
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
    }


def _commit(found: dict[str, str]) -> dict[str, str]:
    name = found.get("commit") or found.get("version") or UNKNOWN
    return {"ID": name, "Expected": name}


def _security_options(call: Call) -> list[str]:
    """Return what confines containers, in Docker's notation; before API 1.25 by name only."""
    config = call.parts.config
    options = []
    if config.seccomp_profile != "unconfined":
        options.append(f"name=seccomp,profile={config.seccomp_profile or 'builtin'}")
    if call.engine.remaps:
        options.append("name=userns")
    options.append("name=cgroupns")
    if config.no_new_privileges:
        options.append("name=no-new-privileges")
    if call.version < Version(1, 25):
        return [option.removeprefix("name=").partition(",")[0] for option in options]
    return options


async def disk_usage(call: Call) -> web.Response:
    """GET /system/df."""
    wanted = set(call.query.getall("type", []))
    for name in wanted - USAGE_TYPES:
        raise InvalidParameter(f"unknown object type: {name}")
    if call.version < Version(1, 42) or not wanted:
        wanted = set(USAGE_TYPES)
    body: dict[str, Any] = {"LayersSize": 0, "Images": None, "Containers": None, "Volumes": None, "BuildCache": None}
    if "image" in wanted:
        images = call.parts.images
        summaries = images.summaries({}, shared_size=True, in_use=users_of(call))
        body["Images"] = [as_of(call.version, item) for item in summaries]
        body["LayersSize"] = images.layers_size()
    if "container" in wanted:
        body["Containers"] = [
            await asyncio.to_thread(call.engine.summary, container, size=True)
            for container in reversed(call.engine.containers())
        ]
    if "volume" in wanted:
        body["Volumes"] = await list_with_sizes(call)
    if "build-cache" in wanted:
        body["BuildCache"] = []
    return answer(body)


async def list_plugins(call: Call) -> web.Response:
    """GET /plugins: none of Docker's kind."""
    return answer([])


ROUTES: Final = [
    Route("GET", "/_ping", ping, viewers=True),
    Route("HEAD", "/_ping", ping, viewers=True),
    Route("GET", "/version", get_version, action=("host", "system_version"), viewers=True),
    Route("GET", "/info", info, action=("host", "system_info"), viewers=True),
    Route("GET", "/system/df", disk_usage),
    Route("GET", "/plugins", list_plugins),
]

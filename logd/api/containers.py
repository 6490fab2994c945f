"""Containers looked at: list, inspect, top; and removed: delete, prune.

Source: Docker Engine API 1.47, ContainerList and its neighbours; the order in which filters apply, dockerd 27.
"""

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from logd.api import viewers
from logd.api.call import Call, Route, Version, answer, done
from logd.api.filters import Filters, parse_filters
from logd.errors import Conflict, InvalidParameter, NotFound
from logd.network.state import PREDEFINED

if TYPE_CHECKING:
    from logd.container import Container

LIST_FILTERS: Final = frozenset(
    (
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "is-task",
        "isolation",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    )
)
PRUNE_FILTERS: Final = frozenset(("label", "label!", "until"))
STATES: Final = frozenset(("created", "dead", "exited", "paused", "removing", "restarting", "running"))
HEALTH: Final = frozenset(("healthy", "none", "starting", "unhealthy"))


async def list_containers(call: Call) -> web.Response:
    """GET /containers/json."""
    filters = parse_filters(call.text("filters")).only(LIST_FILTERS)
    limit = max(call.number("limit") or 0, 0)
    wanted = Selection(call, filters, everything=call.flag("all") or limit > 0 or "status" in filters)
    shown: list[dict[str, Any]] = []
    for container in wanted.newest_first():
        if limit and len(shown) == limit:
            break
        summary = call.engine.summary(container)
        if wanted.includes(container, summary):
            shown.append(summary)
            if call.flag("size"):
                shown[-1] = await asyncio.to_thread(call.engine.summary, container, size=True)
    return answer([viewers.summary(item) for item in shown] if call.viewer else shown)


class Selection:
    """The filters of a list, checked once and then applied to each container."""

    def __init__(self, call: Call, filters: Filters, *, everything: bool) -> None:
        self._call = call
        self._filters = filters
        self._everything = everything
        self._exited = {_exit_code(value) for value in filters.get("exited", [])}
        self._is_task = filters.flag("is-task")
        self._published = _ports(filters, "publish")
        self._exposed = _ports(filters, "expose")
        self._images = _with_children(call, filters.get("ancestor", []))
        for state in filters.get("status", []):
            if state not in STATES:
                raise InvalidParameter(f"invalid filter 'status={state}'")
        for health in filters.get("health", []):
            if health not in HEALTH:
                raise InvalidParameter(f"unrecognized filter value for health: {health}")

    def newest_first(self) -> "list[Container]":
        """Return the containers between the filters `since` and `before`, both exclusive."""
        containers = sorted(self._call.engine.containers(), key=lambda one: one.created_ns, reverse=True)
        for name in self._filters.get("before", []):
            containers = containers[_index(containers, self._call.engine.get(name)) + 1 :]
        for name in self._filters.get("since", []):
            containers = containers[: _index(containers, self._call.engine.get(name))]
        return containers

    def includes(self, container: "Container", summary: dict[str, Any]) -> bool:
        """Say whether a container passes; `summary` is what the list shows of it."""
        state, filters = container.state, self._filters
        return (
            (self._everything or state.running)
            and filters.matches("name", container.name, f"/{container.name}")
            and self._has_id(container.id)
            and self._is_task is not True
            and filters.has_labels("label", container.spec.labels)
            and (
                "exited" not in filters
                or (state.exit_code in self._exited and not state.running and state.started_ns > 0)
            )
            and filters.equals("status", state.status)
            and filters.equals("health", state.health.status if state.health else "none")
            and ("ancestor" not in filters or container.image_id in self._images)
            and self._has_volume(summary)
            and self._has_network(summary)
            and self._has_port(summary)
        )

    def _has_id(self, container_id: str) -> bool:
        wanted = self._filters.get("id")
        return not wanted or any(container_id.startswith(prefix) for prefix in wanted if prefix)

    def _has_volume(self, summary: dict[str, Any]) -> bool:
        places = {mount.get(key) for mount in summary["Mounts"] for key in ("Name", "Source", "Destination")}
        return "volume" not in self._filters or not places.isdisjoint(self._filters["volume"])

    def _has_network(self, summary: dict[str, Any]) -> bool:
        if "network" not in self._filters:
            return True
        networks: dict[str, Any] = (summary.get("NetworkSettings") or {}).get("Networks") or {}
        ids = [network.get("NetworkID", "") for network in networks.values()]
        return any(
            wanted in networks or any(one.startswith(wanted) for one in ids if wanted)
            for wanted in self._filters["network"]
        )

    def _has_port(self, summary: dict[str, Any]) -> bool:
        if not (self._published or self._exposed):
            return True
        return any(
            (port.get("PublicPort", 0), port["Type"]) in self._published
            or (port["PrivatePort"], port["Type"]) in self._exposed
            for port in summary["Ports"]
        )


def _index(containers: "list[Container]", container: "Container") -> int:
    """Return the place in the list, its end for one that another filter has cut off."""
    return containers.index(container) if container in containers else len(containers)


def _exit_code(value: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", value):
        raise InvalidParameter(f"invalid filter 'exited={value}': parsing \"{value}\": invalid syntax")
    return int(value)


def _ports(filters: Filters, name: str) -> set[tuple[int, str]]:
    """Return (port, protocol) of values such as `80`, `53/udp`, `8000-8010/tcp`."""
    ports: set[tuple[int, str]] = set()
    for value in filters.get(name, []):
        if ":" in value:
            raise InvalidParameter(f"filter for '{name}' should not contain ':': {value}")
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", value)
        if not match or not int(match[1]) <= int(match[2] or match[1]) <= 65535:
            raise InvalidParameter(f"error while looking up for {name} {value}: invalid port or range")
        ports |= {(port, match[3] or "tcp") for port in range(int(match[1]), int(match[2] or match[1]) + 1)}
    return ports


def _with_children(call: Call, ancestors: list[str]) -> set[str]:
    """Return the ids of the images and of all built from them; an unknown name is no image."""
    found: set[str] = set()
    for reference in ancestors:
        try:
            found.add(call.parts.images.resolve(reference).id)
        except (NotFound, InvalidParameter):
            continue
    images = call.parts.images.list() if found else []
    size = 0
    while size != len(found):
        size = len(found)
        found |= {image.id for image in images if image.parent in found}
    return found


async def inspect_container(call: Call) -> web.Response:
    """GET /containers/{name}/json."""
    container = call.engine.get(call.name)
    if call.flag("size"):
        shown = await asyncio.to_thread(call.engine.inspect, container, size=True)
    else:
        shown = call.engine.inspect(container)
    if call.version < Version(1, 45):
        _name_by_id(container, shown)
    if call.viewer:
        return answer(viewers.container(shown))
    return answer(shown | {"Logd": {"Drivers": await call.engine.deliveries(container.id)}})


def _name_by_id(container: "Container", shown: dict[str, Any]) -> None:
    """Enter the short id and the host name as aliases, where they were before API 1.45; Compose v1 looks for them."""
    for network, endpoint in shown["NetworkSettings"]["Networks"].items():
        if network not in PREDEFINED:
            names = (*(endpoint["Aliases"] or ()), container.id[:12], container.spec.hostname)
            endpoint["Aliases"] = list(dict.fromkeys(one for one in names if one))


async def top(call: Call) -> web.Response:
    """GET /containers/{name}/top."""
    ps_args = call.text("ps_args")
    titles, processes = await call.engine.top(call.name, viewers.ps_args(ps_args) if call.viewer else ps_args)
    return answer({"Processes": processes, "Titles": titles})


async def delete_container(call: Call) -> web.Response:
    """DELETE /containers/{name}."""
    if call.flag("link"):
        call.engine.get(call.name)
        raise Conflict("Conflict, cannot remove the default link name of the container")  # and it has no others
    await call.engine.remove(call.name, force=call.flag("force"), volumes=call.flag("v"))
    return done()


async def prune(call: Call) -> web.Response:
    """POST /containers/prune."""
    filters = parse_filters(call.text("filters")).only(PRUNE_FILTERS)
    deleted, reclaimed = await call.engine.prune(filters)
    return answer({"ContainersDeleted": deleted or None, "SpaceReclaimed": reclaimed})


ROUTES: Final = [
    Route("GET", "/containers/json", list_containers, viewers=True),
    Route("GET", "/containers/{name}/json", inspect_container, viewers=True),
    Route("GET", "/containers/{name}/top", top, viewers=True),
    Route("DELETE", "/containers/{name}", delete_container, lasting=True, action=("container", "delete")),
    Route("POST", "/containers/prune", prune, lasting=True),
]

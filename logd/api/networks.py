"""Networks: a container has a loopback interface only, or the host's network. Both are listed, none can be made.

Source: Docker Engine API 1.47, Network.
"""

import time
from typing import Any, Final

from aiohttp import web

from logd.api.call import Call, Route, answer
from logd.api.filters import Filters, parse_filters
from logd.errors import Forbidden, NotFound
from logd.units import format_time_short

LIST_FILTERS: Final = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
PRUNE_FILTERS: Final = frozenset(("label", "label!", "until"))


def _all_networks() -> list[dict[str, Any]]:
    """Return the two networks; they have been there since the machine booted."""
    created = format_time_short(time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    return [
        {
            "Name": name,
            "Id": (name.encode().hex() * 64)[:64],
            "Created": created,
            "Scope": "local",
            "Driver": driver,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": None},
            "Internal": False,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": {},
            "Options": {},
            "Labels": {},
        }
        for name, driver in (("none", "null"), ("host", "host"))
    ]


def _fits(network: dict[str, Any], filters: Filters) -> bool:
    return (
        filters.matches("name", network["Name"])
        and filters.matches("id", network["Id"])
        and filters.equals("driver", network["Driver"])
        and filters.equals("scope", network["Scope"])
        and filters.equals("type", "builtin")
        and filters.has_labels("label", network["Labels"])
        and filters.flag("dangling") is not True
    )


async def list_networks(call: Call) -> web.Response:
    """GET /networks."""
    filters = parse_filters(call.text("filters")).only(LIST_FILTERS)
    return answer([network for network in _all_networks() if _fits(network, filters)])


async def inspect_network(call: Call) -> web.Response:
    """GET /networks/{name}."""
    for network in _all_networks():
        if call.name == network["Name"] or network["Id"].startswith(call.name):
            return answer(network)
    raise NotFound(f"network {call.name} not found")


async def delete_network(call: Call) -> web.Response:
    """DELETE /networks/{name}: those that there are can't be removed."""
    for network in _all_networks():
        if call.name in {network["Name"], network["Id"]}:
            raise Forbidden(f"{network['Name']} is a pre-defined network and cannot be removed")
    raise NotFound(f"network {call.name} not found")


async def prune(call: Call) -> web.Response:
    """POST /networks/prune: there is never one to remove."""
    parse_filters(call.text("filters")).only(PRUNE_FILTERS)
    return answer({"NetworksDeleted": None})


ROUTES: Final = [
    Route("GET", "/networks", list_networks),
    Route("GET", "/networks/{name}", inspect_network),
    Route("DELETE", "/networks/{name}", delete_network),
    Route("POST", "/networks/prune", prune),
]

"""Networks: made, listed, inspected and removed, and containers connected to them and disconnected.

Source: Docker Engine API 1.47, Network.
"""

from collections.abc import Iterable
from typing import Any, Final

from aiohttp import web

from logd.api.call import NEWEST, Call, Route, answer, done
from logd.api.filters import Filters, parse_filters
from logd.container import Container
from logd.engine.network_settings import read_endpoint
from logd.engine.network_shapes import network_shape
from logd.errors import InvalidParameter
from logd.network.requests import read_request
from logd.network.state import Endpoint, Network

LIST_FILTERS: Final = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
TYPES: Final = ("builtin", "custom")


def _fits(call: Call, network: Network, filters: Filters) -> bool:
    dangling = filters.flag("dangling")
    return (
        filters.matches("name", network.name)
        and filters.matches("id", network.id)
        and filters.equals("driver", network.driver)
        and filters.equals("scope", "local")
        and filters.equals("type", TYPES[not network.predefined])
        and filters.has_labels("label", network.labels)
        and (dangling is None or dangling == (not network.predefined and not call.engine.networks.users(network)))
    )


def _shape(call: Call, network: Network, members: Iterable[tuple[Container, Endpoint]] = ()) -> dict[str, Any]:
    """Return Docker's Network. EnableIPv4 came with API 1.48, whose clients speak the newest version that is ours."""
    shown = network_shape(network, members)
    return shown | {"EnableIPv4": True} if call.version >= NEWEST else shown


async def list_networks(call: Call) -> web.Response:
    """GET /networks."""
    filters = parse_filters(call.text("filters")).only(LIST_FILTERS)
    for wanted in filters.get("type", []):
        if wanted not in TYPES:
            raise InvalidParameter(f"invalid filter: 'type'='{wanted}'")
    shown = [network for network in call.engine.networks.all() if _fits(call, network, filters)]
    return answer([_shape(call, network) for network in shown])


async def inspect_network(call: Call) -> web.Response:
    """GET /networks/{name}."""
    networks = call.engine.networks
    if call.text("scope") not in {"", "local"}:
        raise InvalidParameter(f"network scope {call.text('scope')!r} (accepted: local)")
    network = networks.get(call.name)
    return answer(_shape(call, network, networks.members_of(network)))


async def create_network(call: Call) -> web.Response:
    """POST /networks/create."""
    network = await call.engine.networks.create(read_request(await call.json()))
    return answer({"Id": network.id, "Warning": ""}, 201)


async def delete_network(call: Call) -> web.Response:
    """DELETE /networks/{name}."""
    await call.engine.networks.remove(call.name)
    return done()


async def connect(call: Call) -> web.Response:
    """POST /networks/{name}/connect: at once if the container runs, else from its next start on."""
    body = _named(await call.json())
    settings = read_endpoint(body.get("endpointconfig"), "EndpointConfig.")
    await call.engine.connect(call.name, _container(body), settings)
    return done(200)


async def disconnect(call: Call) -> web.Response:
    """POST /networks/{name}/disconnect."""
    body = _named(await call.json())
    await call.engine.disconnect(call.name, _container(body))
    return done(200)


async def prune(call: Call) -> web.Response:
    """POST /networks/prune: remove those that no container is to be in."""
    removed = await call.engine.networks.prune(parse_filters(call.text("filters")))
    return answer({"NetworksDeleted": removed or None})


def _named(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields by their names in lower case, as Go reads them."""
    return {name.lower(): value for name, value in body.items()}


def _container(body: dict[str, Any]) -> str:
    ref = body.get("container")
    if not isinstance(ref, str) or not ref:
        raise InvalidParameter("Container: the id or name of a container is needed")
    return ref


ROUTES: Final = [
    Route("GET", "/networks", list_networks),
    Route("GET", "/networks/{name}", inspect_network),
    Route("POST", "/networks/create", create_network, lasting=True),
    Route("DELETE", "/networks/{name}", delete_network, lasting=True),
    Route("POST", "/networks/{name}/connect", connect, lasting=True),
    Route("POST", "/networks/{name}/disconnect", disconnect, lasting=True),
    Route("POST", "/networks/prune", prune, lasting=True),
]

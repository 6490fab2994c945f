"""What Docker's API has and this daemon does not: each is answered with words that say so, none with "page not found".

The list of paths is that of Docker Engine API 1.47.
"""

from typing import Final

from aiohttp import web

from logd.api.call import Call, Handler, Route, answer
from logd.errors import Unavailable, Unsupported

NO_SWARM: Final = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
"""dockerd's words, and its status 503."""

UNSUPPORTED: Final = {
    "attaching over a WebSocket is not supported": (("GET", "/containers/{name}/attach/ws"),),
    "BuildKit is not supported: build with DOCKER_BUILDKIT=0 (docker), or with `logd build`": (
        ("POST", "/session"),
        ("POST", "/grpc"),
    ),
    "checkpoints are not supported": (
        ("GET", "/containers/{name}/checkpoints"),
        ("POST", "/containers/{name}/checkpoints"),
        ("DELETE", "/containers/{name}/checkpoints/{checkpoint}"),
    ),
    "volumes can't be updated: only the cluster volumes of a swarm can": (("PUT", "/volumes/{name}"),),
    "plugins of Docker's kind are not supported": (
        ("GET", "/plugins/privileges"),
        ("GET", "/plugins/{name:slashes}/json"),
        ("POST", "/plugins/pull"),
        ("POST", "/plugins/create"),
        ("POST", "/plugins/{name:slashes}/enable"),
        ("POST", "/plugins/{name:slashes}/disable"),
        ("POST", "/plugins/{name:slashes}/push"),
        ("POST", "/plugins/{name:slashes}/upgrade"),
        ("POST", "/plugins/{name:slashes}/set"),
        ("DELETE", "/plugins/{name:slashes}"),
    ),
}

SWARM_THINGS: Final = ("nodes", "services", "tasks", "secrets", "configs")
SWARM_VERBS: Final = (
    ("GET", "/{thing}"),
    ("GET", "/{thing}/{name}"),
    ("GET", "/{thing}/{name}/logs"),
    ("POST", "/{thing}/create"),
    ("POST", "/{thing}/{name}/update"),
    ("DELETE", "/{thing}/{name}"),
)
SWARM: Final = (
    ("GET", "/swarm"),
    ("POST", "/swarm/leave"),
    ("POST", "/swarm/update"),
    ("GET", "/swarm/unlockkey"),
    ("POST", "/swarm/unlock"),
    *((method, path.replace("{thing}", thing)) for thing in SWARM_THINGS for method, path in SWARM_VERBS),
)

SWARM_WANTED: Final = (("POST", "/swarm/init"), ("POST", "/swarm/join"))


def _refuse(message: str, error: type[Unsupported | Unavailable]) -> Handler:
    async def handler(call: Call) -> web.StreamResponse:
        raise error(message)

    return handler


async def _no_cache(call: Call) -> web.StreamResponse:
    """POST /build/prune, which `docker system prune` sends too: there is nothing to remove."""
    return answer({"CachesDeleted": None, "SpaceReclaimed": 0})


ROUTES: Final = [
    Route("POST", "/build/prune", _no_cache),
    *(
        Route(method, path, _refuse(message, Unsupported))
        for message, paths in UNSUPPORTED.items()
        for method, path in paths
    ),
    *(Route(method, path, _refuse(NO_SWARM, Unavailable)) for method, path in SWARM),
    *(Route(method, path, _refuse("swarm mode is not supported", Unsupported)) for method, path in SWARM_WANTED),
]

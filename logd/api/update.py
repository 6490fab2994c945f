"""POST /containers/{name}/update: limits, restart policy, and log drivers, which are a field of logd's.

Source: Docker Engine API 1.47, ContainerUpdate.
"""

from typing import Final

from aiohttp import web

from logd.api import drivers
from logd.api.call import Call, Route, answer
from logd.spec import HostConfig, convert


async def update(call: Call) -> web.Response:
    """Change a container; what the body leaves open, or has as 0 or "", stays."""
    body = await call.json()
    logging = drivers.log_config(body["LogConfig"]) if body.get("LogConfig") else None
    asked = convert({name: value for name, value in body.items() if name != "LogConfig"}, HostConfig)
    warnings: list[str] = []
    if asked != HostConfig() or not logging:
        warnings = await call.engine.update(call.name, asked)
    if logging:
        await drivers.change(call, logging)
    return answer({"Warnings": warnings or None})


ROUTES: Final = [Route("POST", "/containers/{name}/update", update, lasting=True)]

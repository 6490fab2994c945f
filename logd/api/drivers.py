"""Log drivers of containers: how they fare, and how they are changed. logd's own endpoints.

    GET    /logd/containers/{name}/drivers          [{"name", "driver", "state", …}, …]: see Deliveries.status
    PUT    /logd/containers/{name}/drivers          {"Type", "Config"}: all of them, as in HostConfig.LogConfig
    POST   /logd/containers/{name}/drivers          {"Driver": "NAME=DRIVER", "Config"}: one more
    DELETE /logd/containers/{name}/drivers/{driver} one less
    POST   /logd/containers/{name}/drivers/default  the daemon's present default: {"Changed", "Type", "Config"}
    GET    /logd/plugins                            drivers, line processors, broken plugins, forwarders

Query: `from`, where a new driver begins (now, start, cursor:NAME, cursor:1:STDOUT:STDERR; default now); `drain`,
whether one that goes first delivers what there is (default true).
"""

from typing import Any, Final

from aiohttp import web

from logd import plugins
from logd.api.call import Call, Route, answer, done
from logd.drivers import docker_plugin
from logd.engine import logopts
from logd.errors import InvalidParameter
from logd.spec import LogConfig


async def show(call: Call) -> web.Response:
    """GET /logd/containers/{name}/drivers."""
    return answer(await call.engine.deliveries(call.name))


async def replace(call: Call) -> web.Response:
    """PUT /logd/containers/{name}/drivers."""
    await change(call, log_config(await call.json()))
    return done()


async def add(call: Call) -> web.Response:
    """POST /logd/containers/{name}/drivers."""
    body = await call.json()
    driver = body.get("Driver")
    if not isinstance(driver, str) or not driver:
        raise InvalidParameter('Driver: name the log driver, as "DRIVER" or "NAME=DRIVER"')
    now = call.engine.get(call.name).host.log_config
    await change(call, logopts.with_driver(now, driver, _strings(body.get("Config") or {})))
    return done()


async def remove(call: Call) -> web.Response:
    """DELETE /logd/containers/{name}/drivers/{driver}."""
    now = call.engine.get(call.name).host.log_config
    await change(call, logopts.without_driver(now, call.names["driver"]))
    return done()


async def apply_default(call: Call) -> web.Response:
    """POST /logd/containers/{name}/drivers/default; 409 for a container that was created with drivers of its own."""
    begin, drain = _how(call)
    changed = await call.engine.apply_default_logging(call.name, begin, drain=drain)
    now = call.engine.get(call.name).host.log_config
    return answer({"Changed": changed, "Type": now.type, "Config": now.config})


async def list_plugins(call: Call) -> web.Response:
    """GET /logd/plugins."""
    found = plugins.load()
    drivers = [{"name": name, "plugin": found.origins[name]} for name in sorted(found.drivers)]
    of_docker = [name for name in await docker_plugin.present() if name not in found.drivers]
    drivers += [{"name": name, "plugin": "Docker plugin"} for name in of_docker]
    broken = [{"plugin": one.plugin, "reason": one.reason} for one in found.broken]
    processors = [factory.name for factory in found.processors]
    return answer(
        {"drivers": drivers, "processors": processors, "broken": broken, "forwarders": call.engine.forwarders()}
    )


async def change(call: Call, new: LogConfig) -> None:
    """Give a container other log drivers, as the query says."""
    begin, drain = _how(call)
    await call.engine.change_logging(call.name, new, begin, drain=drain)


def _how(call: Call) -> tuple[str, bool]:
    return call.text("from") or "now", call.flag("drain", default=True)


def log_config(value: Any) -> LogConfig:
    """Read a body's LogConfig. Raises InvalidParameter."""
    if not isinstance(value, dict) or not isinstance(value.get("Type"), str) or not value["Type"]:
        raise InvalidParameter('LogConfig: an object of Type (text, such as "syslog,audit=fluentd") and Config')
    new = LogConfig(type=value["Type"], config=_strings(value.get("Config") or {}))
    logopts.check(new.type, new.config)
    return new


def _strings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise InvalidParameter("Config: an object of text values, the log-opts by their names")
    return value


ROUTES: Final = [
    Route("GET", "/logd/containers/{name}/drivers", show),
    Route("PUT", "/logd/containers/{name}/drivers", replace),
    Route("POST", "/logd/containers/{name}/drivers", add),
    Route("DELETE", "/logd/containers/{name}/drivers/{driver}", remove),
    Route("POST", "/logd/containers/{name}/drivers/default", apply_default),
    Route("GET", "/logd/plugins", list_plugins),
]

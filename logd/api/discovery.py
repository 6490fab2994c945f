"""Which containers Prometheus is to scrape, as GET /logd/sd answers its http_sd.

    GET /logd/sd?host=HOST    [{"targets": ["HOST:9100"], "labels": {"__metrics_path__": …, "__meta_logd_…": …}}, …]

A container asks for it by its labels, which are those that are known as annotations in Kubernetes:

    prometheus.io/scrape    true
    prometheus.io/port      1 to 65535; needed, unless the container exposes a single TCP port
    prometheus.io/path      /metrics, unless it says another
    prometheus.io/scheme    http, unless it says https

`host` is how Prometheus reaches this machine; without it, Prometheus is on it. Labels come from images too, so they are
data: one that is not as above leaves its container out, and nothing else. A container is left out as well while it does
not run, and if it has no address that Prometheus could reach: on the host's network it has `host`, or 127.0.0.1; in
others its own address on a bridge, or, for a Prometheus elsewhere, the port of this machine that leads to its port.

Source: https://prometheus.io/docs/prometheus/latest/http_sd/ (the whole list each time, empty where there is none).
"""

import ipaddress
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from logd.api.call import Call, Route, answer
from logd.errors import InvalidParameter
from logd.metrics.families import sanitised
from logd.network.firewall import ANY

if TYPE_CHECKING:
    from logd.container import Container
    from logd.network.ports import Published

log = logging.getLogger(__name__)

SCRAPE: Final = "prometheus.io/scrape"
PORT: Final = "prometheus.io/port"
PATH: Final = "prometheus.io/path"
SCHEME: Final = "prometheus.io/scheme"
META: Final = "__meta_logd_container_"
DEFAULT_HOST: Final = "127.0.0.1"
HOST_NAME: Final = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,252}[a-zA-Z0-9_])?")
METRICS_PATH: Final = re.compile(r"/[!-~]{0,1023}")
"""Printable ASCII without a space; Prometheus escapes what has to be, ? and # too."""


async def discover(call: Call) -> web.Response:
    """GET /logd/sd."""
    return answer(target_groups(call.engine.containers(), call.text("host"), call.engine.published))


def target_groups(
    containers: "Iterable[Container]",
    host: str = "",
    published: "Callable[[Container], Sequence[Published]]" = lambda container: (),
) -> list[dict[str, Any]]:
    """Return what Prometheus is to scrape, by the containers' names. Raises InvalidParameter for a bad `host`."""
    address = _address(host) if host else ""
    found: list[dict[str, Any]] = []
    for container in sorted(containers, key=lambda one: one.name):
        if not container.state.running or container.spec.labels.get(SCRAPE) != "true":
            continue
        try:
            found.append(_target_group(container, address, published(container)))
        except InvalidParameter as error:
            log.debug("not a target for Prometheus: %s", error, extra={"container": container.id})
    return found


def _address(text: str) -> str:
    """Return an address or name as it stands before a port; raises InvalidParameter."""
    try:
        address = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        if HOST_NAME.fullmatch(text):
            return text
        raise InvalidParameter(f"host: {text!r} is neither a host's name nor an IP address") from None
    return f"[{address}]" if address.version == 6 else str(address)


def _target_group(container: "Container", host: str, published: "Sequence[Published]") -> dict[str, Any]:
    """Return a target group; raises InvalidParameter with the reason why there is none."""
    labels = container.spec.labels
    return {
        "targets": [_target(container, host, published)],
        "labels": {
            "__metrics_path__": _path(labels.get(PATH, "/metrics")),
            "__scheme__": _scheme(labels.get(SCHEME, "http")),
            f"{META}id": container.id,
            f"{META}name": container.name,
            f"{META}image": container.image_ref or container.image_id,
            **{f"{META}label_{sanitised(name)}": labels[name] for name in sorted(labels)},
        },
    }


def _target(container: "Container", host: str, published: "Sequence[Published]") -> str:
    """Return where a container is reached; `host` is "" for a Prometheus on this machine."""
    port = _port(container)
    if container.host.network_mode == "host":
        return f"{host or DEFAULT_HOST}:{port}"
    if host:
        for one in published:
            if one.protocol == "tcp" and one.container_port == port and one.host_ip in {*ANY, host.strip("[]")}:
                return f"{host}:{one.host_port}"
        raise InvalidParameter(f"port {port} is not published at {host}")
    for endpoint in container.endpoints:
        if address := (endpoint.ipv4 or endpoint.ipv6).partition("/")[0]:
            return f"{_address(address)}:{port}"
    raise InvalidParameter(f"network {container.host.network_mode}: no address that could be reached")


def _port(container: "Container") -> int:
    text = container.spec.labels.get(PORT)
    if text is None:
        exposed = [name.removesuffix("/tcp") for name in container.spec.exposed_ports if name.endswith("/tcp")]
        if len(exposed) != 1:
            raise InvalidParameter(f"{PORT}: missing, and the container exposes {len(exposed)} TCP ports, not 1")
        text = exposed[0]
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 1 << 16:
        raise InvalidParameter(f"{PORT}: {text!r} is not a port (1 to 65535)")
    return int(text)


def _path(text: str) -> str:
    if not METRICS_PATH.fullmatch(text):
        raise InvalidParameter(f"{PATH}: {text!r} is not a path (/…, printable ASCII, at most 1024 characters)")
    return text


def _scheme(text: str) -> str:
    if text not in {"http", "https"}:
        raise InvalidParameter(f"{SCHEME}: {text!r} (accepted: http, https)")
    return text


ROUTES: Final = [Route("GET", "/logd/sd", discover, viewers=True)]

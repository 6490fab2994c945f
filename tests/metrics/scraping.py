"""A scraper that knows nothing but HTTP and the formats, and a daemon that it may ask."""

import gzip
import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PATIENCE_S = 60.0


class Scrape:
    """One page, parsed."""

    def __init__(self, text: str, content_type: str = "text/plain") -> None:
        parse = parse_openmetrics if content_type.startswith("application/openmetrics") else parse_text
        self.text = text
        self.families = {family.name: family for family in parse(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def series(self, metric: str, /, **labels: str) -> list[Any]:
        """Return the samples of a name that have these labels."""
        return [one for one in self.samples if one.name == metric and labels.items() <= one.labels.items()]

    def value(self, metric: str, /, **labels: str) -> float:
        found = self.series(metric, **labels)
        assert len(found) == 1, f"{metric}{labels}: {found}"
        return found[0].value

    def of(self, container: str) -> dict[str, float]:
        """Return the container_* values of a container by name, those without labels of their own."""
        return {one.name: one.value for one in self.samples if one.labels.get("name") == container}


def enable_metrics(daemon: Any, **own: Any) -> None:
    """Have a daemon that has not been started serve metrics; `own` are settings below logd.metrics."""
    settings = json.loads(daemon.config_file.read_text())
    settings["metrics-addr"] = "127.0.0.1:0"
    if own:
        settings["logd"]["metrics"] = own
    daemon.config_file.write_text(json.dumps(settings))


def metrics_address(daemon: Any) -> tuple[str, int]:
    """Return where the daemon says that it serves them."""
    found = re.findall(r"Metrics listen on (\S+):(\d+)", daemon.log())
    return found[-1][0], int(found[-1][1])


def ask(
    where: Any, method: str = "GET", path: str = "/metrics", headers: Mapping[str, str] = {}
) -> tuple[http.client.HTTPResponse, bytes]:
    """Return an answer and its body; `where` is (host, port), or the path of a socket."""
    if isinstance(where, tuple):
        connection = http.client.HTTPConnection(*where, timeout=PATIENCE_S)
    else:
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE_S)
        connection.sock.connect(str(where))
    try:
        connection.request(method, path, headers=dict(headers))
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def scrape(where: Any, accept: str = "", *, compressed: bool = False) -> Scrape:
    headers = {"Accept": accept, "Accept-Encoding": "gzip" if compressed else "identity"}
    response, body = ask(where, headers=headers)
    assert response.status == 200, body
    text = (gzip.decompress(body) if compressed else body).decode()
    return Scrape(text, response.headers["Content-Type"])


def wait_until(condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)

"""GET /metrics: what Prometheus scrapes, on the API's socket; metrics_listener.py serves it at metrics-addr."""

from typing import Final

from aiohttp import web

from logd.api.call import Call, Route
from logd.metrics.exposition import CONTENT_TYPES, accepts_gzip, choose_format
from logd.metrics.scrape import Scraper, Wanted


async def metrics(call: Call) -> web.Response:
    """GET and HEAD /metrics."""
    return await answer(call.parts.metrics, call.request)


async def answer(scraper: Scraper, request: web.BaseRequest) -> web.Response:
    """Return a page in the format that the request prefers, compressed if it may be."""
    style = choose_format(_header(request, "Accept"))
    gzip = accepts_gzip(_header(request, "Accept-Encoding"))
    headers = {"Content-Type": CONTENT_TYPES[style], "Vary": "Accept, Accept-Encoding"}
    if gzip:
        headers["Content-Encoding"] = "gzip"
    body = await scraper.page(Wanted(style, gzip))
    return web.Response(body=body, headers=headers)


def _header(request: web.BaseRequest, name: str) -> str:
    """Return a header; one that was sent several times is one list (RFC 9110 section 5.3)."""
    return ",".join(request.headers.getall(name, []))


ROUTES: Final = [Route("GET", "/metrics", metrics), Route("HEAD", "/metrics", metrics)]

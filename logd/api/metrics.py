"""GET /metrics: what Prometheus scrapes, on the API's socket; metrics_listener.py serves it at metrics-addr."""

from typing import Final

from aiohttp import web

from logd.api.call import Call, Route
from logd.metrics.exposition import CONTENT_TYPES, accepts_gzip, choose_format
from logd.metrics.scrape import Scraper, Wanted

PIECE_BYTES: Final = 256 << 10
"""What is written at once: a transport copies what it could not send yet, again and again."""


async def metrics(call: Call) -> web.StreamResponse:
    """GET and HEAD /metrics."""
    return await answer(call.parts.metrics, call.request)


async def answer(scraper: Scraper, request: web.BaseRequest, *, last: bool = False) -> web.StreamResponse:
    """Send a page in the format that the request prefers, compressed if it may be; `last`: and end the connection."""
    style = choose_format(_header(request, "Accept"))
    gzip = accepts_gzip(_header(request, "Accept-Encoding"))
    body = await scraper.page(Wanted(style, gzip))
    response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPES[style], "Vary": "Accept, Accept-Encoding"})
    response.content_length = len(body)
    if gzip:
        response.headers["Content-Encoding"] = "gzip"
    if last:
        response.force_close()
    await response.prepare(request)
    if request.method != "HEAD":
        for begin in range(0, len(body), PIECE_BYTES):
            await response.write(body[begin : begin + PIECE_BYTES])
    await response.write_eof()
    return response


def _header(request: web.BaseRequest, name: str) -> str:
    """Return a header; one that was sent several times is one list (RFC 9110 section 5.3)."""
    return ",".join(request.headers.getall(name, []))


ROUTES: Final = [Route("GET", "/metrics", metrics, viewers=True), Route("HEAD", "/metrics", metrics, viewers=True)]

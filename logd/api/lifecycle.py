"""Containers moved: start, stop, restart, kill, pause, unpause, wait, rename, resize.

Source: Docker Engine API 1.47.
"""

from typing import Any, Final

from aiohttp import web

from logd.api.call import Call, Route, Version, done, json_line
from logd.errors import InvalidParameter
from logd.runtime.validate import MAX_CELLS

LONGEST_EMPTY_BODY: Final = 7  # bytes; dockerd takes "{}" and "null" for no body


async def start(call: Call) -> web.Response:
    """POST /containers/{name}/start."""
    length = call.request.content_length
    if call.request.can_read_body and (length is None or length > LONGEST_EMPTY_BODY):
        raise InvalidParameter(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    if call.text("checkpoint") or call.text("checkpoint-dir"):
        raise InvalidParameter("checkpoint is not supported: containers start from their image only")
    await call.engine.start(call.name)
    return done()


async def stop(call: Call) -> web.Response:
    """POST /containers/{name}/stop."""
    await call.engine.stop(call.name, _signal(call), call.number("t"))
    return done()


async def restart(call: Call) -> web.Response:
    """POST /containers/{name}/restart."""
    await call.engine.restart(call.name, _signal(call), call.number("t"))
    return done()


def _signal(call: Call) -> str | None:
    """Return the parameter `signal`, which came with API 1.42."""
    return (call.text("signal") or None) if call.version >= Version(1, 42) else None


async def kill(call: Call) -> web.Response:
    """POST /containers/{name}/kill."""
    await call.engine.kill(call.name, call.text("signal"))
    return done()


async def pause(call: Call) -> web.Response:
    """POST /containers/{name}/pause."""
    await call.engine.pause(call.name)
    return done()


async def unpause(call: Call) -> web.Response:
    """POST /containers/{name}/unpause."""
    await call.engine.unpause(call.name)
    return done()


async def wait(call: Call) -> web.StreamResponse:
    """POST /containers/{name}/wait: the head at once, the exit code when there is one; why a start failed, too."""
    container = call.engine.get(call.name)
    condition = call.text("condition") or "not-running"
    waiter = call.engine.waiter(container.id, condition)
    try:
        response = await call.stream("application/json")
        result: dict[str, Any] = {"StatusCode": await waiter}
        if container.state.error and condition != "removed":
            result["Error"] = {"Message": container.state.error}
        await response.write(json_line(result))
        return response
    finally:
        waiter.cancel()


async def rename(call: Call) -> web.Response:
    """POST /containers/{name}/rename."""
    await call.engine.rename(call.name, call.text("name"))
    return done()


async def resize(call: Call) -> web.Response:
    """POST /containers/{name}/resize."""
    rows, columns = terminal_size(call)
    await call.engine.resize(call.name, rows, columns)
    return done(200)


def terminal_size(call: Call) -> tuple[int, int]:
    """Return the rows and columns of a request to resize a terminal. Raises InvalidParameter."""
    rows, columns = call.required_number("h"), call.required_number("w")
    for key, cells in (("h", rows), ("w", columns)):
        if not 0 <= cells <= MAX_CELLS:
            raise InvalidParameter(f'invalid value for "{key}": {cells} (a terminal has 0 to {MAX_CELLS})')
    return rows, columns


ROUTES: Final = [
    Route("POST", "/containers/{name}/start", start, lasting=True, action=("container", "start")),
    Route("POST", "/containers/{name}/stop", stop, lasting=True),
    Route("POST", "/containers/{name}/restart", restart, lasting=True),
    Route("POST", "/containers/{name}/kill", kill, lasting=True),
    Route("POST", "/containers/{name}/pause", pause, lasting=True),
    Route("POST", "/containers/{name}/unpause", unpause, lasting=True),
    Route("POST", "/containers/{name}/wait", wait, stream="wait"),
    Route("POST", "/containers/{name}/rename", rename, lasting=True),
    Route("POST", "/containers/{name}/resize", resize),
]

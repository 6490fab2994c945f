"""Execs: a process beside a container's first one, with a client on its standard streams or without.

An attached start leaves HTTP (see hijack). Its errors come behind the head of the answer, on stdout, as dockerd's do;
but what is known before is answered with its status. Source: Docker Engine API 1.47, Exec; words, dockerd 27.
"""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from msgspec.structs import replace

from logd.api.call import Call, Route, Version, answer, done
from logd.api.hijack import Connection, Hijacked, take_over
from logd.api.logs import stream_type
from logd.engine.detach import DetachKeys, parse_detach_keys
from logd.errors import InvalidParameter, LogdError
from logd.runtime.exec_protocol import TTY
from logd.spec import ExecConfig, convert
from logd.stdcopy import STDERR, STDOUT, frame

if TYPE_CHECKING:
    from logd.engine.exec_record import Exec
    from logd.engine.exec_stream import ExecStream

log = logging.getLogger(__name__)

STREAM_NUMBERS: Final = {"stdout": STDOUT, "stderr": STDERR, TTY: STDOUT}
LARGEST_SIDE: Final = 65535
"""Of a terminal (ioctl_tty(2), struct winsize)."""


async def create(call: Call) -> web.Response:
    """POST /containers/{name}/exec."""
    config = convert(await call.json(), ExecConfig)
    if not config.cmd:
        raise InvalidParameter("No exec command specified")
    config = replace(config, console_size=_size(call, config.console_size))
    created = call.engine.execs.create(call.name, call.engine.get(call.name), config, _keys(config.detach_keys))
    return answer({"Id": created.id}, 201)


def _keys(text: str) -> bytes:
    """Return detach keys, none for the default ones."""
    try:
        return parse_detach_keys(text) if text else b""
    except InvalidParameter as error:  # dockerd has other words here than for attach
        raise InvalidParameter(f"Invalid escape keys ({text}) provided") from error


def _size(call: Call, size: Any) -> list[int]:
    """Return rows and columns, none where they were not given or the client's version does not have them."""
    if not size or call.version < Version(1, 42):
        return []
    if not isinstance(size, list) or len(size) != 2 or not all(_is_side(one) for one in size):
        raise InvalidParameter(f"invalid ConsoleSize {size}: [height, width] is needed, each 0 to {LARGEST_SIDE}")
    return size


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= LARGEST_SIDE


async def start(call: Call) -> web.StreamResponse:
    """POST /exec/{name}/start."""
    options = {name.lower(): value for name, value in (await call.json()).items()}
    is_terminal = bool(options.get("tty"))
    size = _size(call, options.get("consolesize")) if is_terminal else []
    one = call.engine.execs.startable(call.name)
    if options.get("detach"):
        (await call.engine.execs.start(one, attached=False, console_size=size)).close()
        return done(200)
    client = _Client(call, one, multiplexed=not is_terminal)
    try:
        stream = await call.engine.execs.start(one, attached=True, console_size=size)
    except LogdError as error:
        log.info("exec %s: %s", one.id, error, extra={"container": one.container.id})
        await client.complain(f"{error}\r\n")
    else:
        async with stream:
            await client.carry(stream)
    await client.connection.farewell()
    return Hijacked()


class _Client:
    """A client that was answered and whose connection carries the streams from here on."""

    def __init__(self, call: Call, one: "Exec", *, multiplexed: bool) -> None:
        self._execs = call.engine.execs
        self._one = one
        self._multiplexed = multiplexed
        self._keys = DetachKeys(one.detach_keys) if one.detach_keys else DetachKeys()
        self.connection: Connection = take_over(call, stream_type(call, multiplexed=multiplexed))

    async def complain(self, text: str) -> None:
        """Send words of ours, as if the process had printed them."""
        await self._write(STDOUT, text.encode())

    async def carry(self, stream: "ExecStream") -> None:
        """Carry input and output until the process has ended, or the client has gone or detached."""
        output = asyncio.create_task(self._send_all(stream), name="exec: output")
        source = asyncio.create_task(self._receive(stream), name="exec: input")
        try:
            await asyncio.wait((output, source), return_when=asyncio.FIRST_COMPLETED)
            for task in (output, source):
                if task.done():
                    task.result()
        finally:
            output.cancel()
            source.cancel()
            await asyncio.wait((output, source))

    async def _send_all(self, stream: "ExecStream") -> None:
        """Send all outputs to their ends, each at the pace of the client."""
        async with asyncio.TaskGroup() as group:
            for name in stream.outputs:
                group.create_task(self._send(stream, name), name=f"exec: {name}")
        await stream.exited()

    async def _send(self, stream: "ExecStream", name: str) -> None:
        with contextlib.suppress(ConnectionResetError):  # the client has gone, which ends the receiving too
            while data := await stream.read(name):
                await self._write(STREAM_NUMBERS[name], data)

    async def _write(self, number: int, data: bytes) -> None:
        await self.connection.write(frame(number, data) if self._multiplexed else data)

    async def _receive(self, stream: "ExecStream") -> None:
        """Pass input on. Returns when the client has gone or has typed the detach keys."""
        while data := await self.connection.read():
            if self._one.config.tty:
                data = self._keys.feed(data)
            if self._one.config.attach_stdin:
                await stream.write(data)
            if self._keys.found:
                self._execs.detached(self._one)
                return
        stream.close_stdin()
        await self.connection.wait_lost()


async def inspect(call: Call) -> web.Response:
    """GET /exec/{name}/json."""
    return answer(call.engine.execs.get(call.name).inspect())


async def resize(call: Call) -> web.Response:
    """POST /exec/{name}/resize."""
    rows, columns = (_side(call, key) for key in ("h", "w"))
    await call.engine.execs.resize(call.name, rows, columns)
    return done(200)


def _side(call: Call, key: str) -> int:
    value = call.required_number(key)
    if not _is_side(value):
        raise InvalidParameter(f'invalid value for "{key}": {value} (0 to {LARGEST_SIDE})')
    return value


ROUTES: Final = [
    Route("POST", "/containers/{name}/exec", create),
    Route("POST", "/exec/{name}/start", start, stream="exec"),
    Route("POST", "/exec/{name}/resize", resize),
    Route("GET", "/exec/{name}/json", inspect),
]

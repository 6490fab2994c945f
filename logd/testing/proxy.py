"""A proxy for streams, TCP or unix, that has faults when it is told to. TLS goes through it as bytes.

    async with FaultProxy(("127.0.0.1", 24224)) as proxy:
        …                                # connect to proxy.address
        await proxy.become(STALL)        # new connections, and those there are
        await proxy.become(PASS)         # those that suffered are reset, the others go on

Sockets are read by recv(2), only when it is their turn: what is not read stays in the kernel, as with a peer that
hangs.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from logd.testing.faults import PASS, Fault

Address = tuple[str, int] | str
"""Host and port, or the path of a unix socket."""

READ_BYTES: Final = 64 << 10
RECEIVE_BUFFER_BYTES: Final = 64 << 10
"""Little, so that a client soon notices that nothing is read."""
SLOW_READS_PER_S: Final = 20
_RESET: Final = struct.pack("ii", 1, 0)
"""socket(7), SO_LINGER: close(2) sends a reset."""


class FaultProxy:
    """Listens, and passes what comes to `upstream`, as its fault lets it."""

    def __init__(self, upstream: Address, *, listen: Address | None = None) -> None:
        """`listen` is a free port of loopback, or beside the upstream's unix socket, unless it is said."""
        self.upstream = upstream
        self.address: Address = listen or (f"{upstream}.proxy" if isinstance(upstream, str) else ("127.0.0.1", 0))
        self.fault = PASS
        self.accepted = 0
        """How many connections there have been."""
        self.received = 0
        """How many bytes were read of all clients."""
        self.restarts = 0
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._placeholder: socket.socket | None = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._waiters: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> "FaultProxy":
        """Listen and pass everything."""
        if not isinstance(self.address, str):  # the port stays ours while nobody listens there
            self._placeholder = self._bound()
            host, port = self._placeholder.getsockname()[:2]
            self.address = (host, port)
        self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Reset all connections and listen no more."""
        await self._end(self._restarting)
        await self._go_away()
        if self._placeholder is not None:
            self._placeholder.close()
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(str(self.address))

    async def become(self, fault: Fault) -> None:
        """Behave like this from now on. Connections that suffered from what was before are reset."""
        await self._end(self._restarting)
        self._restarting = None
        self.fault = fault
        await self._reset({task: one for task, one in self._connections.items() if one.suffered})
        if not fault.listens:
            await self._go_away()
        elif self._listener is None:
            self._listen()
        if fault.restart_every_s:
            self._restarting = asyncio.create_task(self._restart(fault), name="restarts of the fault proxy")
        self.changed()

    async def until(self, holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until something is true that only connections and what they say can change. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                await self.change()

    async def until_restarted(self, times: int) -> None:
        """Wait until it has been away, by `restart_every`, so many times in all."""
        await self.until(lambda: self.restarts >= times)

    async def change(self) -> None:
        """Wait until anything happens."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        await waiter

    def changed(self) -> None:
        """Have whoever waits look."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def _bound(self) -> socket.socket:
        if isinstance(self.address, str):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.address)
            made = socket.socket(socket.AF_UNIX)
        else:
            made = socket.socket(socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        made.setblocking(False)
        made.bind(self.address)
        return made

    def _listen(self) -> None:
        self._listener = self._bound()
        self._listener.listen()
        self._accepting = asyncio.create_task(self._accept(self._listener), name="fault proxy")

    async def _go_away(self) -> None:
        """Listen no more, and reset what is connected."""
        await self._end(self._accepting)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._reset(dict(self._connections))

    @staticmethod
    async def _reset(connections: "dict[asyncio.Task[None], _Connection]") -> None:
        for connection in connections.values():
            connection.reset()
        if connections:
            await asyncio.wait(connections)

    async def _restart(self, fault: Fault) -> None:
        while True:
            await asyncio.sleep(fault.restart_every_s)
            await self._go_away()
            await asyncio.sleep(fault.away_s)
            self._listen()
            self.restarts += 1
            self.changed()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = await asyncio.get_running_loop().sock_accept(listener)
            self.accepted += 1
            connection = _Connection(self, client)
            task = asyncio.create_task(connection.run(), name="proxied connection")
            connection.task = task
            self._connections[task] = connection
            task.add_done_callback(self._connections.pop)
            self.changed()

    @staticmethod
    async def _end(task: "asyncio.Task[None] | None") -> None:
        if task is not None:
            task.cancel()
            await asyncio.wait({task})


class _Connection:
    """One client's."""

    def __init__(self, proxy: FaultProxy, client: socket.socket) -> None:
        self.suffered = False
        """Whether something is missing: it can't go on as if nothing had been."""
        self.task: asyncio.Task[None] | None = None
        self._proxy = proxy
        self._client = client
        self._client.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._passed = 0
        self._answers = 0
        self._is_orderly = False

    def reset(self) -> None:
        """End it as a crash does."""
        if self.task is not None:
            self.task.cancel()

    async def run(self) -> None:
        """Pass both ways until both sides have ended; else reset."""
        upstream = None
        try:
            upstream = await self._connect()
            ways = self._forward(upstream), self._backward(upstream)
            is_done = await _all(*(asyncio.create_task(way, name="proxied way") for way in ways))
            self._is_orderly = self._is_orderly or is_done
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            if not self._is_orderly:
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._client.close()
            if upstream is not None:
                upstream.close()
            self._proxy.changed()

    async def _connect(self) -> socket.socket:
        address = self._proxy.upstream
        if isinstance(address, str):
            made = socket.socket(socket.AF_UNIX)
        else:
            made = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        made.setblocking(False)
        try:
            await self._loop.sock_connect(made, address)
        except BaseException:
            made.close()
            raise
        return made

    async def _forward(self, upstream: socket.socket) -> bool:
        """Pass what the client says; true at its end, false once all is to end."""
        while True:
            while not self._proxy.fault.reads:
                self.suffered = True
                await self._proxy.change()
            rate = self._proxy.fault.bytes_per_s
            data = await self._loop.sock_recv(self._client, rate // SLOW_READS_PER_S or READ_BYTES)
            if not data:
                upstream.shutdown(socket.SHUT_WR)
                return True
            self._proxy.received += len(data)
            self._proxy.changed()
            fault = self._proxy.fault
            if not fault.passes or not fault.reads:
                self.suffered = True
                continue
            if fault.reset_at and self._passed + len(data) >= fault.reset_at:
                await self._loop.sock_sendall(upstream, data[: fault.reset_at - self._passed])
                return False
            self._passed += len(data)
            if fault.bytes_per_s:
                await self._rest(fault, len(data) / fault.bytes_per_s)
            await self._loop.sock_sendall(upstream, data)

    async def _rest(self, fault: Fault, seconds: float) -> None:
        """Wait, but not when that fault is over."""
        until = self._loop.time() + seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while self._proxy.fault is fault:
                    await self._proxy.change()

    async def _backward(self, upstream: socket.socket) -> bool:
        """Pass what the destination says; true at its end, false once all is to end."""
        while True:
            data = await self._loop.sock_recv(upstream, READ_BYTES)
            fault = self._proxy.fault
            if not fault.passes or not fault.reads or not fault.answers:
                self.suffered = True
                if not data:
                    return True
                continue
            if not data:
                self._client.shutdown(socket.SHUT_WR)
                return True
            if fault.whole_answers is not None:
                self._answers += 1
                if self._answers > fault.whole_answers:
                    await self._loop.sock_sendall(self._client, data[: len(data) // 2])
                    self._is_orderly = True
                    return False
            await self._loop.sock_sendall(self._client, data)


async def _all(*ways: "asyncio.Task[bool]") -> bool:
    """Tell whether all tasks return true; as soon as one does not, or fails, the others are cancelled."""
    waiting = set(ways)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not all(one.result() for one in done):
                return False
    finally:
        for one in ways:
            one.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    return True

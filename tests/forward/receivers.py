"""Destinations for containers that print loggen's lines: real servers and peers, behind a proxy that has faults.

A receiver says which log-opts lead to it, and the numbers of the lines that have arrived, in their order.
"""

import asyncio
import json
import signal
import socket
import ssl
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web

sys.path.append(str(Path(__file__).parents[1] / "drivers"))

from certificates import make_ca, make_certificate
from forward_peer import Answer, Connection, ForwardPeer, Message, acknowledge
from gelf_peer import TcpInput
from journald_peer import Journald
from journald_peer import message as journald_message
from rsyslog import Rsyslog
from splunk_peer import TOKEN, Collector

from logd.testing.faults import PASS, Fault
from logd.testing.proxy import FaultProxy

LOOK_S = 0.1
IMPATIENT = ("send-timeout=5s",)
"""So that a destination that does not answer is noticed within a test."""


LINE_BYTES = 100
TORN = -1
"""The number of a line that has not arrived whole."""


def number(line: bytes | str) -> int:
    """Return which one a line of loggen's is."""
    return int(line[1:11])


class Receiver(ABC):
    """One destination, between `start` and `stop`."""

    driver: str
    acknowledges = False
    """Whether the protocol has an acknowledgement: then no line may be lost, whatever happens."""

    @abstractmethod
    async def start(self) -> None:
        """Serve."""

    @abstractmethod
    async def stop(self) -> None:
        """Serve no more, for good."""

    @abstractmethod
    async def become(self, fault: Fault) -> None:
        """Have a fault, or none any more."""

    @abstractmethod
    async def restart(self) -> None:
        """Be gone for a moment, as when the server is started anew."""

    @abstractmethod
    def opts(self) -> list[str]:
        """Return the driver's own log-opts that lead here."""

    @property
    @abstractmethod
    def arrived(self) -> Sequence[int]:
        """The numbers of the lines that are here, in the order in which they came. It only grows."""

    async def heal(self) -> None:
        """Have no fault any more."""
        await self.become(PASS)

    def flags(self) -> list[str]:
        """Return what to tell `docker create`."""
        opts = [*self.opts(), *IMPATIENT]
        return ["--log-driver", self.driver, *(word for one in opts for word in ("--log-opt", one))]


class Certificates:
    """An authority that clients trust, a server's certificate that is in order, and others that are not."""

    def __init__(self, folder: Path) -> None:
        self.ca = make_ca(folder, "ca")
        self.server = make_certificate(self.ca, "server")
        self.bad = {
            "expired": make_certificate(self.ca, "expired", days=-1),
            "of another host": make_certificate(self.ca, "other-host", host="example.com"),
            "of another authority": make_certificate(make_ca(folder, "other-ca"), "other-server"),
        }

    def context(self, certificate: Path | None = None) -> ssl.SSLContext:
        """Return a server's context."""
        certificate = certificate or self.server
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(certificate, certificate.with_suffix(".key"))
        return made


class Proxied(Receiver):
    """One behind a fault proxy. Over TLS, if there are certificates; the proxy passes bytes."""

    def __init__(self, certificates: Certificates | None = None) -> None:
        self.certificates = certificates
        self.proxy = FaultProxy(("127.0.0.1", 0))

    @property
    def address(self) -> str:
        """Host and port for clients; certificates are for the name."""
        return f"{'localhost' if self.certificates else '127.0.0.1'}:{self.proxy.address[1]}"

    async def start(self) -> None:
        self.proxy.upstream = ("127.0.0.1", await self.serve())
        await self.proxy.__aenter__()

    async def stop(self) -> None:
        await self.proxy.__aexit__()
        await self.end()

    async def become(self, fault: Fault) -> None:
        await self.proxy.become(fault)

    async def restart(self) -> None:
        await self.end()
        await self.serve()

    @abstractmethod
    async def serve(self) -> int:
        """Begin to serve; return the port, each time the same."""

    @abstractmethod
    async def end(self) -> None:
        """End the server as a crash does."""


async def every_second(peer: ForwardPeer, connection: Connection, message: Message) -> None:
    if len(peer.messages) % 2:
        connection.ack(message.chunk)


async def twice_and_unknown(peer: ForwardPeer, connection: Connection, message: Message) -> None:
    connection.ack(b"bm9uZQ==", message.chunk, message.chunk)


class Fluentd(Proxied):
    driver = "fluentd"
    acknowledges = True

    def __init__(self, certificates: Certificates | None = None) -> None:
        super().__init__(certificates)
        self.peer = ForwardPeer(self._answer, tls=certificates.context() if certificates else None)
        self.answer: Answer = acknowledge
        self._arrived: list[int] = []
        self._seen = 0

    async def _answer(self, peer: ForwardPeer, connection: Connection, message: Message) -> None:
        self._arrived += map(number, message.lines)
        await self.answer(peer, connection, message)

    async def serve(self) -> int:
        await self.peer.__aenter__()
        return self.peer.port

    async def end(self) -> None:
        await self.peer.__aexit__()

    async def heal(self) -> None:
        self.answer = acknowledge
        await super().heal()

    def opts(self) -> list[str]:
        scheme = "tls://" if self.certificates else ""
        authority = [f"fluentd-tls-ca-cert={self.certificates.ca}"] if self.certificates else []
        return [f"fluentd-address={scheme}{self.address}", "fluentd-read-timeout=1s", *authority]

    @property
    def arrived(self) -> Sequence[int]:
        return self._arrived


class OddCollector(Collector):
    """One that may say more, or less, than it should about what is indexed."""

    says_more = False
    indexes_half = False

    async def _ack(self, request: web.Request) -> web.StreamResponse:
        if self.indexes_half:
            for channel in self.channels.values():
                channel.indexed.update(dict.fromkeys(list(channel.indexed)[::2], True))
        response = await super()._ack(request)
        if not self.says_more:
            return response
        assert isinstance(response, web.Response)
        assert isinstance(response.body, bytes)
        acks = json.loads(response.body)["acks"]
        told = [*acks.items(), *acks.items(), ("4000000000", True), ("no number", True)]
        text = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in told)
        return web.Response(text=f'{{"acks": {{{text}}}}}', content_type="application/json")


class Splunk(Proxied):
    driver = "splunk"
    acknowledges = True

    def __init__(self, certificates: Certificates | None = None) -> None:
        super().__init__(certificates)
        self.collector = OddCollector(acks=True)
        self._arrived: list[int] = []

    async def serve(self) -> int:
        await self.collector.start(self.certificates.server if self.certificates else None)
        return self.collector.port

    async def end(self) -> None:
        await self.collector.stop()

    async def restart(self) -> None:
        await self.collector.stop()
        self.collector.channels.clear()
        self.collector.held = asyncio.Event()
        await self.serve()

    async def heal(self) -> None:
        self.collector.says_more = self.collector.indexes_half = False
        self.collector.index_at_once = True
        self.collector.index_all()
        await super().heal()

    def opts(self) -> list[str]:
        scheme = "https" if self.certificates else "http"
        authority = [f"splunk-capath={self.certificates.ca}"] if self.certificates else []
        url = f"splunk-url={scheme}://{self.address}"
        return [url, f"splunk-token={TOKEN}", "splunk-index-acknowledgment=true", *authority]

    @property
    def arrived(self) -> Sequence[int]:
        self._arrived += [number(one["event"]["line"]) for one in self.collector.events[len(self._arrived) :]]
        return self._arrived


class Gelf(Proxied):
    driver = "gelf"

    def __init__(self, certificates: Certificates | None = None) -> None:
        super().__init__(certificates)
        self.server = TcpInput()
        self._arrived: list[int] = []

    async def serve(self) -> int:
        await self.server.start(self.certificates.server if self.certificates else None)
        return self.server.port

    async def end(self) -> None:
        await self.server.stop()

    def opts(self) -> list[str]:
        scheme = "tls" if self.certificates else "tcp"
        authority = [f"gelf-tls-ca-cert={self.certificates.ca}"] if self.certificates else []
        return [f"gelf-address={scheme}://{self.address}", *authority]

    @property
    def arrived(self) -> Sequence[int]:
        self._arrived += [number(one["short_message"]) for one in self.server.messages[len(self._arrived) :]]
        return self._arrived


class Syslog(Proxied):
    """A real rsyslogd. What it has read is in its file a little later."""

    driver = "syslog"

    def __init__(self, folder: Path, certificates: Certificates | None = None) -> None:
        super().__init__(certificates)
        if certificates:
            self.server = Rsyslog(folder, ca=certificates.ca, certificate=certificates.server)
        else:
            self.server = Rsyslog(folder)
        self._arrived: list[int] = []

    async def serve(self) -> int:
        await asyncio.to_thread(self.server.start)
        return self.server.ports["tcp" if self.certificates else "ptcp"]

    async def end(self) -> None:
        await asyncio.to_thread(self.server.stop, signal.SIGTERM)

    def opts(self) -> list[str]:
        scheme = "tcp+tls" if self.certificates else "tcp"
        authority = [f"syslog-tls-ca-cert={self.certificates.ca}"] if self.certificates else []
        return [f"syslog-address={scheme}://{self.address}", "syslog-format=rfc5424micro", "tag=t", *authority]

    @property
    def arrived(self) -> Sequence[int]:
        texts = [one["msg"] for one in self.server.messages("t")[len(self._arrived) :]]
        self._arrived += [number(one) if len(one) == LINE_BYTES - 1 else TORN for one in texts]
        return self._arrived


class Journal(Receiver):
    """A real systemd-journald. It has no proxy: a fault is that it is gone, with its socket, or does not read."""

    driver = "journald"

    def __init__(self, folder: Path) -> None:
        self.server = Journald(folder)
        self._is_stopped = False

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop, signal.SIGKILL)

    async def become(self, fault: Fault) -> None:
        if not fault.listens:
            await asyncio.to_thread(self.server.stop)
            self.server.socket.unlink(missing_ok=True)
        elif self.server.process is None:
            await self.start()
        if fault.reads and self._is_stopped:
            self.server.kill(signal.SIGCONT)
        elif not fault.reads:
            self.server.kill(signal.SIGSTOP)
        self._is_stopped = not fault.reads

    async def restart(self) -> None:
        await asyncio.to_thread(self.server.stop)
        await asyncio.to_thread(self.server.start)

    def opts(self) -> list[str]:
        return [f"journald-socket={self.server.socket}"]

    @property
    def arrived(self) -> Sequence[int]:
        return [
            number(journald_message(one))
            for one in self.server.entries("SYSLOG_IDENTIFIER=t", "--output-fields=MESSAGE")
        ]

    def flags(self) -> list[str]:
        return [*super().flags(), "--log-opt", "tag=t"]


class Impostor:
    """A TLS server with a certificate of its own; `heard` is what clients have entrusted to it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.heard = b""
        self.port = 0

    async def __aenter__(self) -> "Impostor":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context, family=socket.AF_INET)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heard += await reader.read(1 << 16)
        except OSError:
            pass
        finally:
            writer.close()


Maker = Callable[[Path, Certificates | None], Receiver]
MAKERS: dict[str, Maker] = {
    "journald": lambda folder, _: Journal(folder),
    "syslog tcp": Syslog,
    "syslog tls": Syslog,
    "fluentd": lambda _, certificates: Fluentd(certificates),
    "fluentd tls": lambda _, certificates: Fluentd(certificates),
    "splunk": lambda _, certificates: Splunk(certificates),
    "splunk tls": lambda _, certificates: Splunk(certificates),
    "gelf tcp": lambda _, certificates: Gelf(certificates),
    "gelf tls": lambda _, certificates: Gelf(certificates),
}


def make_receiver(name: str, folder: Path) -> Receiver:
    """Return a receiver of that name, with files of its own below `folder`."""
    for one in (folder / "certificates", folder / "server"):
        one.mkdir(parents=True)
    return MAKERS[name](folder / "server", Certificates(folder / "certificates") if name.endswith("tls") else None)

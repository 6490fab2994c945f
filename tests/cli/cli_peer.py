"""A small daemon on a real unix socket: it speaks HTTP/1.1 and the log frames, and answers from a script."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

FRAME = struct.Struct(">BxxxIQQ")
SECOND = 1_000_000_000
BASE = 1_700_000_000 * SECOND  # 2023-11-14T22:13:20Z

Answer = Iterable[bytes]  # pieces of a chunked body, sent one by one
Handler = Callable[["Request"], "Answer | tuple[int, object] | None"]


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    connection: socket.socket


def run(stream: int, seconds: float, position: int, data: bytes) -> bytes:
    return FRAME.pack(stream, len(data), BASE + int(seconds * SECOND), position) + data


def out(seconds: float, position: int, data: bytes) -> bytes:
    return run(1, seconds, position, data)


def err(seconds: float, position: int, data: bytes) -> bytes:
    return run(2, seconds, position, data)


def gap(seconds: float, stream: int, position: int, length: int, reason: str) -> bytes:
    body = json.dumps({"stream": stream, "length": length, "reason": reason}).encode()
    return run(3, seconds, position, body)


def failure(text: str) -> bytes:
    return run(4, 0, 0, text.encode())


def start(stdout: int, stderr: int) -> bytes:
    return run(6, 0, 0, f"1:{stdout}:{stderr}".encode())


END = run(5, 0, 0, b"")


class Peer:
    """`routes` maps "GET /path" to a handler: it returns pieces of a body, or (status, JSON), or None (it answered)."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "peer.sock"
        self.host = f"unix://{self.path}"
        self.routes: dict[str, Handler] = {}
        self.requests: list[Request] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(100)
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="peer")
        self._acceptor.start()

    def container(self, name: str, answer: Callable[[], Answer], **detail: Any) -> str:
        """Add a container whose log is `answer()`, and return its id."""
        identity = detail.pop("id", None) or (name.encode().hex() * 16)[:64].ljust(64, "0")
        described = {"Id": identity, "Name": f"/{name}", **detail}
        for ref in (name, identity):
            self.routes[f"GET /containers/{ref}/json"] = lambda _, d=described: (200, d)
            self.routes[f"GET /logd/containers/{ref}/logs"] = lambda _: answer()
        return identity

    def queries(self, path: str) -> list[dict[str, str]]:
        return [request.query for request in self.requests if request.path == path]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="peer connection")
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                request = read_request(connection)
                if request is None:
                    return
                self.requests.append(request)
                handler = self.routes.get(f"{request.method} {request.path}")
                answer = handler(request) if handler else (404, {"message": f"No such container: {request.path}"})
                if isinstance(answer, tuple):
                    send_json(connection, *answer)
                elif answer is not None:
                    send_pieces(connection, answer)
            except (BrokenPipeError, ConnectionResetError):
                return


def read_request(connection: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        while not rest.endswith(b"0\r\n\r\n"):
            rest += connection.recv(65536)
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    else:
        while len(rest) < int(headers.get("content-length", "0")):
            rest += connection.recv(65536)
        body = rest
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
    return Request(method, unquote(url.path), query, headers, body, connection)


def send_json(connection: socket.socket, status: int, value: object) -> None:
    body = b"" if value is None else json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


def send_pieces(connection: socket.socket, pieces: Answer) -> None:
    """Send a chunked body; one that raises StopServing is cut off."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in pieces:
        connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    connection.sendall(b"0\r\n\r\n")


class Logs:
    """Starts `logs` against a daemon, and ends what is left of it."""

    def __init__(self, host: str) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "DOCKER_HOST"}},
            "LOGD_HOST": host,
            "TERM": "xterm",
        }

        self._started: list[subprocess.Popen[bytes]] = []

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "logd.cli.logs", *arguments]

    def __call__(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        options = {"capture_output": True, "timeout": 30, "env": self.environment, **options}
        return subprocess.run(self.command(*arguments), check=False, **options)

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self.command(*arguments), env=self.environment, **options)
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

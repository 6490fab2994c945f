"""HTTP/1.1 to the daemon, over a unix socket or TCP: just enough of it, and quick to import.

`http.client` costs 28 ms to import (measured; it brings `email`), a quarter of the time `logs` may take to start.
One connection serves one request. Source: RFC 9112 (message format), sections 6 and 7.
"""

import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any, Final

from logd.errors import InvalidParameter, LogdError

DEFAULT_HOST: Final = "unix:///run/logd/logd.sock"
RECEIVE_BYTES: Final = 256 * 1024  # more than a unix socket's default buffer: one call empties it
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_ERROR_BYTES: Final = 1 << 20
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986, 2.3

Query = Mapping[str, str | int | bool | list[str] | None]


class Unreachable(LogdError):
    """No daemon answers; the message says where it was sought and what to do."""


class Refused(LogdError):
    """The daemon answered with an error; the message is the daemon's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Broken(LogdError):
    """The connection ended in the middle of an answer."""


def default_host() -> str:
    """Return where the daemon is: LOGD_HOST, else DOCKER_HOST, else logd's own socket."""
    return os.environ.get("LOGD_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST


def quote(text: str) -> str:
    """Return `text` for a path's segment or a query's value."""
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in text.encode())


def target(path: str, query: Query | None) -> str:
    """Return the request target. None is left out, a bool is 1 or 0, a list repeats its parameter."""
    pairs = [
        f"{name}={quote(str(int(one) if isinstance(one, bool) else one))}"
        for name, value in (query or {}).items()
        for one in (value if isinstance(value, list) else [value])
        if one is not None
    ]
    return f"{path}?{'&'.join(pairs)}" if pairs else path


class Client:
    """The daemon at one address: `unix:///path`, or `tcp://host:port` (TLS as the docker CLI is told to use it)."""

    def __init__(self, host: str | None = None) -> None:
        self.host = host or default_host()
        self._scheme, separator, self._address = self.host.partition("://")
        if not separator or self._scheme not in {"unix", "tcp"} or not self._address:
            raise InvalidParameter(f"invalid daemon address {self.host!r} (write unix:///path or tcp://host:port)")

    @property
    def is_local(self) -> bool:
        """Say whether the daemon is one of this machine."""
        return self._scheme == "unix"

    def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        json_body: object = None,
        body: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> "Response":
        """Send one request and return its answer, whose body is not read yet. `body` is sent in chunks.

        Raises Unreachable, Refused for a status of 400 and above, and Broken.
        """
        name = self._address if self._scheme == "tcp" else "logd"
        fields = {"Host": name, "User-Agent": "logd-cli", "Connection": "close", **(headers or {})}
        content = b""
        if json_body is not None:
            import json  # noqa: PLC0415  # most requests send none

            content = json.dumps(json_body).encode()
            fields["Content-Type"] = "application/json"
        if body is not None:
            fields["Transfer-Encoding"] = "chunked"
        elif method != "GET":
            fields["Content-Length"] = str(len(content))
        lines = [f"{method} {target(path, query)} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        connection = self._connect()
        try:
            _send(connection, "\r\n".join(lines).encode() + b"\r\n\r\n" + content, body)
            response = Response(connection, has_body=method != "HEAD")
        except OSError as error:
            connection.close()
            raise Broken(f"the daemon at {self.host} closed the connection: {error.strerror or error}") from error
        except BaseException:
            connection.close()
            raise
        if response.status >= 400:
            raise self._refusal(response)
        return response

    def json(self, method: str, path: str, query: Query | None = None, *, json_body: object = None) -> Any:
        """Send one request and return the JSON of its answer, None where it has no body."""
        import json  # noqa: PLC0415  # a plain `logs` needs none

        with self.request(method, path, query, json_body=json_body) as response:
            data = response.read()
        return json.loads(data) if data else None

    def dial(self) -> socket.socket:
        """Return a connection to the daemon's unix socket. Raises InvalidParameter for another address, Unreachable."""
        if self._scheme != "unix":
            raise InvalidParameter(f"{self.host!r} is no unix socket (write unix:///path)")
        return self._connect()

    def _connect(self) -> socket.socket:
        try:
            return self._connect_unix() if self._scheme == "unix" else self._connect_tcp()
        except OSError as error:
            raise Unreachable(unreachable_words(self.host, error)) from error

    def _connect_unix(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._address)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_tcp(self) -> socket.socket:
        name, _, port = self._address.rpartition(":")
        if not port.isdigit():
            raise InvalidParameter(f"invalid daemon address {self.host!r} (write tcp://host:port)")
        name = name.strip("[]")
        connection = socket.create_connection((name, int(port)))
        if not os.environ.get("DOCKER_TLS_VERIFY"):
            return connection
        try:
            return _secured(connection, name)
        except BaseException:
            connection.close()
            raise

    def _refusal(self, response: "Response") -> LogdError:
        with response:
            message = _error_message(response.read(MAX_ERROR_BYTES))
        if response.status == 404 and message.strip().lower() in {
            "page not found",
            "404: not found",
            "404 page not found",
        }:
            message = f"the daemon at {self.host} does not know this request: it is not logd, or an older one"
        return Refused(response.status, message or f"the daemon answered {response.status} without a message")


class Response:
    """One answer: its status, its headers (names in lower case), and its body as it arrives."""

    def __init__(self, connection: socket.socket, *, has_body: bool = True) -> None:
        self._connection = connection
        self.status, self.headers, rest = _read_head(connection)
        self.ended = False
        """The body has been read to its proper end."""
        self._chunks: ChunkDecoder | None = None
        self._left: int | None = None
        if self.status in {204, 304} or not has_body:
            self._left = 0
        elif self.headers.get("transfer-encoding", "").lower() == "chunked":
            self._chunks = ChunkDecoder()
        elif "content-length" in self.headers:
            self._left = int(self.headers["content-length"])
        self._rest = rest
        if self._left == 0:
            self.ended = True

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, for poll. Bytes that came with the head are handed out by `receive` at once."""
        return self._connection.fileno()

    @property
    def pending(self) -> bool:
        """Say whether `receive` has something although the descriptor may not be readable."""
        if self._rest:
            return True
        buffered = getattr(self._connection, "pending", None)  # TLS holds decrypted bytes back
        return bool(buffered and buffered())

    def receive(self) -> bytes:
        """Return the next bytes of the body, waiting for them. b"" with `ended` set is the end.

        b"" without `ended` means that there was only framing: call again. Raises Broken when the body is cut short.
        """
        if self.ended:
            return b""
        data, self._rest = self._rest, b""
        if not data:
            try:
                data = self._connection.recv(RECEIVE_BYTES)
            except OSError as error:
                raise Broken(f"the connection to the daemon failed: {error.strerror or error}") from error
            if not data:
                return self._hung_up()
        if self._chunks is not None:
            body = self._chunks.feed(data)
            self.ended = self._chunks.ended
            return body
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            self.ended = self._left == 0
        return data

    def read(self, limit: int | None = None) -> bytes:
        """Return the rest of the body, or at most about `limit` bytes of it."""
        pieces: list[bytes] = []
        size = 0
        while not self.ended and (limit is None or size < limit):
            pieces.append(self.receive())
            size += len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        """Close the connection; the rest of the body is given up."""
        self._connection.close()

    @property
    def connection(self) -> socket.socket:
        """The connection itself, to send on after an answer that left HTTP (attach)."""
        return self._connection

    def _hung_up(self) -> bytes:
        if self._chunks is not None or self._left is not None:
            raise Broken("the daemon closed the connection in the middle of its answer")
        self.ended = True
        return b""


class ChunkDecoder:
    """Takes the chunked transfer coding away (RFC 9112, section 7.1), however the bytes are cut."""

    def __init__(self) -> None:
        self.ended = False
        self._left = 0  # bytes of the present chunk still to come
        self._line = b""  # a size line, or the line break after a chunk, that is not whole yet
        self._trailer = False

    def feed(self, data: bytes) -> bytes:
        """Return the body's bytes in `data`. Raises Broken for what is no chunked body."""
        pieces: list[bytes] = []
        start = 0
        while start < len(data) and not self.ended:
            if self._left:
                piece = data[start : start + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                start += len(piece)
                continue
            end = data.find(b"\n", start)
            if end < 0:
                self._line += data[start:]
                if len(self._line) > MAX_HEAD_BYTES:
                    raise Broken("the daemon's answer is not HTTP: a chunk's size line does not end")
                break
            self._take_line((self._line + data[start:end]).strip())
            self._line = b""
            start = end + 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take_line(self, line: bytes) -> None:
        if self._trailer:
            self.ended = not line
        elif line:  # an empty one is the line break after a chunk's bytes
            try:
                self._left = int(line.partition(b";")[0], 16)
            except ValueError as error:
                raise Broken(f"the daemon's answer is not HTTP: chunk size {line[:40]!r}") from error
            self._trailer = self._left == 0


def unreachable_words(host: str, error: OSError) -> str:
    """Return what a person needs to hear when no daemon answers at `host`."""
    if isinstance(error, PermissionError):
        return (
            f"permission denied at {host}: only root and members of the group logd may talk to the daemon "
            "(as root: usermod -aG logd USER, then log in again)"
        )
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return (
            f"no logd daemon at {host}: start it with `systemctl start logd` or, as root, `logd daemon`; "
            "if it listens elsewhere, set LOGD_HOST"
        )
    return f"no logd daemon at {host}: {error.strerror or error}"


def _secured(connection: socket.socket, name: str) -> socket.socket:
    """Return the connection with TLS, by docker's files. Raises Unreachable, saying whose certificate is not good."""
    import ssl  # noqa: PLC0415  # 20 ms that a unix socket need not pay

    folder = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
    try:
        context = ssl.create_default_context(cafile=os.path.join(folder, "ca.pem"))
        context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
    except OSError as error:
        raise Unreachable(
            f"DOCKER_TLS_VERIFY is set, and ca.pem, cert.pem and key.pem in {folder} can't be used: "
            f"{error.strerror or error} (DOCKER_CERT_PATH names another folder)"
        ) from error
    try:
        return context.wrap_socket(connection, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"the certificate of the daemon at {name} is not good: {error.verify_message}") from error


def _send(connection: socket.socket, head: bytes, body: Iterable[bytes] | None) -> None:
    """Send the request. A daemon that refuses a body midway has answered: the answer is read, the rest is not sent."""
    # Where a closed pipe ends the command, a closed connection must not. TLS takes no flags.
    flags = 0 if hasattr(connection, "cipher") else socket.MSG_NOSIGNAL
    connection.sendall(head, flags)
    if body is None:
        return
    try:
        for piece in body:
            if piece:
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece), flags)
        connection.sendall(b"0\r\n\r\n", flags)
    except (BrokenPipeError, ConnectionResetError):
        return


def _read_head(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return the status, the headers, and the first bytes of the body."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(RECEIVE_BYTES)
        if not piece or len(data) > MAX_HEAD_BYTES:
            raise Broken("the daemon closed the connection without an answer")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    parts = status_line.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise Broken(f"the daemon's answer is not HTTP: {status_line[:60]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(parts[1]), headers, rest


def _error_message(body: bytes) -> str:
    """Return the message of an error body: Docker's `{"message": …}`, or the text itself."""
    import json  # noqa: PLC0415  # for errors only

    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace").strip()

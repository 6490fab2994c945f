"""The Fluent forward protocol without its I/O: entries, PackedForward messages, acknowledgements, the handshake.

    connection   [server: HELO]  [client: PING]  [server: PONG]   only where a shared key is asked for
                 client: [tag, entries, {size, chunk, compressed}]   server: {ack: chunk}
    entries      the bytes of [time, record] [time, record] …, as one msgpack bin, perhaps gzipped

Source: Fluent Forward Protocol Specification v1.5 (the wiki of fluentd), what of it v1 has too; the headers of str, map
and bin are those of the msgpack specification. A str is not required to be UTF-8 here: like Docker's
fluent-logger-golang, text is sent as the bytes it is.
"""

import base64
import hashlib
import hmac
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

GZIP: Final = "gzip"
"""The one compression of the protocol."""
CHUNK_ID_BYTES: Final = 16
"""The specification's 128 bits."""
SHOWN: Final = 200
"""How much of what a server says goes into a message."""

_PACKER: Final = msgpack.Packer(unicode_errors="replace")  # a lone surrogate becomes "?"
_EVENT_TIME: Final = struct.Struct(">BBII")
_FIXEXT8: Final = 0xD7
_EVENT_TIME_TYPE: Final = 0
_NS: Final = 1_000_000_000
_FEW: Final = 8
"""Up to so many lines are put together one by one."""
_ORDINARY: Final = 4096
"""Lines below that length are common."""


class ProtocolError(ConnectionError):
    """The server says what it may not say, or that it does not want us."""


PACK_ERRORS: Final = (ValueError, OverflowError, TypeError)
"""What `pack` raises for a value that msgpack can't express."""


def pack(value: Any) -> bytes:
    """Return a value in msgpack. Raises one of PACK_ERRORS."""
    packed: bytes = _PACKER.pack(value)
    return packed


def str_header(length: int) -> bytes:
    """Return what stands before the bytes of a str."""
    if length < 1 << 5:
        return bytes((0xA0 | length,))
    if length < 1 << 8:
        return b"\xd9" + length.to_bytes(1, "big")
    if length < 1 << 16:
        return b"\xda" + length.to_bytes(2, "big")
    return b"\xdb" + length.to_bytes(4, "big")


def bin_header(length: int) -> bytes:
    """Return what stands before bytes."""
    if length < 1 << 8:
        return b"\xc4" + length.to_bytes(1, "big")
    if length < 1 << 16:
        return b"\xc5" + length.to_bytes(2, "big")
    return b"\xc6" + length.to_bytes(4, "big")


def map_header(pairs: int) -> bytes:
    """Return what stands before the pairs of a map."""
    if pairs < 1 << 4:
        return bytes((0x80 | pairs,))
    if pairs < 1 << 16:
        return b"\xde" + pairs.to_bytes(2, "big")
    return b"\xdf" + pairs.to_bytes(4, "big")


def map_pairs(values: dict[str, Any]) -> bytes:
    """Return the pairs of a map without its header."""
    return pack(values)[len(map_header(len(values))) :]


def event_time(time_ns: int, *, sub_second: bool) -> bytes:
    """Return the time of an entry: whole seconds, or an EventTime (extension type 0) with nanoseconds."""
    seconds, nanoseconds = divmod(time_ns, _NS)
    if sub_second and 0 <= seconds < 1 << 32:
        return _EVENT_TIME.pack(_FIXEXT8, _EVENT_TIME_TYPE, seconds, nanoseconds)
    return pack(seconds)


class _StrHeaders(dict[int, bytes]):
    """Headers by length; those of ordinary lines are made once."""

    def __missing__(self, length: int) -> bytes:
        header = str_header(length)
        if length < _ORDINARY:
            self[length] = header
        return header


_STR_HEADERS: Final = _StrHeaders()


def entries(prefix: bytes, lines: Sequence[bytes]) -> list[bytes]:
    """Return the parts, to be joined, of entries that all begin with `prefix` and end with a str, one of `lines`.

    Where there are many lines, those of equal length share their beginning: 8 million lines a second of 100 bytes.
    """
    headers = _STR_HEADERS
    if len(lines) <= _FEW:
        return [part for line in lines for part in (prefix + headers[len(line)], line)]
    beginnings = {length: prefix + headers[length] for length in set(map(len, lines))}
    parts = [b""] * (2 * len(lines))
    parts[::2] = map(beginnings.__getitem__, map(len, lines))
    parts[1::2] = lines
    return parts


def chunk_id(identity: str) -> str:
    """Return the id of a chunk, always the same for one identity: 128 bits in base64, as the specification has it."""
    return base64.b64encode(hashlib.blake2b(identity.encode(), digest_size=CHUNK_ID_BYTES).digest()).decode()


def packed_forward(tag: str, packed: bytes, size: int, chunk: str | None = None, compressed: str = "") -> bytes:
    """Return a message of `size` entries. With `chunk` it asks to be acknowledged."""
    option: dict[str, Any] = {"size": size}
    if chunk is not None:
        option["chunk"] = chunk
    if compressed:
        option["compressed"] = compressed
    return b"".join((b"\x93", pack(tag), bin_header(len(packed)), packed, pack(option)))


def unpacker(max_bytes: int) -> Any:
    """Return an unpacker for what a server says, which gives bytes for texts: some are no UTF-8."""
    return msgpack.Unpacker(raw=True, max_buffer_size=max_bytes)


UNPACK_ERRORS: Final = (ValueError, TypeError, msgpack.UnpackException)
"""What the unpacker raises for bytes that are no msgpack, or too many."""


def acknowledged(message: Any) -> bytes | None:
    """Return the chunk that a server acknowledges, None if the message is something else."""
    chunk = message.get(b"ack") if isinstance(message, dict) else None
    return chunk if isinstance(chunk, bytes) else None


def is_helo(message: Any) -> bool:
    """Tell whether a server begins a handshake."""
    return isinstance(message, list) and message[:1] == [b"HELO"]


@dataclass(frozen=True)
class Credentials:
    """What the handshake proves to know."""

    hostname: str
    """The client's own; the server's must be another."""
    shared_key: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)


class Handshake:
    """The client's side of one handshake: `ping` answers HELO, then `check_pong`. Both raise ProtocolError."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._salt = secrets.token_hex(16).encode()
        self._nonce = b""
        self.keepalive = True
        """Whether the server lets a connection be used for more than one message."""

    def ping(self, helo: Any) -> bytes:
        """Return the answer to the server's first message."""
        if not is_helo(helo) or len(helo) != 2 or not isinstance(helo[1], dict):
            raise ProtocolError(f"HELO was expected, the server said {shown(helo)}")
        options = helo[1]
        self._nonce, auth = (_bytes(options.get(name)) for name in (b"nonce", b"auth"))
        self.keepalive = options.get(b"keepalive", True) is not False
        mine, username, password_digest = self._credentials, "", ""
        if auth:  # fluentd sends it whether or not it asks for users
            username = mine.username
            password_digest = _hexdigest(auth, _utf8(username), _utf8(mine.password))
        digest = self._shared_key_digest(_utf8(mine.hostname))
        return pack(["PING", mine.hostname, self._salt.decode(), digest, username, password_digest])

    def check_pong(self, pong: Any) -> None:
        """Return if the server has let us in and knows the shared key too."""
        if not isinstance(pong, list) or len(pong) != 5 or pong[0] != b"PONG":
            raise ProtocolError(f"PONG was expected, the server said {shown(pong)}")
        _, accepted, reason, hostname, digest = pong
        if accepted is not True:
            raise ProtocolError(f"authentication failed: {shown(reason)}")
        if _bytes(hostname) == _utf8(self._credentials.hostname):
            raise ProtocolError(
                f"same hostname between input and output: {shown(hostname)} (choose another fluentd-self-hostname)"
            )
        if not hmac.compare_digest(self._shared_key_digest(_bytes(hostname)).encode(), _bytes(digest)):
            raise ProtocolError("shared key mismatch: the server does not know fluentd-shared-key")

    def _shared_key_digest(self, hostname: bytes) -> str:
        return _hexdigest(self._salt, hostname, self._nonce, _utf8(self._credentials.shared_key))


def shown(message: Any) -> str:
    """Return what a server said, fit for a message to people: cut, and without control characters."""
    first = message[0] if isinstance(message, list) and message else message
    if not isinstance(first, bytes):  # no repr: what a hostile server nests may be too deep for it
        return f"something else ({type(message).__name__})"
    return "".join(letter if letter.isprintable() else "?" for letter in first.decode(errors="replace")[:SHOWN])


def _hexdigest(*parts: bytes) -> str:
    return hashlib.sha512(b"".join(parts)).hexdigest()


def _utf8(value: str) -> bytes:
    return value.encode(errors="replace")  # as pack does


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b""

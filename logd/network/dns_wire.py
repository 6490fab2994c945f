"""The few parts of DNS messages that a forwarding name server reads and writes; the rest passes through as bytes.

Source: RFC 1035 section 4, RFC 3596 (AAAA), RFC 6891 (EDNS: what a client can take by UDP).
"""

import ipaddress
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

A: Final = 1
PTR: Final = 12
AAAA: Final = 28
OPT: Final = 41
INTERNET: Final = 1
NO_ERROR: Final = 0
FORMAT_ERROR: Final = 1
SERVER_FAILURE: Final = 2
NAME_ERROR: Final = 3
NOT_IMPLEMENTED: Final = 4
REFUSED: Final = 5

HEADER: Final = struct.Struct(">HHHHHH")
RESPONSE: Final = 0x8000
TRUNCATED: Final = 0x0200
RECURSION_DESIRED: Final = 0x0100
RECURSION_AVAILABLE: Final = 0x0080
OPCODE: Final = 0x7800
QUESTION_POINTER: Final = b"\xc0\x0c"
"""Of a record whose name is the question's, which begins behind the header."""
MAX_NAME: Final = 255
MAX_LABEL: Final = 63
UDP_BYTES: Final = 512
"""What each client takes; more only if it says so by EDNS."""
MAX_UDP_BYTES: Final = 1232
"""What passes without fragments (DNS flag day 2020)."""
MAX_MESSAGE: Final = 65535
TTL_S: Final = 600
"""Docker's."""


class Malformed(ValueError):
    """A message that is none, or that is not a question."""


class Query(NamedTuple):
    """A question. `name` is in lower case without a dot at its end; `question` are its bytes, as they came."""

    id: int
    flags: int
    name: str
    kind: int
    question: bytes
    udp_bytes: int
    has_edns: bool


def parse_query(message: bytes) -> Query:
    """Read a question. Raises Malformed; see `identify` for what may be answered even then."""
    if len(message) < HEADER.size:
        raise Malformed("shorter than a header")
    identifier, flags, questions, answers, authorities, additional = HEADER.unpack_from(message)
    if flags & RESPONSE:
        raise Malformed("not a question")
    if flags & OPCODE or questions != 1 or answers or authorities:
        raise Malformed("not one standard question")
    labels, end = _read_name(message, HEADER.size)
    if end + 4 > len(message):
        raise Malformed("the question ends early")
    kind, kind_class = struct.unpack_from(">HH", message, end)
    end += 4
    udp_bytes, has_edns = _edns(message, end) if additional else (UDP_BYTES, False)
    if kind_class != INTERNET:
        kind = 0  # none of ours: forwarded
    name = b".".join(labels).decode("latin-1").lower()
    return Query(identifier, flags, name, kind, message[HEADER.size : end], udp_bytes, has_edns)


def identify(message: bytes) -> int | None:
    """Return the id of what is no response and long enough to have one; None where nothing may be answered."""
    if len(message) < HEADER.size:
        return None
    identifier, flags, *_ = HEADER.unpack_from(message)
    return None if flags & RESPONSE else int(identifier)


def _read_name(message: bytes, start: int) -> tuple[list[bytes], int]:
    """Read a name without compression, which a question has no use for."""
    labels: list[bytes] = []
    place, total = start, 1
    while True:
        if place >= len(message):
            raise Malformed("the name ends early")
        length = message[place]
        place += 1
        if not length:
            return labels, place
        total += length + 1
        if length > MAX_LABEL or total > MAX_NAME:
            raise Malformed("the name is too long, or compressed")
        label = message[place : place + length]
        if len(label) < length:
            raise Malformed("the name ends early")
        labels.append(label)
        place += length


def _edns(message: bytes, place: int) -> tuple[int, bool]:
    """Return how much the client takes by UDP, if the first additional record, at `place`, says so."""
    if message[place : place + 1] == b"\0" and len(message) >= place + 11:
        kind, size = struct.unpack_from(">HH", message, place + 1)
        if kind == OPT:
            return min(max(size, UDP_BYTES), MAX_UDP_BYTES), True
    return UDP_BYTES, False


def reply(query: Query, records: Sequence[bytes] = (), code: int = NO_ERROR, *, limit: int = MAX_MESSAGE) -> bytes:
    """Return an answer with `records` (see `address_record`), cut to `limit` bytes and then marked as truncated."""
    edns = struct.pack(">BHHIH", 0, OPT, MAX_UDP_BYTES, 0, 0) if query.has_edns else b""
    room = limit - HEADER.size - len(query.question) - len(edns)
    kept: list[bytes] = []
    for record in records:
        if len(record) > room:
            break
        kept.append(record)
        room -= len(record)
    flags = RESPONSE | RECURSION_AVAILABLE | query.flags & RECURSION_DESIRED | code
    if len(kept) < len(records):
        flags |= TRUNCATED
    head = HEADER.pack(query.id, flags, 1, len(kept), 0, 1 if edns else 0)
    return b"".join((head, query.question, *kept, edns))


def refusal(identifier: int, code: int) -> bytes:
    """Return an answer to what could not be read."""
    return HEADER.pack(identifier, RESPONSE | RECURSION_AVAILABLE | code, 0, 0, 0, 0)


def address_record(address: str) -> bytes:
    """Return an A or AAAA record of the question's name."""
    packed = ipaddress.ip_address(address).packed
    kind = A if len(packed) == 4 else AAAA
    return QUESTION_POINTER + struct.pack(">HHIH", kind, INTERNET, TTL_S, len(packed)) + packed


def pointer_record(name: str) -> bytes | None:
    """Return a PTR record of the question's name; None for a target that has no wire form: too long, perhaps."""
    try:
        target = encode_name(name)
    except ValueError:
        return None
    return QUESTION_POINTER + struct.pack(">HHIH", PTR, INTERNET, TTL_S, len(target)) + target


def encode_name(name: str) -> bytes:
    """Return a name's wire form. Raises ValueError where it has none."""
    wire = b""
    for label in name.encode("latin-1").split(b"."):
        if not 0 < len(label) <= MAX_LABEL:
            raise ValueError(f"{name!r} is no name")
        wire += bytes((len(label),)) + label
    if len(wire) >= MAX_NAME:
        raise ValueError(f"{name!r} is too long for a name")
    return wire + b"\0"


def address_of_pointer(name: str) -> str | None:
    """`2.0.213.10.in-addr.arpa` → `10.213.0.2`, and the like for IPv6; None for what is no address."""
    labels = name.split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return str(ipaddress.IPv4Address(".".join(reversed(labels[:4]))))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34 and all(len(one) == 1 for one in labels[:32]):
            return str(ipaddress.IPv6Address(int("".join(reversed(labels[:32])), 16)))
    except ValueError:
        return None
    return None


def answers(message: bytes, query: Query, sent_id: int) -> bool:
    """Tell whether a message is the answer of the server that `query` was forwarded to under the id `sent_id`."""
    if len(message) < HEADER.size:
        return False
    identifier, flags, questions, *_ = HEADER.unpack_from(message)
    if identifier != sent_id or not flags & RESPONSE:
        return False
    asked, place = query.question, HEADER.size
    echoed = message[place : place + len(asked)]
    return questions == 0 or (questions == 1 and echoed.lower() == asked.lower())


def code_of(message: bytes) -> int:
    """Return the response code of a whole message."""
    return message[3] & 0xF


def with_id(message: bytes, identifier: int) -> bytes:
    """Return the message under another id."""
    return identifier.to_bytes(2, "big") + message[2:]

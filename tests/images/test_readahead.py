"""A thread works ahead of who reads, by no more than it may, and its errors arrive."""

import threading
from collections.abc import Iterator

import pytest

from logd.images.readahead import AHEAD, ReadAhead


def test_all_pieces_come_in_their_order() -> None:
    assert list(ReadAhead(bytes((number % 256,)) * 1000 for number in range(5000))) == [
        bytes((number % 256,)) * 1000 for number in range(5000)
    ]


def test_an_error_arrives_after_what_came_before_it() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"1"
        raise ValueError("damaged")

    ahead = ReadAhead(pieces())
    assert next(ahead) == b"1"
    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            next(ahead)


@pytest.mark.parametrize("size", [AHEAD // 4, AHEAD, AHEAD * 3])
def test_no_piece_is_begun_while_enough_are_ready(size: int) -> None:
    begun = taken = most = 0
    enough = threading.Event()

    def pieces() -> Iterator[bytes]:
        nonlocal begun, most
        while begun < 100:
            begun += 1
            most = max(most, begun - taken)
            if begun * size >= AHEAD:
                enough.set()
            yield bytes(size)

    ahead = ReadAhead(pieces())
    assert enough.wait(30)
    while taken < 100:
        taken += 1
        next(ahead)
    assert most == -(-AHEAD // size)

"""The detach keys in a stream of input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd.engine.detach import DEFAULT_KEYS, DetachKeys, parse_detach_keys
from logd.errors import InvalidParameter

FEW_BYTES = st.binary(max_size=60).map(lambda data: bytes(byte % 3 for byte in data))


@given(
    keys=st.binary(min_size=1, max_size=4).map(lambda data: bytes(byte % 3 for byte in data)),
    pieces=st.lists(FEW_BYTES),
)
def test_all_before_the_keys_is_passed_on_and_nothing_behind_them(keys: bytes, pieces: list[bytes]) -> None:
    watch = DetachKeys(keys)
    passed = b"".join(watch.feed(piece) for piece in pieces)
    before, found, _ = b"".join(pieces).partition(keys)
    assert watch.found == bool(found)
    assert passed + watch.finish() == before


@given(pieces=st.lists(FEW_BYTES))
def test_no_more_is_held_back_than_may_be_the_beginning_of_the_keys(pieces: list[bytes]) -> None:
    keys = b"\x00\x00\x01"
    watch = DetachKeys(keys)
    typed = passed = b""
    for piece in pieces:
        typed += piece
        passed += watch.feed(piece)
        if watch.found:
            break
        held = typed.removeprefix(passed)
        assert passed + held == typed
        assert keys.startswith(held)


def test_one_who_presses_the_first_key_twice_has_left_with_the_second_key() -> None:
    watch = DetachKeys()
    assert watch.feed(b"ls\x10") == b"ls"
    assert watch.feed(b"\x10") == b"\x10"
    assert watch.feed(b"\x11rest") == b""
    assert watch.found


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", DEFAULT_KEYS),
        ("ctrl-p,ctrl-q", DEFAULT_KEYS),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1d\x1e\x1f"),
        ("a,B,ctrl-z", b"aB\x1a"),
    ],
)
def test_keys_are_read_as_docker_names_them(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", [",", "ctrl-", "ctrl-A", "ab", "a,", "ctrl-p, ctrl-q", "ctrl-é", "é", "ctrl-1"])
def test_what_names_no_key_is_refused_in_dockers_words(text: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid detach keys"):
        parse_detach_keys(text)

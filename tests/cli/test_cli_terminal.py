"""What a terminal gets to see of hostile text."""

import pytest

from logd.cli.terminal import has_colour, neutralise


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (b"plain text\twith a tab\n", b"plain text\twith a tab\n"),
        ("Grüße, 世界 🙂\n".encode(), "Grüße, 世界 🙂\n".encode()),
        (b"\x1b[1;31mred\x1b[0m\x1b[38:2:1:2:3mx\x1b[m\n", b"\x1b[1;31mred\x1b[0m\x1b[38:2:1:2:3mx\x1b[m\n"),
        (b"dos\r\n", b"dos\r\n"),
        (b"real\rfake\n", b"real^Mfake\n"),
        (b"\x1b]0;title\x07\n", b"^[]0;title^G\n"),
        (b"\x1b[2J\x1b[H\x1b[1A\x1b[?1049h\n", b"^[[2J^[[H^[[1A^[[?1049h\n"),
        (b"\x1b[31\n", b"^[[31\n"),
        (b"\x1b[>4;2m\n", b"^[[>4;2m\n"),  # xterm's modifyOtherKeys ends in m too
        (b"\x1bPq\x1b\\ \x1bc \x1b(0\n", b"^[Pq^[\\ ^[c ^[(0\n"),
        (b"\x00\x08\x7f\x0b\x0c\n", b"^@^H^?^K^L\n"),
        ("\x9b31m\x9d0;t\x9c\n".encode(), b"<U+009B>31m<U+009D>0;t<U+009C>\n"),
        (b"\x9b31m \xff\xfe \xc3\n", b"<9B>31m <FF><FE> <C3>\n"),
        ("user\u202etxt.exe\u2066\n".encode(), b"user<U+202E>txt.exe<U+2066>\n"),
        (b"\x1b[" + b"1;" * 40 + b"m\n", b"^[[" + b"1;" * 40 + b"m\n"),
    ],
)
def test_only_text_and_colours_reach_the_terminal(text: bytes, seen: bytes) -> None:
    assert neutralise(text) == seen


def test_every_byte_is_harmless_afterwards() -> None:
    seen = neutralise(bytes(range(256)) * 2 + "".join(map(chr, range(0x80, 0x100))).encode())
    assert not set(seen) & (set(range(0x20)) - {9, 10} | {0x7F})
    assert all(not 0x80 <= ord(character) < 0xA0 for character in seen.decode())


def test_neutralising_twice_changes_nothing_more() -> None:
    once = neutralise(b"\x1b]0;x\x07\x9b\xc2\x9b\r\x1b[1mb\n")
    assert neutralise(once) == once


def test_colours_are_noticed() -> None:
    assert has_colour(b"a\x1b[31mb")
    assert not has_colour(b"a[31mb \x1b[2J")

"""The text of a Go template → tokens. White space that trim markers ask to go is gone, comments too.

Source: https://pkg.go.dev/text/template, "Text and spaces", and the Go specification for strings.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple, NoReturn

WHITE: Final = " \t\r\n"
INSIDE: Final = re.compile(
    r"""(?P<close>[ \t\r\n]+-}}|}})
      | (?P<space>[ \t\r\n]+)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<raw>`[^`]*`)
      | (?P<number>[+-]?[0-9][\w.]*)
      | (?P<field>\.[^\W\d]\w*)
      | (?P<name>[^\W\d]\w*)
      | (?P<mark>[|()])""",
    re.VERBOSE,
)
_INTEGER: Final = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_ESCAPE: Final = re.compile(
    r"""\\(?:([abfnrtv\\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)|([^\\]+)"""
)
_SIMPLE_ESCAPES: Final = dict(zip('abfnrtv\\"', '\a\b\f\n\r\t\v\\"', strict=True))


class Token(NamedTuple):
    """A piece of a template.

    Its kind is "text", "open" ({{), "close" (}}), "end" (of the template), or between the braces one of "space",
    "string", "raw", "number", "field" (a dot and a name), "name" and "mark".
    """

    kind: str
    text: str
    at: int


class Source:
    """A template's text, by the name that messages give it; `inside` finds the tokens between braces."""

    def __init__(self, name: str, text: str, inside: re.Pattern[str] = INSIDE) -> None:
        self._name = name
        self._text = text
        self._inside = inside

    def fail(self, at: int, problem: str) -> NoReturn:
        """Raise ValueError that shows the place, as Go writes it."""
        line = self._text.count("\n", 0, at) + 1
        column = at - self._text.rfind("\n", 0, at)
        here = self._text[at : at + 24] or "the end"
        raise ValueError(f"template: {self._name}:{line}:{column}: {problem}, at <{here}>")

    def tokens(self) -> Iterator[Token]:
        """Give the tokens, at last one "end". Raises ValueError."""
        text, at, trim = self._text, 0, False
        while True:
            opening = text.find("{{", at)
            plain = text[at:] if opening < 0 else text[at:opening]
            plain = plain.lstrip(WHITE) if trim else plain
            inside = opening + 2
            if opening >= 0 and text.startswith("-", inside) and text[inside + 1 : inside + 2] in {*WHITE}:
                plain, inside = plain.rstrip(WHITE), inside + 2
            if plain:
                yield Token("text", plain, at)
            if opening < 0:
                yield Token("end", "", len(text))
                return
            token = Token("open", "{{", opening)
            if text.startswith("/*", inside):
                token = self._comment(inside)
            else:
                yield token
            while token.kind != "close":
                match = self._inside.match(text, inside)
                if match is None:
                    self._fail_inside(opening, inside)
                token = Token(str(match.lastgroup), match[0], inside)
                inside = match.end()
                yield token
            at, trim = token.at + len(token.text), len(token.text) > 2

    def _comment(self, at: int) -> Token:
        """Return the closing braces, which follow a comment at once."""
        end = self._text.find("*/", at)
        if end < 0:
            self.fail(at, "unclosed comment")
        match = self._inside.match(self._text, end + 2)
        if match is None or match.lastgroup != "close":
            self.fail(end, "comment ends before closing delimiter")
        return Token("close", match[0], end + 2)

    def _fail_inside(self, opening: int, at: int) -> NoReturn:
        character = self._text[at : at + 1]
        if character in {"", "{", "}"}:
            self.fail(opening, "unclosed action")
        if character in {'"', "`"}:
            self.fail(at, "unterminated quoted string")
        if character == "$":
            self.fail(at, "variables are not supported in log tags")
        if character == ".":
            self.fail(at, "the context as a whole is not supported in log tags, name one of its fields")
        self.fail(at, f"unexpected {character!r}")

    def constant(self, token: Token) -> str | int:
        """Return what a string or number stands for. Raises ValueError."""
        if token.kind == "raw":
            return token.text[1:-1].replace("\r", "")
        if token.kind == "string":
            return self._unquoted(token)
        if not _INTEGER.fullmatch(token.text):
            self.fail(token.at, f"bad number {token.text!r} (whole decimal numbers are taken)")
        return int(token.text)

    def _unquoted(self, token: Token) -> str:
        data = bytearray()
        for match in _ESCAPE.finditer(token.text[1:-1]):
            simple, octal, byte, short, long, plain = match.groups()
            if octal or byte:
                code = int(octal, 8) if octal else int(byte, 16)
                is_valid = code < 256
                data += bytes([code & 255])
            elif short or long:
                code = int(short or long, 16)
                is_valid = code <= 0x10FFFF and not 0xD800 <= code < 0xE000
                data += chr(code).encode() if is_valid else b""
            else:
                is_valid = bool(simple or plain)
                data += (_SIMPLE_ESCAPES[simple] if simple else plain or "").encode("utf-8", "replace")
            if not is_valid:
                self.fail(token.at + 1 + match.start(), "invalid escape in a quoted string")
        return data.decode("utf-8", "replace")

r"""Words of a Dockerfile: quotes, escapes and variables, by the rules of the Dockerfile reference.

    'as it is'   "with $NAME and \""   $NAME  ${NAME}  ${NAME:-word}  ${NAME:+word}  ${NAME:?word}  ${NAME-word} …

`escape` stands for the backslash (the parser directive of that name). Without the colon a variable that is empty counts
as set. Messages are Docker's.
Source: the Dockerfile reference, "Environment replacement"; where it is silent, what dockerd's builder does.
"""

import re
from collections.abc import Mapping
from typing import Final

from logd.errors import InvalidParameter

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?!$-]")
_SPACE: Final = " \t\n"
MAX_BROUGHT: Final = 1 << 20
"""Letters that variables may bring into one text: each line of a file may double what the one before made."""


def split(text: str, escape: str = "\\") -> list[str]:
    """Return the words of `text` as they are written, quotes and escapes kept. An open quote ends with the text."""
    words: list[str] = []
    word, quote, at = "", "", 0
    while at < len(text):
        letter = text[at]
        if letter == escape and quote != "'" and at + 1 < len(text):
            word += text[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        if letter in _SPACE and not quote:
            if word:
                words.append(word)
            word = ""
        else:
            word += letter
        at += 1
    return [*words, word] if word else words


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Return `text` without quotes and escapes, its variables replaced: one word. Raises InvalidParameter."""
    return "".join(piece for piece, _ in _Lexer(text, variables, escape).pieces())


def expand_words(text: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Return the words of `text`, expanded; what a variable outside of quotes brings is split too."""
    words: list[str] = []
    current: str | None = None
    for piece, quoted in _Lexer(text, variables, escape).pieces():
        if quoted:
            current = (current or "") + piece
            continue
        for letter in piece:
            if letter not in _SPACE:
                current = (current or "") + letter
            elif current is not None:
                words.append(current)
                current = None
    return words if current is None else [*words, current]


class _Lexer:
    """Reads a text once, from left to right."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str) -> None:
        self._text = text
        self._escape = escape
        self._variables = variables
        self._at = 0
        self._brought = 0

    def pieces(self, stop: str = "") -> list[tuple[str, bool]]:
        """Return the parts up to the letter `stop`, each with whether it is quoted."""
        found: list[tuple[str, bool]] = []
        while self._at < len(self._text) and (not stop or self._text[self._at] != stop):
            letter = self._next()
            if letter == "'":
                found.append((self._single_quoted(), True))
            elif letter == '"':
                found.append((self._double_quoted(), True))
            elif letter == "$":
                found.append((self._variable(), False))
            elif letter == self._escape:
                found.append((self._next(), True))
            else:
                found.append((letter, False))
        return found

    def _next(self) -> str:
        letter = self._text[self._at : self._at + 1]
        self._at += 1
        return letter

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise InvalidParameter("unexpected end of statement while looking for matching single-quote")
        inside, self._at = self._text[self._at : end], end + 1
        return inside

    def _double_quoted(self) -> str:
        inside = ""
        while self._at < len(self._text):
            letter = self._next()
            if letter == '"':
                return inside
            if letter == "$":
                inside += self._variable()
            elif letter == self._escape and self._text[self._at : self._at + 1] in {'"', "$", self._escape}:
                inside += self._next()
            else:
                inside += letter
        raise InvalidParameter("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        if self._text[self._at : self._at + 1] != "{":
            match = _NAME.match(self._text, self._at)
            if match is None:
                return "$"
            self._at = match.end()
            return self._bounded(self._variables.get(match[0], ""))
        match = _NAME.match(self._text, self._at + 1)
        if match is None:
            raise InvalidParameter(f"syntax error: bad substitution in {self._text!r}")
        name, self._at = match[0], match.end()
        operator = self._operator()
        word = "".join(piece for piece, _ in self.pieces("}")) if operator else ""
        if self._next() != "}":
            raise InvalidParameter(f"syntax error: missing '}}' in {self._text!r}")
        return self._bounded(self._operated(name, operator, word))

    def _bounded(self, value: str) -> str:
        self._brought += len(value)
        if self._brought > MAX_BROUGHT:
            raise InvalidParameter(f"variables make a text longer than {MAX_BROUGHT} characters")
        return value

    def _operator(self) -> str:
        """Return the operator that follows a name, "" for none."""
        text = self._text[self._at : self._at + 2]
        operator = text if text[:1] == ":" else text[:1]
        if operator in {"", "}"}:
            return ""
        if operator[-1] not in "-+?":
            raise InvalidParameter(f"unsupported modifier ({operator}) in substitution")
        self._at += len(operator)
        return operator

    def _operated(self, name: str, operator: str, word: str) -> str:
        value = self._variables.get(name, "")
        is_set = bool(value) if operator[:1] == ":" else name in self._variables
        match operator[-1:]:
            case "-":
                return value if is_set else word
            case "+":
                return word if is_set else ""
            case "?" if not is_set:
                raise InvalidParameter(f"{name}: {word or 'not allowed to be unset'}")
        return value

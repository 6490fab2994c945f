"""How a parser of Go's text/template walks through tokens: actions, branches to {{end}}, pipelines, parentheses.

Of the two parsers one knows beforehand what a template may ask for, the other finds out when it runs it; what they make
of an operand and of a stage of a pipeline is therefore their own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Final, Generic, TypeVar

from logd.gotemplate.functions import Value, truth
from logd.gotemplate.tokens import Source, Token

MAX_DEPTH: Final = 32
"""Of parentheses and blocks inside each other."""
CONSTANTS: Final[Mapping[str, Value]] = {"true": True, "false": False, "nil": None}

Run = TypeVar("Run")
"""What one evaluation has."""
Expression = TypeVar("Expression")
"""What a pipeline becomes."""
Operand = TypeVar("Operand")
"""What an operand becomes, before it has arguments."""
Node = Callable[[Run], Iterator[str]]


class Parser(ABC, Generic[Run, Expression, Operand]):
    """Recursive descent; everything becomes a function at once."""

    blocks: ClassVar[frozenset[str]]
    """The keywords that have an {{end}}."""
    chained: ClassVar[frozenset[str]]
    """Those that may stand behind `else`, except of a range, and share its {{end}}."""
    refused: ClassVar[frozenset[str]]
    """The keywords of Go's templates that this parser does not take."""
    where: ClassVar[str] = ""
    """Said of what is not taken: " in log tags"."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._depth = 0
        self._tokens = source.tokens()
        self._next = next(self._tokens)

    @abstractmethod
    def _action(self) -> Node[Run]:
        """Parse from after the opening braces to after the closing ones."""

    @abstractmethod
    def _block(self, at: int) -> Node[Run]:
        """Parse from one of the keywords of `blocks` to after its {{end}}; `at` is where its braces are."""

    @abstractmethod
    def _command(self, before: Expression | None) -> Expression:
        """Parse one stage of a pipeline; what comes from the stage before is its last argument."""

    @abstractmethod
    def _operand(self) -> Operand:
        """Parse one operand of a stage."""

    def parse(self) -> list[Node[Run]]:
        """Parse the whole text. Raises ValueError with Go's words where it has them, and the place."""
        nodes = self._list()
        if self._next.kind != "end":
            self._source.fail(self._next.at, f"unexpected {{{{{self._next.text}}}}}")
        return nodes

    def _take(self) -> Token:
        token = self._next
        if token.kind != "end":
            self._next = next(self._tokens)
        return token

    def _skip_space(self) -> None:
        if self._next.kind == "space":
            self._take()

    def _list(self) -> list[Node[Run]]:
        """Parse up to the end of the text, {{else}} or {{end}}, whose keyword is then the next token."""
        nodes: list[Node[Run]] = []
        while self._next.kind != "end":
            token = self._take()
            if token.kind == "text":
                nodes.append(partial(_give_text, token.text))
                continue
            self._skip_space()
            word = self._next.text if self._next.kind == "name" else ""
            if word in {"else", "end"}:
                break
            if word in self.refused:
                self._source.fail(self._next.at, f"{{{{{word}}}}} is not supported{self.where}")
            nodes.append(self._block(token.at) if word in self.blocks else self._action())
        return nodes

    def _branches(self, word: str, at: int) -> tuple[list[Node[Run]], list[Node[Run]]]:
        """Parse what a block does and what it does else, to after its {{end}}, which is one level up again."""
        then, otherwise = self._list(), []
        self._expect_keyword(word, at)
        if self._take().text == "else":
            self._skip_space()
            if word != "range" and self._next.text in self.chained:
                otherwise = [self._block(at)]
                self._depth -= 1
                return then, otherwise
            self._close()
            otherwise = self._list()
            self._expect_keyword(word, at)
            if self._take().text != "end":
                self._source.fail(at, "expected end; found {{else}}")
        self._skip_space()
        self._close()
        self._depth -= 1
        return then, otherwise

    def _expect_keyword(self, word: str, at: int) -> None:
        if self._next.kind == "end":
            self._source.fail(at, f"unexpected EOF: this {{{{{word}}}}} has no {{{{end}}}}")

    def _close(self) -> None:
        if self._next.kind != "close":
            self._source.fail(self._next.at, f"unexpected {self._next.text!r}")
        self._take()

    def _pipeline(self) -> Expression:
        value = self._command(None)
        while self._next.text == "|":
            self._take()
            value = self._command(value)
        return value

    def _operands(self) -> list[Operand]:
        """Parse the operands of a stage: at least one."""
        at = self._next.at
        operands: list[Operand] = []
        while self._next.kind != "close" and self._next.text not in {"|", ")"}:
            operands.append(self._operand())
            if self._next.kind not in {"space", "close"} and self._next.text not in {"|", ")"}:
                self._source.fail(self._next.at, f"unexpected {self._next.text!r} in operand")
            self._skip_space()
        if not operands:
            self._source.fail(at, "missing value for command")
        return operands

    def _parenthesis(self, token: Token) -> Expression:
        """Parse from after the opening parenthesis, which is `token`, to after the closing one."""
        self._deeper(token.at)
        value = self._pipeline()
        if self._next.text != ")":
            self._source.fail(token.at, "unclosed left paren")
        self._take()
        self._depth -= 1
        return value

    def _constant(self, token: Token) -> Value:
        """Return what an operand stands for that is neither a field nor a function; it has no fields."""
        value: Value
        if token.kind == "name" and token.text in CONSTANTS:
            value = CONSTANTS[token.text]
        elif token.kind in {"string", "raw", "number"}:
            value = self._source.constant(token)
        else:
            self._source.fail(token.at, f"unexpected {token.text!r} in command")
        if self._next.kind == "field":
            self._source.fail(self._next.at, f"unexpected . after term {token.text}")
        return value

    def _chain(self) -> list[Token]:
        """Parse fields of what came before, without white space between."""
        names = []
        while self._next.kind == "field":
            names.append(self._take())
        return names

    def _deeper(self, at: int) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._source.fail(at, f"more than {MAX_DEPTH} levels")


def first(wanted: bool, values: Sequence[Callable[[Run], Value]], run: Run) -> Value:
    """Return the first value that is true (`or`) or false (`and`), else the last; the rest is not worked out."""
    for value in values[:-1]:
        result = value(run)
        if truth(result) == wanted:
            return result
    return values[-1](run)


def _give_text(text: str, _: object) -> Iterator[str]:
    yield text

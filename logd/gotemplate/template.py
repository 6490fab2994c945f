"""Go's text/template, the part that log tags use: fields, functions, pipelines, if. It reaches nothing else.

Source: https://pkg.go.dev/text/template (Go 1.19). What is not here is refused when a template is parsed, as is what
Go finds out only when it runs one: a field that isn't there, a wrong number or type of arguments. What depends on the
values (an index beyond a list's end) is found when it is run. There are no loops, and what is made has an upper bound.

    text {{/* a comment */}} {{.Field}} {{.Map.key}} {{(.Method nil).key}} {{lower .Name | printf "%.12s"}}
    {{- "white space before the dash goes" -}} {{if eq .Name "a"}} … {{else if .Field}} … {{else}} … {{end}}
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from logd.gotemplate.functions import (
    ANY,
    FUNCTIONS,
    MAX_BYTES,
    NO_VALUE,
    Value,
    check_arguments,
    check_format,
    encoded,
    kind_of,
    show,
    truth,
)
from logd.gotemplate.tokens import Source, Token
from logd.gotemplate.walk import CONSTANTS, Node, Parser, first


class Field(NamedTuple):
    """A field or method of the context, for contexts of one type."""

    kind: str
    get: Callable[[object], Value]
    takes_nil: bool = False
    """Whether it is a method with one argument, for which nil can be written."""


class _Expression(NamedTuple):
    """What is known of a value beforehand, and how to get it."""

    kind: str
    run: "Callable[[_Run], Value]"
    constant: Value = NO_VALUE


class _Run:
    """One evaluation: the context, and how many bytes it may still make."""

    def __init__(self, context: object) -> None:
        self.context = context
        self._left = MAX_BYTES

    def spend(self, text: str) -> str:
        self._left -= len(encoded(text))
        if self._left < 0:
            raise ValueError(f"template: it makes more than {MAX_BYTES} bytes of text")
        return text


_Node = Node[_Run]
_Builder = Callable[[list[_Expression]], _Expression]
"""Makes an operand's expression once its arguments are known."""


class Template:
    """A parsed template. Raises ValueError with Go's words where it has them, and the place."""

    def __init__(self, name: str, text: str, fields: Mapping[str, Field]) -> None:
        self._nodes = _Parser(Source(name, text), fields).parse()

    def run(self, context: object) -> str:
        """Return the text for a context. Raises ValueError when its values don't suit."""
        run = _Run(context)
        return "".join(run.spend(piece) for node in self._nodes for piece in node(run))


class _Parser(Parser[_Run, _Expression, _Builder]):
    blocks = chained = frozenset(("if",))
    refused = frozenset(("block", "break", "continue", "define", "range", "template", "with"))
    where = " in log tags"

    def __init__(self, source: Source, fields: Mapping[str, Field]) -> None:
        super().__init__(source)
        self._fields = fields

    def _action(self) -> _Node:
        return partial(_give_value, self._piped())

    def _block(self, at: int) -> _Node:
        self._deeper(at)
        word = self._take().text
        condition = self._piped()
        return partial(_give_branch, condition, *self._branches(word, at))

    def _piped(self) -> _Expression:
        """Parse a pipeline and the closing braces."""
        value = self._pipeline()
        if self._next.text == ")":
            self._source.fail(self._next.at, "unexpected right paren")
        self._close()
        return value

    def _command(self, before: _Expression | None) -> _Expression:
        """Parse one stage of a pipeline; what comes from the stage before is its last argument."""
        self._skip_space()
        at = self._next.at
        executable = self._next.kind in {"field", "name"} and self._next.text not in CONSTANTS
        executable = executable or self._next.text == "("
        head, *rest = self._operands()
        arguments = [build([]) for build in rest]
        if before is not None:
            if not executable:
                self._source.fail(at, "non executable command in pipeline")
            arguments.append(before)
        value = head(arguments)
        if value.constant is None:
            self._source.fail(at, "nil is not a command")
        return value

    def _operand(self) -> _Builder:
        token = self._take()
        if token.text == "(":
            value = self._parenthesis(token)
            return partial(self._chained, token, value, self._chain())
        if token.kind == "field":
            return partial(self._context_field, token, self._chain())
        if token.kind == "name" and token.text not in CONSTANTS:
            if token.text not in FUNCTIONS and token.text not in {"and", "or"}:
                self._source.fail(token.at, f'function "{token.text}" not defined in log tags')
            return partial(self._call, token)
        return partial(self._alone, token, self._constant(token))

    def _alone(self, token: Token, value: Value, arguments: list[_Expression]) -> _Expression:
        if arguments:
            self._source.fail(token.at, f"can't give argument to non-function {token.text}")
        return _Expression(kind_of(value), lambda _: value, value)

    def _context_field(self, token: Token, chain: list[Token], arguments: list[_Expression]) -> _Expression:
        name = token.text[1:]
        field = self._fields.get(name)
        if field is None:
            self._source.fail(token.at, f"can't evaluate field {name} (known: {', '.join(self._fields)})")
        own = [] if chain else arguments
        wanted = int(field.takes_nil)
        if len(own) != wanted:
            self._source.fail(token.at, f"wrong number of args for {name}: want {wanted} got {len(own)}")
        if own and own[0].kind != "nil":
            self._source.fail(token.at, f"{name}: its argument can only be nil")
        value = _Expression(field.kind, lambda run: field.get(run.context))
        return self._chained(token, value, chain, arguments) if chain else value

    def _chained(
        self, token: Token, value: _Expression, chain: list[Token], arguments: list[_Expression]
    ) -> _Expression:
        if arguments:
            self._source.fail(token.at, f"{token.text} has arguments but is not a method or function")
        for one in chain:
            if value.kind not in {"map", ANY}:
                self._source.fail(one.at, f"can't evaluate field {one.text[1:]} in type {value.kind}")
            value = _Expression(ANY, partial(self._key, value, one))
        return value

    def _key(self, value: _Expression, token: Token, run: _Run) -> Value:
        whole = value.run(run)
        if kind_of(whole) not in {"map", "nothing"}:
            self._source.fail(token.at, f"can't evaluate field {token.text[1:]} in type {kind_of(whole)}")
        return NO_VALUE if whole is NO_VALUE else whole.get(token.text[1:], NO_VALUE)

    def _call(self, token: Token, arguments: list[_Expression]) -> _Expression:
        name = token.text
        if name in {"and", "or"}:
            if not arguments:
                self._source.fail(token.at, f"wrong number of args for {name}: want at least 1 got 0")
            kinds = {argument.kind for argument in arguments}
            return _Expression(
                kinds.pop() if len(kinds) == 1 else ANY,
                partial(first, name == "or", [argument.run for argument in arguments]),
            )
        function = FUNCTIONS[name]
        try:
            check_arguments(name, function, [argument.kind for argument in arguments])
            if name == "printf" and type(arguments[0].constant) is str:
                check_format(arguments[0].constant, [argument.kind for argument in arguments[1:]])
        except ValueError as error:
            self._source.fail(token.at, str(error))

        def run(run: _Run) -> Value:
            values = [argument.run(run) for argument in arguments]
            run.spend("".join(value for value in values if type(value) is str))
            try:
                check_arguments(name, function, [kind_of(value) for value in values])
                result = function.call(*values)
            except ValueError as error:
                self._source.fail(token.at, f"error calling {name}: {error}")
            if type(result) is str:
                run.spend(result)
            return result

        return _Expression(function.result, run)


def _give_value(value: _Expression, run: _Run) -> Iterator[str]:
    result = value.run(run)
    yield "<no value>" if result in (None, NO_VALUE) else show(result)


def _give_branch(condition: _Expression, then: list[_Node], otherwise: list[_Node], run: _Run) -> Iterator[str]:
    for node in then if truth(condition.run(run)) else otherwise:
        yield from node(run)

"""Go's text/template over a JSON document: what `--format` of docker's commands takes.

Source: https://pkg.go.dev/text/template (Go 1.22), and Docker's own functions (see `functions`). Unlike log tags, whose
fields are known beforehand, a document shows what it has when a template is run. There are if, range, with, variables
and `.`; templates inside templates (block, define, template), break and continue are refused.

    {{.Name}} {{.Label "app"}} {{json .State}} {{with .State.Health}}{{.Status}}{{else}}none{{end}}
    {{range $port, $places := .NetworkSettings.Ports}}{{$port}} {{(index $places 0).HostPort}}{{println}}{{end}}
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

from logd.gotemplate.functions import FUNCTIONS, NO_VALUE, Function, Value, check_arguments, kind_of, show, truth
from logd.gotemplate.tokens import INSIDE, Source, Token
from logd.gotemplate.walk import CONSTANTS, Node, Parser, first

_TOKENS: Final = re.compile(
    rf"""{INSIDE.pattern}
      | (?P<variable>\$\w*)
      | (?P<assign>:=)
      | (?P<comma>,)
      | (?P<dot>\.)""",
    re.VERBOSE,
)


def _json(value: Value) -> str:
    """Return a value as JSON, an object's fields in the order in which they came."""
    return "null" if value is NO_VALUE else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _length(value: Value) -> int:
    return 0 if value is None else int(FUNCTIONS["len"].call(value))  # a list without anything is null in JSON


_FUNCTIONS: Final[Mapping[str, Function]] = {
    **FUNCTIONS,
    "json": Function(("any",), None, "string", _json),
    "len": Function(("any",), None, "int", _length),
    "println": Function((), "any", "string", lambda *values: f"{' '.join(map(show, values))}\n"),
}

Method = Callable[[str], str]
"""What a template calls with a string: `.Label "app"`."""


class _Scope:
    """Where a piece of the template is run: what `.` is, and the variables."""

    def __init__(self, dot: Value, methods: Mapping[str, Method], variables: Mapping[str, Value]) -> None:
        self.dot = dot
        self.methods = methods
        self.variables = dict(variables)

    def inner(self, dot: Value, **variables: Value) -> "_Scope":
        """Return a scope whose variables end with it."""
        return _Scope(dot, self.methods, {**self.variables, **variables})


_Expression = Callable[[_Scope], Value]
_Operand = Callable[[_Scope, list[Value]], Value]
"""It takes what stands behind it as arguments."""
_Node = Node[_Scope]


class Document:
    """A parsed template. Raises ValueError with Go's words where it has them, and the place."""

    def __init__(self, text: str) -> None:
        self._nodes = _Parser(Source("", text, _TOKENS)).parse()

    def run(self, value: Value, methods: Mapping[str, Method] | None = None) -> str:
        """Return the text for a JSON value. Raises ValueError where the value does not have what is asked for."""
        document = frozen(value)
        scope = _Scope(document, methods or {}, {"$": document})
        return "".join(piece for node in self._nodes for piece in node(scope))


def frozen(value: Value) -> Value:
    """Return JSON as the functions take it: tuples for lists."""
    if isinstance(value, dict):
        return {key: frozen(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(map(frozen, value))
    return value


class _Parser(Parser[_Scope, _Expression, _Operand]):
    blocks = frozenset(("if", "range", "with"))
    chained = frozenset(("if", "with"))
    refused = frozenset(("block", "break", "continue", "define", "template"))

    def _action(self) -> _Node:
        names = self._declared()
        if len(names) > 1:
            self._source.fail(self._next.at, "too many declarations")
        value = self._pipeline()
        self._close()
        return partial(_assign, names[0], value) if names else partial(_give_value, value)

    def _block(self, at: int) -> _Node:
        """Parse from the word if, range or with to after its {{end}}."""
        self._deeper(at)
        word = self._take().text
        self._skip_space()
        names = self._declared()
        if len(names) > (2 if word == "range" else 1):
            self._source.fail(at, f"too many declarations in {word}")
        value = self._pipeline()
        self._close()
        then, otherwise = self._branches(word, at)
        if word == "range":
            return partial(_give_each, names, value, then, otherwise)
        return partial(_give_branch, word == "with", names, value, then, otherwise)

    def _declared(self) -> list[str]:
        """Parse `$name :=` or `$name, $other :=`; a variable that is only used is left for the pipeline."""
        if self._next.kind != "variable":
            return []
        first = self._next
        names = [self._take().text]
        while True:
            space = self._next if self._next.kind == "space" else None
            self._skip_space()
            if self._next.kind == "comma":
                self._take()
                self._skip_space()
                if self._next.kind != "variable":
                    self._source.fail(self._next.at, "a variable is missing after the comma")
                names.append(self._take().text)
            elif self._next.kind == "assign":
                self._take()
                return names
            elif len(names) > 1:
                self._source.fail(self._next.at, "missing := after variables")
            else:
                self._push(first, *([space] if space else []))
                return []

    def _push(self, *tokens: Token) -> None:
        """Put tokens back before the next one."""
        following = [*tokens[1:], self._next]
        rest = self._tokens

        def again() -> Iterator[Token]:
            yield from following
            yield from rest

        self._tokens = again()
        self._next = tokens[0]

    def _command(self, before: _Expression | None) -> _Expression:
        """Parse one stage of a pipeline; what comes from the stage before is its last argument."""
        self._skip_space()
        word = self._next.text
        head, *rest = self._operands()
        if word in {"and", "or"} and (rest or before is not None):
            values: list[_Expression] = [partial(_alone, operand) for operand in rest]
            return partial(first, word == "or", values if before is None else [*values, before])

        def run(scope: _Scope) -> Value:
            arguments = [operand(scope, []) for operand in rest]
            return head(scope, arguments if before is None else [*arguments, before(scope)])

        return run

    def _operand(self) -> _Operand:
        token = self._take()
        if token.text == "(":
            return self._chained(token, self._parenthesis(token))
        if token.kind == "field":
            chain = self._chain()
            return partial(self._field, token, chain)
        if token.kind == "dot":
            return self._chained(token, lambda scope: scope.dot)
        if token.kind == "variable":
            return self._chained(token, partial(self._variable, token))
        if token.kind == "name" and token.text not in CONSTANTS:
            if token.text in {"and", "or"}:
                return partial(self._without_arguments, token)
            if token.text not in _FUNCTIONS:
                self._source.fail(token.at, f'function "{token.text}" not defined')
            return partial(self._call, token)
        constant = self._constant(token)
        return self._chained(token, lambda _: constant)

    def _chained(self, token: Token, value: _Expression) -> _Operand:
        chain = self._chain()

        def run(scope: _Scope, arguments: list[Value]) -> Value:
            if arguments:
                self._source.fail(token.at, f"can't give argument to non-function {token.text}")
            return self._follow(value(scope), chain)

        return run

    def _variable(self, token: Token, scope: _Scope) -> Value:
        if token.text not in scope.variables:
            self._source.fail(token.at, f'undefined variable "{token.text}"')
        return scope.variables[token.text]

    def _field(self, token: Token, chain: list[Token], scope: _Scope, arguments: list[Value]) -> Value:
        """Return a field of `.`, or what one of the document's methods returns."""
        name = token.text[1:]
        is_document = scope.dot is scope.variables["$"]
        method = scope.methods.get(name) if is_document and not chain else None
        if method is not None:
            if len(arguments) != 1 or not isinstance(arguments[0], str):
                self._source.fail(token.at, f"wrong number or type of args for {name}: want one string")
            return method(arguments[0])
        if arguments:
            self._source.fail(token.at, f"{token.text} has arguments but cannot be invoked as function")
        if is_document and isinstance(scope.dot, dict) and name not in scope.dot:
            self._source.fail(token.at, f"can't evaluate field {name} (known: {', '.join(scope.dot)})")
        return self._follow(scope.dot, [token, *chain])

    def _follow(self, value: Value, chain: list[Token]) -> Value:
        for token in chain:
            name = token.text[1:]
            if value is None or value is NO_VALUE:
                self._source.fail(token.at, f"nil pointer evaluating {token.text}")
            if not isinstance(value, dict):
                self._source.fail(token.at, f"can't evaluate field {name} in type {kind_of(value)}")
            value = value.get(name, NO_VALUE)
        return value

    def _call(self, token: Token, _scope: _Scope, arguments: list[Value]) -> Value:
        name = token.text
        function = _FUNCTIONS[name]
        try:
            check_arguments(name, function, [kind_of(value) for value in arguments])
            return function.call(*arguments)
        except ValueError as error:
            self._source.fail(token.at, f"error calling {name}: {error}")

    def _without_arguments(self, token: Token, _scope: _Scope, _arguments: list[Value]) -> Value:
        self._source.fail(token.at, f"wrong number of args for {token.text}: want at least 1 got 0")


def _alone(operand: _Operand, scope: _Scope) -> Value:
    return operand(scope, [])


def _give_value(value: _Expression, scope: _Scope) -> Iterator[str]:
    result = value(scope)
    yield "<no value>" if result in (None, NO_VALUE) else show(result)


def _assign(name: str, value: _Expression, scope: _Scope) -> Iterator[str]:
    scope.variables[name] = value(scope)
    yield from ()


def _give_branch(
    moves: bool, names: list[str], value: _Expression, then: list[_Node], otherwise: list[_Node], scope: _Scope
) -> Iterator[str]:
    result = value(scope)
    inner = scope.inner(result if moves and truth(result) else scope.dot, **dict.fromkeys(names, result))
    for node in then if truth(result) else otherwise:
        yield from node(inner)


def _give_each(
    names: list[str], value: _Expression, then: list[_Node], otherwise: list[_Node], scope: _Scope
) -> Iterator[str]:
    result = value(scope)
    pairs: list[tuple[Value, Value]] = []
    if isinstance(result, dict):
        pairs = sorted(result.items())
    elif isinstance(result, tuple):
        pairs = list(enumerate(result))
    elif result is not None and result is not NO_VALUE:
        raise ValueError(f"template: range can't iterate over {show(result)}")
    for pair in pairs:
        inner = scope.inner(pair[1], **dict(zip(names, pair if len(names) > 1 else pair[1:], strict=False)))
        for node in then:
            yield from node(inner)
    for node in otherwise if not pairs else ():
        yield from node(scope.inner(scope.dot))

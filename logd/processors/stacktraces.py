"""How stack traces of Python, Java, Go and Node look, line by line: for the log-opt `multiline`.

A preset is a set of rules: in this state, a line like that belongs to the trace and leads to that state. A trace may
end in any state but those with a question mark: what led there was no part of it. No such state leads to itself, so
that little is ever looked at twice.

Source: what CPython 3.11, OpenJDK 17, Go 1.19 and Node.js 20 print.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from logd.pattern import LinePattern

BEGIN: Final = ""
"""The state before a trace."""


class Rule(NamedTuple):
    """In `state`, a line in which `pattern` is found leads to the state `next`."""

    state: str
    pattern: str
    next: str


BLANK: Final = r"^\s*$"
PYTHON_BEGIN: Final = r"Traceback \(most recent call last\):\s*$"
PYTHON_GROUP: Final = r"^\s+\+ Exception Group Traceback \(most recent call last\):"
ERROR: Final = r"(?:Exception|Error|Throwable)(?: \[[^\]]+\])?(?::|\s*$)"
RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    "python": (
        Rule(BEGIN, PYTHON_BEGIN, "frames"),
        Rule(BEGIN, PYTHON_GROUP, "group"),
        Rule("frames", r"^[ \t]", "frames"),
        Rule("frames", r"^[\pL_][\pL\pN_.]*(?::|\s*$)", "raised"),
        Rule("group", r"^\s+[|+]", "group"),
        # "During handling of the above exception, another exception occurred:" between blank lines
        Rule("raised", BLANK, "?after"),
        Rule("group", BLANK, "?after"),
        Rule("?after", r"^(?:During handling of the above exception|The above exception was the direct)", "?between"),
        Rule("?between", BLANK, "?before"),
        Rule("?before", PYTHON_BEGIN, "frames"),
        Rule("?before", PYTHON_GROUP, "group"),
    ),
    "java": (
        Rule(BEGIN, f"^Exception in thread |{ERROR}", "frames"),
        Rule("frames", r"^\s+at \S", "frames"),
        Rule("frames", r"^\s+\.\.\. \d+ (?:more|common frames omitted)", "frames"),
        Rule("frames", r"^\s*(?:Caused by|Suppressed|Wrapped by|nested exception is): ", "frames"),
        Rule("frames", r"^\s*\[CIRCULAR REFERENCE", "frames"),
    ),
    "go": (
        Rule(BEGIN, r"^(?:panic|fatal error|runtime|SIG[A-Z]+): |panic serving |^goroutine \d+ \[", "frames"),
        Rule("frames", r"^\s+\S", "frames"),
        Rule("frames", r"^\S+\(.*\)\s*$|^created by |^goroutine \d+ \[|^\.\.\.", "frames"),
        Rule("frames", r"^\[signal |^PC=|^[a-z0-9]+\s+0x[0-9a-f]+\s*$", "frames"),
        Rule("frames", r"^exit status \d+\s*$", "end"),
        Rule("frames", BLANK, "?gap"),
        Rule("?gap", r"^goroutine \d+ \[|^[a-z0-9]+\s+0x[0-9a-f]+\s*$|^runtime stack:", "frames"),
    ),
    "node": (
        Rule(BEGIN, ERROR, "frames"),
        Rule(BEGIN, r"Error.*\{\s*$", "properties"),
        Rule("frames", r"^\s+(?:at \S|\.\.\. \d+ lines)", "frames"),
        Rule("frames", r"^\s+at .*\{\s*$", "properties"),
        Rule("frames", r"^Require stack:|^- \S", "frames"),
        Rule("properties", r"^\s+\S", "properties"),
        Rule("properties", r"^\}", "closed"),
        # an exception that nobody caught: place, code, caret, blank line, error
        Rule(BEGIN, r"^(?:node:|file://)?[^\s:]+:\d+\s*$", "?place"),
        Rule("?place", r"\S", "?code"),
        Rule("?code", r"^\s*\^+\s*$", "?caret"),
        Rule("?caret", BLANK, "?error"),
        Rule("?error", ERROR, "frames"),
        Rule("?error", r"Error.*\{\s*$", "properties"),
        Rule("frames", BLANK, "?version"),
        Rule("closed", BLANK, "?version"),
        Rule("?version", r"^Node\.js v\d", "end"),
    ),
}
NAMES: Final = tuple(RULES)
States = frozenset[str]
BEFORE: Final[States] = frozenset((BEGIN,))


class Machine:
    """The rules of some presets, all of which are followed at once; a state's name begins with its preset's."""

    def __init__(self, presets: Iterable[str]) -> None:
        self._rules: dict[str, list[tuple[LinePattern, str]]] = {}
        for preset in presets:
            for state, pattern, following in RULES[preset]:
                name = f"{preset} {state}" if state else BEGIN
                self._rules.setdefault(name, []).append((LinePattern(pattern), f"{preset} {following}"))
        self.begin = LinePattern("|".join(f"(?:{pattern.text})" for pattern, _ in self._rules[BEGIN]))
        """Found in lines with which a trace may begin."""

    def step(self, states: States, line: bytes) -> States:
        """Return the states to which a line leads, none if it is not part of the trace."""
        return frozenset(
            following for state in states for pattern, following in self._rules.get(state, ()) if pattern.found_in(line)
        )

    def may_go_on(self, states: States) -> bool:
        """Tell whether more lines may follow."""
        return any(state in self._rules for state in states)


def may_end(states: States) -> bool:
    """Tell whether a trace may end in one of these states."""
    return any("?" not in state for state in states)

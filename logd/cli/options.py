"""The arguments of `logs`, from text to typed values. With `getopt`: `argparse` takes longer to import than to use."""

import getopt
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from logd.cli.client import Query
from logd.cli.frames import parse_cursor
from logd.errors import InvalidParameter

GLOB: Final = frozenset("*?[")
"""Characters of patterns; container names have none of them."""
SHORT: Final = "fn:tg:al:H:hV"
LONG: Final = (
    "follow", "tail=", "since=", "until=", "timestamps", "grep=", "stream=", "json", "after=", "raw", "all", "label=",
    "color=", "host=", "help", "version", "complete",
)  # fmt: skip
FULL_NAMES: Final = {
    "-f": "--follow", "-n": "--tail", "-t": "--timestamps", "-g": "--grep", "-a": "--all", "-l": "--label",
    "-H": "--host", "-h": "--help", "-V": "--version",
}  # fmt: skip
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)


class Options(NamedTuple):
    """What `logs` is asked for. Times are ns since 1970; `after` has (container or "", positions)."""

    containers: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    every: bool = False
    follow: bool = False
    tail: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    timestamps: bool = False
    grep: str | None = None
    stdout: bool = True
    stderr: bool = True
    only_execs: bool = False
    as_json: bool = False
    after: tuple[tuple[str, tuple[int, int]], ...] = ()
    raw: bool = False
    colour: str = "auto"
    host: str | None = None
    action: str = "show"
    """`show`, `help`, `version` or `complete`."""

    @property
    def open_ended(self) -> bool:
        """Say whether containers are chosen by a glob, a label or --all, so that more may come."""
        return self.every or bool(self.labels) or any(not GLOB.isdisjoint(word) for word in self.containers)

    @property
    def query(self) -> Query:
        """The query of `/logd/containers/{id}/logs`, but for `after`."""
        query: dict[str, str | int | bool | list[str] | None] = {"stdout": self.stdout, "stderr": self.stderr}
        if self.follow:
            query["follow"] = True
            if not self.open_ended:  # else the starts of containers are watched
                query["restarts"] = True
        if self.tail is not None:
            query["tail"] = self.tail
        if self.since_ns is not None:
            query["since"] = _seconds(self.since_ns)
        if self.until_ns is not None:
            query["until"] = _seconds(self.until_ns)
        if self.grep is not None:
            query["grep"] = self.grep
        if self.only_execs:
            query["execs"] = True
        return query


def parse_options(arguments: Sequence[str]) -> Options:
    """Return the options. Raises InvalidParameter with a message that names option, value and what is accepted."""
    try:
        pairs, words = getopt.gnu_getopt(list(arguments), SHORT, LONG)
    except getopt.GetoptError as error:
        raise InvalidParameter(f"{error.msg[0].lower()}{error.msg[1:]}") from error
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(FULL_NAMES.get(name, name), []).append(value)
    for action in ("help", "version", "complete"):
        if f"--{action}" in values:
            return Options(action=action, host=_last(values, "--host"), containers=tuple(words))
    options = Options(
        containers=tuple(words),
        labels=tuple(values.get("--label", ())),
        every="--all" in values,
        follow="--follow" in values,
        tail=_tail(_last(values, "--tail")),
        since_ns=_moment("--since", _last(values, "--since")),
        until_ns=_moment("--until", _last(values, "--until")),
        timestamps="--timestamps" in values,
        grep=_last(values, "--grep"),
        as_json="--json" in values,
        after=tuple(map(_after, filter(None, values.get("--after", ())))),
        raw="--raw" in values,
        colour=_one_of("--color", _last(values, "--color") or "auto", ("auto", "always", "never")),
        host=_last(values, "--host"),
    )
    stream = _last(values, "--stream")
    if stream is not None:
        _one_of("--stream", stream, ("stdout", "stderr", "exec"))
        if stream == "exec":
            options = options._replace(only_execs=True)
        else:
            options = options._replace(stdout=stream == "stdout", stderr=stream == "stderr")
    _check_choice(options)
    return options


def _check_choice(options: Options) -> None:
    if not options.containers and not options.labels and not options.every:
        raise InvalidParameter("no container given (write a name, an id, a glob such as 'web-*', -l LABEL or --all)")
    if options.every and options.containers:
        raise InvalidParameter(f"--all means every container: leave {options.containers[0]!r} or --all out")


def _last(values: dict[str, list[str]], name: str) -> str | None:
    given = values.get(name)
    return given[-1] if given else None


def _one_of(name: str, value: str, accepted: tuple[str, ...]) -> str:
    if value not in accepted:
        raise InvalidParameter(f"{name}: invalid value {value!r} (accepted: {', '.join(accepted)})")
    return value


def _tail(text: str | None) -> int | None:
    """Return the count of lines; None is all of them, as is a negative number, which is what Docker makes of it."""
    if text is None or text == "all":
        return None
    try:
        count = int(text)
    except ValueError:
        raise InvalidParameter(f"--tail: invalid value {text!r} (write a number of lines, or all)") from None
    return None if count < 0 else count


def _moment(name: str, text: str | None) -> int | None:
    """Return the time of `--since` or `--until`. A bare clock time such as 14:30 is today's, local."""
    if text is None:
        return None
    from logd.units import parse_time  # noqa: PLC0415  # its patterns take 5 ms to compile

    clock = _CLOCK.fullmatch(text)
    if clock:
        import time  # noqa: PLC0415  # with it

        hour, minute, second = clock.groups()
        text = f"{time.strftime('%Y-%m-%d')}T{int(hour):02d}:{minute}:{second or '00'}"
    try:
        moment = parse_time(text)
    except ValueError as error:
        raise InvalidParameter(f"{name}: {str(error).removesuffix(')')}, or a clock time such as 14:30)") from error
    return None if moment == 0 else moment  # Docker takes 0 for no limit


def _after(text: str) -> tuple[str, tuple[int, int]]:
    container, _, cursor = text.rpartition("@")
    try:
        return container, parse_cursor(cursor)
    except ValueError:
        raise InvalidParameter(
            f"--after: invalid cursor {text!r} (copy one from --json: CONTAINER@1:OUT:ERR)"
        ) from None


def _seconds(time_ns: int) -> str:
    """Return Unix seconds with nine digits of fraction, the form of the API."""
    sign, time_ns = ("-", -time_ns) if time_ns < 0 else ("", time_ns)
    return f"{sign}{time_ns // 1_000_000_000}.{time_ns % 1_000_000_000:09d}"

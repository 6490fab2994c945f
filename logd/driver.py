"""What the author of a log driver needs: LogDriver, its options, and what `send` may raise.

    @dataclass(frozen=True, kw_only=True)
    class ExampleOptions(CommonOptions):
        example_address: tuple[str, int] = opt(parse_address, default=("localhost", 514), help="where the server is")

    class ExampleDriver(LogDriver[ExampleOptions]):
        name = "example"
        options_type = ExampleOptions

        async def open(self) -> None: …
        async def send(self, batch: Batch) -> None: …
        async def close(self) -> None: …

A field is the one home of a log-opt: `example_address` is `example-address`, its parser turns the text into the value
and raises ValueError with what is accepted. Options are checked when a container is created, never later.
"""
# ruff: noqa: RUF009  (opt is dataclasses.field with names for its metadata)

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Final, Generic, TypeVar

from logd import units
from logd.attributes import Attributes, parse_names, parse_regex
from logd.batch import Batch, ContainerInfo
from logd.errors import InvalidParameter
from logd.logtag import SHORT_ID, Tag, parse_tag
from logd.pattern import Pattern

__all__ = [
    "Batch",
    "CommonOptions",
    "ContainerInfo",
    "LogDriver",
    "OpenOptions",
    "Reject",
    "boolean",
    "duration",
    "log_opts",
    "one_of",
    "opt",
    "parse_options",
    "text",
    "whole",
]

log = logging.getLogger(__name__)

_REQUIRED: Final = object()
BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
"""Go's strconv.ParseBool."""


def opt(
    parse: Callable[[str], Any],
    *,
    default: Any = _REQUIRED,
    help: str = "",  # noqa: A002 - argparse's word
    is_secret: bool = False,
) -> Any:
    """Return a dataclass field for a log-opt. Without a default the option is required; a secret is not in the repr."""
    metadata = {"parse": parse, "help": help}
    if default is _REQUIRED:
        return field(metadata=metadata, repr=not is_secret)
    return field(default=default, metadata=metadata, repr=not is_secret)


def text(value: str) -> str:
    """Parse an option that is any text."""
    return value


def boolean(value: str) -> bool:
    """Parse an option that is true or false."""
    try:
        return BOOLEANS[value]
    except KeyError:
        raise ValueError(f"{value!r} (accepted: true, false)") from None


def whole(minimum: int, maximum: int = (1 << 31) - 1) -> Callable[[str], int]:
    """Return the parser of a whole number within bounds."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", value, re.ASCII) or not minimum <= int(value) <= maximum:
            raise ValueError(f"{value!r} is not a whole number from {minimum} to {maximum}")
        return int(value)

    return parse


def one_of(*accepted: str) -> Callable[[str], str]:
    """Return the parser of one of a few words."""

    def parse(value: str) -> str:
        if value not in accepted:
            raise ValueError(f"{value!r} (accepted: {', '.join(one or repr(one) for one in accepted)})")
        return value

    return parse


def duration(value: str) -> float:
    """Parse a Go duration that is not negative, such as `1s` or `250ms`; in seconds."""
    seconds = units.parse_duration_s(value)
    if seconds < 0:
        raise ValueError(f"{value!r}: a duration can't be negative")
    return seconds


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Log-opts that every driver takes. What a driver adds, it adds in a subclass, also frozen and kw_only.

    `__post_init__` may raise ValueError about options that don't go together.
    """

    tag: Tag | None = opt(parse_tag, default=None, help="template of the tag (Docker's log tags)")
    labels: tuple[str, ...] = opt(parse_names, default=(), help="labels to send along, comma-separated")
    labels_regex: Pattern | None = opt(parse_regex, default=None, help="labels to send along, by pattern")
    env: tuple[str, ...] = opt(parse_names, default=(), help="environment variables to send along, comma-separated")
    env_regex: Pattern | None = opt(parse_regex, default=None, help="variables to send along, by pattern")

    @property
    def attributes(self) -> Attributes:
        """Which labels and variables go along."""
        return Attributes(self.labels, self.labels_regex, self.env, self.env_regex)

    def tag_of(self, container: ContainerInfo) -> str:
        """Return the tag: the template filled in; the short id without one, or where it no longer suits a new name."""
        if self.tag is None:
            return container.id[:SHORT_ID]
        try:
            return self.tag.expand(container, self.attributes.of(container))
        except ValueError as error:
            log.warning("%s; the short id is the tag", error, extra={"container": container.id})
            return container.id[:SHORT_ID]

    def check_host(self) -> None:
        """Check what the options name on this host, such as files, when a container is created. Raises ValueError.

        Not asked again later: what is missing then makes `open` fail, which is tried again.
        """


@dataclass(frozen=True, kw_only=True)
class OpenOptions(CommonOptions):
    """The options of a driver that takes any log-opt, because what stands behind it checks them."""

    given: dict[str, str] = field(default_factory=dict)
    """All of them, as they were written: no log-opt itself."""


T = TypeVar("T")
O = TypeVar("O", bound=CommonOptions)  # noqa: E741 - options


def log_opts(options_type: type[Any]) -> dict[str, "Field[Any]"]:
    """Return the log-opts of a dataclass of options by their names, in the order of their definition."""
    return {one.name.replace("_", "-"): one for one in fields(options_type) if "parse" in one.metadata}


def parse_options(whose: str, options_type: type[T], values: Mapping[str, str], *, at_create: bool = False) -> T:
    """Turn log-opts into options. Raises InvalidParameter that names option, value and what is accepted.

    `whose` is what takes them, for the message, such as "syslog log driver". `at_create`: see CommonOptions.check_host.
    """
    known = log_opts(options_type)
    is_open = issubclass(options_type, OpenOptions)
    parsed: dict[str, Any] = {"given": dict(values)} if is_open else {}
    for name, value in values.items():
        if name not in known:
            if is_open:
                continue
            raise InvalidParameter(f"unknown log opt '{name}' for {whose} (known: {', '.join(known)})")
        try:
            parsed[known[name].name] = known[name].metadata["parse"](value)
        except ValueError as error:
            words = str(error)
            raise InvalidParameter(words if name in words else f"{name}: {words}") from error
    for name, one in known.items():
        if one.default is MISSING and one.default_factory is MISSING and one.name not in parsed:
            raise InvalidParameter(f"{name} is a required parameter of the {whose}")
    try:
        options = options_type(**parsed)
        if at_create and isinstance(options, CommonOptions):
            options.check_host()
    except ValueError as error:
        raise InvalidParameter(str(error)) from error
    return options


class Reject(Exception):
    """Raised by `send`: the destination will never take a record, however often it is sent.

    `record` is its number in the batch, from 0; the records before it must have been acknowledged (`batch.ack`), those
    after it are sent again. None: one of the batch's records is meant, it is not known which; delivery finds it out.
    The record goes to the dead-letter file with the reason.
    """

    def __init__(self, record: int | None, reason: str) -> None:
        super().__init__(reason)
        self.record = record
        self.reason = reason


class LogDriver(ABC, Generic[O]):
    """A destination, shared by all containers whose log-opts are equal; `batch.container` says whose lines they are.

    Delivery calls `open`, then `send` again and again, then `close`; all in one event loop. `send` has three outcomes:

    - it returns: the destination has taken responsibility for the whole batch (with `confirms` false: it was sent);
    - OSError, so also ConnectionError and TimeoutError, and EOFError: again, later, but for what `batch.ack` told of;
    - Reject: never.

    After any exception, cancellation by delivery's deadline included, `close` and `open` are called before the next
    `send`; `close` must not fail because of what is broken already. Anything else that is raised is taken for a bug:
    traceback in the daemon's log, the driver stopped, the cursor kept. A blocking library goes through
    `asyncio.to_thread`.
    """

    name: ClassVar[str]
    """By which `--log-driver` chooses it."""
    options_type: ClassVar[type[CommonOptions]]
    per_container: ClassVar[bool] = False
    """Whether each container has an instance of its own, although the options are equal."""
    is_local: ClassVar[bool] = False
    """Whether what is delivered goes with the container when that is removed; then a backlog need not be delivered."""
    max_in_flight: ClassVar[int] = 1
    """How many batches, of different containers, may be sent at a time."""
    max_record_bytes: int = 0
    """The largest line that the protocol takes, 0 for any; longer ones come in parts."""
    max_batch_records: int = 0
    """How many records a batch has at most, 0 for any; for what takes its time, but less than delivery's deadline."""
    confirms: bool = True
    """Whether a return of `send` means that the destination has the batch; else it counts as sent, unconfirmed."""

    def __init__(self, options: O) -> None:
        self.options = options
        self._extras: dict[str, tuple[str, dict[str, str]]] = {}

    @abstractmethod
    async def open(self) -> None:
        """Get ready to send. Raises OSError to be tried again later."""

    @abstractmethod
    async def send(self, batch: Batch) -> None:
        """Have the destination take the batch."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the destination; `open` may follow."""

    def resume(self, container: ContainerInfo, memo: bytes) -> None:
        """Hear, before a container's first batch in this process, what the last acknowledged batch left in `memo`."""

    def forget(self, container: ContainerInfo) -> None:
        """Hear that nothing more of a container will come."""
        self._extras.pop(container.id, None)

    def tag(self, container: ContainerInfo) -> str:
        """Return the container's tag: the option's template filled in, the short id without one."""
        return self._known(container)[0]

    def attributes(self, container: ContainerInfo) -> dict[str, str]:
        """Return the labels and environment variables that go along with the container's lines."""
        return self._known(container)[1]

    def _known(self, container: ContainerInfo) -> tuple[str, dict[str, str]]:
        known = self._extras.get(container.id)
        if known is None:
            known = self._extras[container.id] = self.options.tag_of(container), self.options.attributes.of(container)
        return known

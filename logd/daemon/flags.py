"""The flags of `logd daemon`: dockerd's names, for every key of daemon.json but logd's own.

A flag's value comes out as the JSON that the file would have, so that both are read by the same kinds.
"""

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final, NamedTuple, NoReturn

from logd.config import OPTIONS
from logd.daemon.dockerd_keys import ACCEPTED, REFUSED
from logd.errors import InvalidParameter

SHORT_FOREIGN: Final = {"bridge": "-b", "storage-driver": "-s"}


class Flags(NamedTuple):
    """What the command line asks for. `values`: key of daemon.json → JSON value, only those that were given."""

    values: dict[str, Any]
    config_file: str | None
    validate: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidParameter(f"{message}\nSee 'logd daemon --help'.")


class _Formatter(argparse.HelpFormatter):
    """`-D, --debug BOOL`: the short name first, the value once."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=110)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = ", ".join(sorted(action.option_strings, key=len))
        value = f" {action.metavar}" if action.metavar and action.nargs != "?" else ""
        return names + value


def parse_flags(argv: Sequence[str]) -> Flags:
    """Read the command line. Raises InvalidParameter; --help and --version print and exit with status 0."""
    parser = _build_parser()
    given, rest = parser.parse_known_args(argv)
    if rest:
        what = "unknown flag" if rest[0].startswith("-") else "accepts no arguments, got"
        raise InvalidParameter(f"{what}: {rest[0]}\nSee 'logd daemon --help'.")
    names = vars(given)
    config_file, validate = names.pop("config_file", None), names.pop("validate", False)
    return Flags({key: _gathered(key, value) for key, value in names.items()}, config_file, validate)


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="logd daemon",
        description="Run containers and keep every byte they print.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=_Formatter,
        usage="logd daemon [OPTIONS]",
        epilog="Each option but the first three is also a key of daemon.json: docs/configuration.md.",
    )
    parser.add_argument(
        "--config-file", metavar="PATH", help="daemon.json; default: /etc/logd/daemon.json if it exists"
    )
    parser.add_argument("--validate", action="store_true", help="check the configuration and exit")
    parser.add_argument(
        "-v", "--version", action="version", version=f"logd version {version('logd')}", help="show the version and exit"
    )
    for option in OPTIONS:
        if option.flag:
            names = [f"--{option.flag}", *([option.short] if option.short else [])]
            _add(parser, names, option.key[0], option.kind.shape, option.help)
    for key, foreign in {**ACCEPTED, **REFUSED}.items():
        if foreign.flag != "-":
            names = [f"--{foreign.flag or key}", *([SHORT_FOREIGN[key]] if key in SHORT_FOREIGN else [])]
            _add(parser, names, key, foreign.shape, argparse.SUPPRESS)
    return parser


def _add(parser: argparse.ArgumentParser, names: list[str], key: str, shape: str, text: str) -> None:
    text = text.replace("%", "%%")
    if shape == "bool":
        parser.add_argument(*names, dest=key, nargs="?", const="true", metavar="BOOL", help=text)
    elif shape in {"list", "map"}:
        parser.add_argument(*names, dest=key, action="append", metavar="VALUE", help=text)
    else:
        parser.add_argument(*names, dest=key, metavar="VALUE", help=text)


SHAPES: Final = {option.key[0]: option.kind.shape for option in OPTIONS if option.flag} | {
    key: foreign.shape for key, foreign in {**ACCEPTED, **REFUSED}.items()
}
BOOLEANS: Final = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
"""Go's strconv.ParseBool, in any case of letters."""


def _gathered(key: str, value: Any) -> Any:
    """Return the JSON value of a flag's text, or of the texts of one that may be repeated."""
    shape = SHAPES[key]
    if shape == "bool":
        if value.lower() not in BOOLEANS:
            raise InvalidParameter(f'invalid argument "{value}" for --{key} (true or false)')
        return BOOLEANS[value.lower()]
    if shape == "int":
        try:
            return int(value)
        except ValueError:
            raise InvalidParameter(f'invalid argument "{value}" for --{key} (a whole number)') from None
    if shape == "map":
        return dict(_pair(key, one) for one in value)
    return value


def _pair(key: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidParameter(f'invalid argument "{text}" for {key} (name=value)')
    return name, value

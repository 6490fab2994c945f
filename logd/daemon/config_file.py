"""daemon.json and flags → DaemonConfig, in dockerd's spirit: what is not understood is refused, by name.

A key in both is refused too (but for runtimes, which add up), since either could be meant. The file is JSON, may be
empty or begin with a byte order mark, and may not name a key twice.
"""

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from logd.config import OPTIONS, DaemonConfig, Option, stock_runtimes
from logd.config_kinds import SHAPE_TYPES
from logd.daemon.dockerd_keys import ACCEPTED, REFUSED, Foreign
from logd.daemon.flags import Flags, parse_flags
from logd.engine import logopts
from logd.errors import InvalidParameter

DEFAULT_FILE: Final = Path("/etc/logd/daemon.json")
MAX_FILE_BYTES: Final = 1 << 20
_BY_KEY: Final = {option.key: option for option in OPTIONS}
_ROOMS: Final = {option.key[1] for option in OPTIONS if option.key[0] == "logd"}
_KNOWN: Final = [*(".".join(option.key) for option in OPTIONS), *ACCEPTED, *REFUSED]


class Loaded(NamedTuple):
    """The settings, where they come from, and what the person should be told. `path` is None without a file."""

    config: DaemonConfig
    path: Path | None
    notices: list[str]
    validate: bool


def load(argv: Sequence[str], inherited: Mapping[str, tuple[int, int]] | None = None) -> Loaded:
    """Read flags and file. Raises InvalidParameter, whose text names each key, the file and what is accepted.

    `inherited` are ulimits, name → (soft, hard), that containers get where default-ulimits says nothing of them.
    """
    flags = parse_flags(argv)
    path = Path(flags.config_file) if flags.config_file is not None else DEFAULT_FILE
    if flags.config_file is None and not path.exists():
        return _loaded(flags, {}, None, inherited)
    try:
        return _loaded(flags, read_file(path), path, inherited)
    except InvalidParameter as error:
        raise InvalidParameter(f"unable to configure the daemon with file {path}: {error}") from error


def _loaded(
    flags: Flags, content: dict[str, Any], path: Path | None, inherited: Mapping[str, tuple[int, int]] | None
) -> Loaded:
    values, notices = _settings(flags, content, str(path or ""))
    if inherited:
        values["default_ulimits"] = {**inherited, **values.get("default_ulimits", {})}
    return Loaded(_complete(values), path, notices, flags.validate)


def read_file(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} for an empty one. Raises InvalidParameter with line and column."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise InvalidParameter(f"larger than {MAX_FILE_BYTES} bytes")
        text = raw.decode("utf-8-sig")
        found = json.loads(text, object_pairs_hook=_no_duplicates) if text.strip() else {}
    except OSError as error:
        raise InvalidParameter(str(error.strerror).lower()) from error
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidParameter("not a JSON object: write { } around the settings")
    return found


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InvalidParameter(f"the following directives are given more than once: {', '.join(twice)}")
    return found


def _settings(flags: Flags, content: dict[str, Any], file: str) -> tuple[dict[str, Any], list[str]]:
    """Return the values of DaemonConfig's fields that were given, and the notices."""
    settings = _flatten(content)
    _refuse_unknown([*settings])
    _refuse_conflicts(flags, settings)
    values: dict[str, Any] = {}
    notices = []
    from_flags: dict[tuple[str, ...], Any] = {(key,): value for key, value in flags.values.items()}
    for given, source in ((settings, file), (from_flags, "")):
        for key, value in given.items():
            if option := _BY_KEY.get(key):
                values[option.name] = _merge(values.get(option.name), _parsed(option, value, source))
            else:
                notices += _foreign(key[0], value, source)
    return values, notices


def _flatten(content: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    """Return path → value: dockerd's keys as they are, logd's own two levels down."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in content.items():
        if value is None:  # as for dockerd, null is as good as nothing
            continue
        if key == "logd":
            found |= _own(value)
        else:
            found[key,] = value
    return found


def _own(value: Any) -> dict[tuple[str, ...], Any]:
    accepted = 'an object such as {"store": {"max-total": "10g"}}'
    if not isinstance(value, dict) or not all(isinstance(one, dict | None) for one in value.values()):
        raise InvalidParameter(f"logd: invalid value {json.dumps(value)} (accepted: {accepted})")
    found: dict[tuple[str, ...], Any] = {("logd", room): None for room in value if room not in _ROOMS}
    for room in value.keys() & _ROOMS:
        found |= {("logd", room, key): one for key, one in (value[room] or {}).items() if one is not None}
    return found


def _refuse_unknown(paths: list[tuple[str, ...]]) -> None:
    unknown = [path for path in paths if path not in _BY_KEY and path[0] not in ACCEPTED and path[0] not in REFUSED]
    if not unknown:
        return
    names = [".".join(path) for path in unknown]
    close = [match for name in names for match in difflib.get_close_matches(name, _KNOWN, 1)]
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    accepted = ", ".join(sorted(".".join(key) for key in _BY_KEY))
    raise InvalidParameter(
        f"the following directives don't match any configuration option: {', '.join(names)} "
        f"({hint}accepted: {accepted})"
    )


def _refuse_conflicts(flags: Flags, settings: dict[tuple[str, ...], Any]) -> None:
    both = [key for key in flags.values if (key,) in settings and key != "runtimes"]
    if both:
        pairs = [
            f"{key}: (from flag: {_shown(flags.values[key])}, from file: {_shown(settings[key,])})" for key in both
        ]
        raise InvalidParameter(
            "the following directives are specified both as a flag and in the configuration file: " + ", ".join(pairs)
        )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _parsed(option: Option, value: Any, file: str) -> Any:
    key = ".".join(option.key)
    try:
        _check_texts(value)
        return option.kind.parse(value)
    except ValueError as error:
        reason = f"{error}; " if str(error) else ""
        where = f" in {file}" if file else f" of --{option.flag}"
        message = f"{key}: invalid value {json.dumps(value)}{where} ({reason}accepted: {option.kind.accepts})"
        raise InvalidParameter(message) from error


def _check_texts(value: Any) -> None:
    """Raise ValueError for text that can be no name, path or argument, wherever in the value it stands."""
    if isinstance(value, str):
        os.fsencode(value)  # raises UnicodeEncodeError, a ValueError, for half of a surrogate pair
        if "\0" in value:
            raise ValueError("a NUL character")
    elif isinstance(value, list):
        for one in value:
            _check_texts(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            _check_texts(key)
            _check_texts(one)


def _foreign(key: str, value: Any, file: str) -> list[str]:
    foreign = ACCEPTED.get(key) or REFUSED[key]
    where = f" in {file}" if file else f" of --{foreign.flag or key}"
    words, kind = SHAPE_TYPES[foreign.shape]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InvalidParameter(f"{key}: invalid value {json.dumps(value)}{where} (accepted: {words})")
    if foreign.only and value not in foreign.only:
        accepted = ", ".join(json.dumps(one) for one in foreign.only)
        raise InvalidParameter(
            f"{key}: {json.dumps(value)}{where} is not supported: {foreign.reason} (accepted: {accepted})"
        )
    return [_notice(key, foreign)] if key in ACCEPTED else []


def _notice(key: str, foreign: Foreign) -> str:
    return f"{key} ({foreign.reason})"


def _merge(old: Any, new: Any) -> Any:
    """Return runtimes of file and flags together; anything else is given once."""
    return {**old, **new} if isinstance(old, dict) else new


def _complete(values: dict[str, Any]) -> DaemonConfig:
    """Fill in what depends on other settings, and check what must fit together."""
    exec_root = values.get("exec_root", DaemonConfig.exec_root)
    values.setdefault("pidfile", exec_root / "logd.pid")
    socket = f"unix://{exec_root}/logd.sock"
    values["hosts"] = tuple(socket if host == "unix://" else host for host in values.get("hosts") or (socket,))
    values["runtimes"] = stock_runtimes() | values.get("runtimes", {})
    if not values.get("default_runtime"):
        values.pop("default_runtime", None)
    if not values.get("init_path"):
        values.pop("init_path", None)
    config = DaemonConfig(**values)
    _check(config)
    return config


def _check(config: DaemonConfig) -> None:
    if config.default_runtime not in config.runtimes:
        known = ", ".join(sorted(config.runtimes))
        raise InvalidParameter(f"specified default runtime '{config.default_runtime}' does not exist (known: {known})")
    try:
        logopts.check(config.log_driver, config.log_opts)
    except InvalidParameter as error:
        raise InvalidParameter(f"log-driver, log-opts: {error}") from error
    _check_paths(config)
    _check_tls(config)
    if config.userns_remap:
        from logd.runtime import subids  # noqa: PLC0415 - seldom needed

        subids.load(config.userns_remap)


def _check_paths(config: DaemonConfig) -> None:
    for key, path in (("data-root", config.data_root), ("exec-root", config.exec_root)):
        if path.exists() and not path.is_dir():
            raise InvalidParameter(f"{key}: {path} is not a directory")
    if config.seccomp_profile not in {"", "builtin", "unconfined"}:
        _check_seccomp(config.seccomp_profile)


def _check_seccomp(profile: str) -> None:
    from logd.runtime import seccomp  # noqa: PLC0415 - needed for a profile of one's own only

    try:
        seccomp.translate(seccomp.parse(Path(profile).read_bytes(), profile), [])
    except (OSError, ValueError, InvalidParameter) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidParameter(
            f"seccomp-profile: {profile}: {reason} (accepted: the path of a JSON file in the format of Docker's "
            "profiles, builtin, or unconfined)"
        ) from error


def _check_tls(config: DaemonConfig) -> None:
    if config.tls and not config.tlsverify:
        raise InvalidParameter("tls: clients must be verified too: set tlsverify, tlscacert, tlscert and tlskey")
    remote = [host for host in config.hosts if host.startswith("tcp://")]
    if remote and not config.tlsverify:
        raise InvalidParameter(
            f"hosts: {remote[0]}: whoever reaches the API is root on this machine, so that TCP needs tlsverify with "
            "tlscacert, tlscert and tlskey"
        )
    if config.tlsverify:
        for key in ("tlscacert", "tlscert", "tlskey"):
            path = getattr(config, key)
            if not path or not os.access(path, os.R_OK):
                raise InvalidParameter(f"{key}: {path or 'not set'}: tlsverify needs a readable PEM file")

"""`userns-remap`: whose subordinate ids containers get, and the mapping that these make.

Source: dockerd's reference (userns-remap); subuid(5), subgid(5): `name:first:count`, or the number in the name's place.
"""

import grp
import pwd
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from logd.errors import InvalidParameter
from logd.idmap import MAX_RANGES, IdMap, consecutive

DEFAULT: Final = "default"
DEFAULT_USER: Final = "dockremap"
"""dockerd's, which makes it where it is missing; here the host's files are not written."""
ACCEPTED: Final = "default, USER, USER:GROUP, UID or UID:GID, with subordinate ids in /etc/subuid and /etc/subgid"
SUBUID: Final = Path("/etc/subuid")
SUBGID: Final = Path("/etc/subgid")
MAX_ID: Final = (1 << 32) - 2
"""The highest that can be mapped: 2^32-1 is no id."""
_NAME: Final = re.compile(r"[^\s:]+")
_COUNT: Final = 65536
"""What useradd(8) gives to a user, for words."""


class Owner(NamedTuple):
    """Under which keys the ids of a user or group may stand, and how it was named."""

    name: str
    keys: frozenset[str]


def owners(value: str) -> tuple[Owner, Owner] | None:
    """Read `userns-remap`: the user and the group, None for none, or root, as in dockerd. Raises InvalidParameter."""
    if value in {"", "root", "0"}:
        return None
    user, colon, group = (DEFAULT_USER if value == DEFAULT else value).partition(":")
    if not _NAME.fullmatch(user) or (colon and not _NAME.fullmatch(group)):
        raise InvalidParameter(f"userns-remap: invalid value {value!r} (accepted: {ACCEPTED})")
    owner = _owner(user, _user_keys)
    return owner, _owner(group, _group_keys) if colon else owner


def load(value: str, subuid: Path = SUBUID, subgid: Path = SUBGID) -> IdMap | None:
    """Return the mapping that `userns-remap` asks for, None for none. Raises InvalidParameter, with what to add."""
    found = owners(value)
    if found is None:
        return None
    user, group = found
    return IdMap(uids=consecutive(_blocks(subuid, user)), gids=consecutive(_blocks(subgid, group)))


def parse(text: str, owner: Owner, file: str) -> list[tuple[int, int]]:
    """Return the (first, count) blocks of an owner in a file of subordinate ids, in its order.

    Raises InvalidParameter, which names the line; those of others are not looked at.
    """
    blocks: list[tuple[int, int]] = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.strip().split(":")
        if fields[0] not in owner.keys:
            continue
        where = f"{file}, line {number}"
        if len(fields) != 3 or not all(
            field.isascii() and field.isdecimal() and len(field) < 20 for field in fields[1:]
        ):
            raise InvalidParameter(f"{where}: {line.strip()!r} is not name:first:count")
        first, count = int(fields[1]), int(fields[2])
        if not 0 < first <= first + count - 1 <= MAX_ID:
            raise InvalidParameter(f"{where}: {first}:{count} are not ids from 1 to {MAX_ID} (0 is the host's root)")
        if any(first < other + size and other < first + count for other, size in blocks):
            raise InvalidParameter(f"{where}: {first}:{count} has ids that {owner.name} has already")
        blocks.append((first, count))
    if len(blocks) > MAX_RANGES:
        raise InvalidParameter(f"{file}: {len(blocks)} ranges of {owner.name} (accepted: {MAX_RANGES})")
    return blocks


def _blocks(path: Path, owner: Owner) -> Sequence[tuple[int, int]]:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise InvalidParameter(f"userns-remap: {path}: {error.strerror}") from error
    blocks = parse(text, owner, str(path))
    if not blocks:
        raise InvalidParameter(
            f"userns-remap: {path} has no ids for {owner.name}: add a line like {owner.name}:100000:{_COUNT}, with "
            "ids that nobody else has"
        )
    return blocks


def _owner(text: str, keys_of: Callable[[str], set[str]]) -> Owner:
    return Owner(text, frozenset({text, *keys_of(text)}))


def _user_keys(text: str) -> set[str]:
    """Return name and number of a user that the host knows."""
    try:
        entry = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
    except (KeyError, OverflowError):
        return set()
    return {entry.pw_name, str(entry.pw_uid)}


def _group_keys(text: str) -> set[str]:
    try:
        entry = grp.getgrgid(int(text)) if text.isdecimal() else grp.getgrnam(text)
    except (KeyError, OverflowError):
        return set()
    return {entry.gr_name, str(entry.gr_gid)}

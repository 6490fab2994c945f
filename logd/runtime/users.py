"""Who the container's process is: `user[:group]` looked up in the container's own /etc/passwd and /etc/group.

The rules and words are those of Docker and runc (moby/sys/user): a number is always an id, an id without an entry
is fine, a name without one is refused, and an explicit group drops the user's supplementary ones.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from logd.errors import InvalidParameter
from logd.runtime.inroot import open_directory, opened, read_regular

MAX_ID = (1 << 31) - 1  # Docker's and runc's bound; ids beyond it wrapped to 0 in the past (CVE-2024-40635)


@dataclass(frozen=True)
class User:
    """Numeric ids; `groups` are all group ids of the process, the primary one first."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve_user(rootfs: Path | str, user: str, group_add: Sequence[str] = ()) -> User:
    """Look up `user`, `uid`, `user:group`, … in the root; raises InvalidParameter in Docker's words."""
    with opened(open_directory(rootfs)) as root:
        passwd = read_regular(root, "etc/passwd") or b""
        group = read_regular(root, "etc/group") or b""
    return lookup(passwd, group, user, group_add)


def lookup(passwd: bytes, group: bytes, user: str, group_add: Sequence[str] = ()) -> User:
    """Do the same on the files' content."""
    user_part, group_part = [*user.split(":"), ""][:2]  # Docker takes no notice of a third part
    name, uid, gid, home = _find_user(passwd, user_part or "0")
    supplementary: list[int] = []
    if group_part:
        gid = _find_group(group, group_part, "unable to find group")
    elif name:
        supplementary = [entry_gid for _, entry_gid, members in _groups(group) if name in members]
    added = [_find_group(group, wanted, "Unable to find group") for wanted in group_add]
    return User(uid, gid, tuple(dict.fromkeys([gid, *supplementary, *added])), home)


def _find_user(passwd: bytes, wanted: str) -> tuple[str, int, int, str]:
    number = _number(wanted)
    for name, uid, gid, home in _users(passwd):
        if uid == number if number is not None else name == wanted:
            return name, _checked(uid), _checked(gid), home
    if number is None:
        raise InvalidParameter(f"unable to find user {wanted}: no matching entries in passwd file")
    return "", _checked(number), 0, "/"


def _find_group(group: bytes, wanted: str, words: str) -> int:
    number = _number(wanted)
    for name, gid, _ in _groups(group):
        if gid == number if number is not None else name == wanted:
            return _checked(gid)
    if number is None:
        raise InvalidParameter(f"{words} {wanted}: no matching entries in group file")
    return _checked(number)


def _number(text: str) -> int | None:
    return int(text) if text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20 else None


def _checked(number: int) -> int:
    if not 0 <= number <= MAX_ID:
        raise InvalidParameter(f"uids and gids must be in range 0-{MAX_ID}: {number}")
    return number


def _users(content: bytes) -> Iterator[tuple[str, int, int, str]]:
    """Yield passwd(5) entries; lines that are none are passed over."""
    for fields in _entries(content, 6):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None:
            yield fields[0], uid, gid, fields[5] or "/"


def _groups(content: bytes) -> Iterator[tuple[str, int, list[str]]]:
    """Yield group(5) entries."""
    for fields in _entries(content, 3):
        gid = _number(fields[2])
        if gid is not None:
            yield fields[0], gid, fields[3].split(",") if len(fields) > 3 else []


def _entries(content: bytes, least: int) -> Iterator[list[str]]:
    for line in os.fsdecode(content).split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= least and fields[0]:
            yield fields

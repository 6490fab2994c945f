"""Who may talk to the daemon, and who may look into its folders.

Whoever may write to its socket is root on this host, as with Docker's.
"""

import grp
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from logd.doctor.check import FAIL, OK, WARN, Check

OTHERS_WRITE: Final = 0o002
OTHERS_LIST: Final = 0o004
GROUP_WRITES: Final = 0o020


def sockets(paths: Sequence[Path], group: str) -> Check:
    """Check the sockets; `group` is the one that may use them. One that is not there yet is in order."""
    wanted = _number(group)
    if wanted is None:
        advice = f"groupadd --system {group}, add people to it (usermod -aG {group} USER), restart logd"
        return Check("sockets", WARN, f"there is no group {group}: only root may talk to the daemon", advice)
    found, problems = [], []
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        mode = stat.S_IMODE(status.st_mode)
        found.append(f"{path} {mode:04o} {_user(status.st_uid)}:{_group(status.st_gid)}")
        if mode & OTHERS_WRITE:
            return Check("sockets", FAIL, f"{found[-1]}: every user of this host is root", f"chmod 0660 {path}")
        if mode & GROUP_WRITES and status.st_gid not in {0, wanted}:
            problems.append(f"{found[-1]}: another group than {group}")
    if problems:
        return Check("sockets", WARN, "; ".join(problems), f"restart logd; chgrp {group} and chmod 0660 do until then")
    return Check("sockets", OK, "; ".join(found) or "none is there")


def folders(paths: Sequence[Path], owner: int) -> Check:
    """Check the folders of the daemon, which runs as the user `owner`; one that is not there yet is in order."""
    found = []
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        mode = stat.S_IMODE(status.st_mode)
        shown = f"{path} {mode:04o} {_user(status.st_uid)}:{_group(status.st_gid)}"
        if status.st_uid not in {owner, 0} or mode & (OTHERS_WRITE | GROUP_WRITES):
            advice = f"chown root:root {path}; chmod 0711 {path}; see what has been changed in it"
            return Check("folders", FAIL, f"{shown}: others than root may put containers and images there", advice)
        if mode & OTHERS_LIST:
            return Check("folders", WARN, f"{shown}: every user may list it", f"chmod 0711 {path}")
        found.append(shown)
    return Check("folders", OK, "; ".join(found) or "not made yet")


def _number(group: str) -> int | None:
    """Return a group's number, 0 for "", which is root alone; None if there is no such group."""
    if not group or group.isdecimal():
        return int(group or 0)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)

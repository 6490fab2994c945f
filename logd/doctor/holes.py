"""OCI runtimes of which it is known that a container can get out: by their versions, which say it only roughly.

A distribution mends the version it has and keeps its number, so an old number is a warning and no failure. Sources:
runc's CHANGELOG.md and security advisories, crun's NEWS and advisories, Debian's changelog of runc.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from logd.doctor.check import OK, WARN, Check

NAME: Final = "holes of runtimes"
VERSION: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:-?rc\.?(\d+))?")
FINAL: Final = 1 << 30
"""Stands for the number of a release candidate in what is none: it comes after all of them."""

Version = tuple[int, int, int, int]


class Hole(NamedTuple):
    """`mended` has the first good version of each line of releases, the oldest first; `what` is what can be done."""

    names: tuple[str, ...]
    mended: tuple[str, ...]
    what: str


HOLES: Final = {
    "runc": (
        Hole(("CVE-2023-27561", "CVE-2023-28642"), ("1.1.5",), "AppArmor and SELinux are bypassed"),
        Hole(("CVE-2024-21626",), ("1.1.12",), "a container gets out by a leaked descriptor"),
        Hole(("CVE-2024-45310",), ("1.1.14", "1.2.0-rc.3"), "a container makes empty files on the host"),
        Hole(
            ("CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"),
            ("1.2.8", "1.3.3", "1.4.0-rc.3"),
            "a container writes to the host's /proc",
        ),
    ),
    "crun": (
        Hole(("CVE-2022-27650",), ("1.4.4",), "an exec has capabilities too many"),
        Hole(("CVE-2025-24965",), ("1.20",), "a container under krun writes files of the host"),
    ),
}
BACKPORTED: Final = {"1.1.5+ds1-1+deb12u1": frozenset(("CVE-2024-21626",))}
"""By a package's version, which its runtime says as its commit: what has been mended in it."""


def holes(versions: Mapping[str, Mapping[str, str]]) -> Check:
    """Check the runtimes; of each the `version` and the `commit` that it says it has, by its name."""
    found, old = [], []
    for name, said in sorted(versions.items()):
        kind = _kind(name)
        version = parse_version(said.get("version", ""))
        if kind is None or version is None:
            continue
        commit = said.get("commit", "")
        present = [hole for hole in HOLES[kind] if is_open(hole, version) and not _is_backported(hole, commit)]
        if present:
            old.append(kind)
            shown = f"{name} {said['version']}" + (f" ({commit})" if commit.startswith(f"{version[0]}.") else "")
            found.append(f"{shown} is older than the fix of {_listed(present)}")
    if not found:
        return Check(NAME, OK, "none is known in the runtimes that are installed")
    wanted = "; ".join(f"{kind} {' or '.join(HOLES[kind][-1].mended)}" for kind in sorted(set(old)))
    advice = (
        f"install {wanted}, or newer; a distribution's package may have the fixes under an old number: its changelog "
        f"tells (`apt changelog {old[0]}`, `rpm -q --changelog {old[0]}`)"
    )
    return Check(NAME, WARN, "; ".join(found), advice)


def parse_version(text: str) -> Version | None:
    """Return a version's numbers, to be compared; None for what is none. What follows a `+` does not count."""
    match = VERSION.match(text)
    if match is None:
        return None
    major, minor, patch, candidate = match.groups()
    return int(major), int(minor), int(patch or 0), int(candidate) if candidate else FINAL


def is_open(hole: Hole, version: Version) -> bool:
    """Say whether a version has the hole: it is older than what mended it in its line, or than all lines that were."""
    mended = [parsed for text in hole.mended if (parsed := parse_version(text))]
    in_line = [fix for fix in mended if fix[:2] == version[:2]]
    return version < (in_line or mended)[0]


def _kind(name: str) -> str | None:
    """Return whose holes a runtime has, by the name of its program."""
    return next((kind for kind in HOLES if name.rpartition("/")[2].startswith(kind)), None)


def _is_backported(hole: Hole, commit: str) -> bool:
    return set(hole.names) <= BACKPORTED.get(commit, frozenset())


def _listed(present: list[Hole]) -> str:
    return ", ".join(f"{', '.join(hole.names)} ({hole.what})" for hole in present)

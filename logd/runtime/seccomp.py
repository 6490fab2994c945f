"""A seccomp profile in Docker's format → the `linux.seccomp` section of an OCI bundle.

Docker's profiles name conditions (capabilities, architectures, kernel) that the OCI format does not know: they are
decided here, for one container. Source: Docker's documentation "Seccomp security profiles", OCI runtime
specification, config-linux.md "Seccomp".
"""

import json
import os
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from logd.errors import InvalidParameter

STANDARD_LOCATIONS: Final = (
    Path("/etc/containers/seccomp.json"),
    Path("/usr/share/containers/seccomp.json"),  # Debian: golang-github-containers-common
)
ARCHITECTURES: Final = {  # machine → name in a profile's conditions, libseccomp's name
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
}
PASSED_ON: Final = ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata")


def default_profile(path: str = "") -> dict[str, Any]:
    """Read the daemon's profile: the file at `path`, else the first of the standard locations.

    Raises InvalidParameter if there is none: a container without a filter must be asked for.
    """
    candidates = [Path(path)] if path else list(STANDARD_LOCATIONS)
    for candidate in candidates:
        try:
            return parse(candidate.read_bytes(), str(candidate))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InvalidParameter(f"seccomp profile {candidate}: {error.strerror}") from error
    raise InvalidParameter(
        f"no seccomp profile: {' and '.join(map(str, candidates))} do not exist (install "
        "golang-github-containers-common, set seccomp-profile, or run it with --security-opt seccomp=unconfined)"
    )


def parse(content: bytes | str, source: str) -> dict[str, Any]:
    """Read a profile's JSON; raises InvalidParameter that names the source."""
    try:
        profile = json.loads(content)
    except ValueError as error:
        raise InvalidParameter(f"Decoding seccomp profile failed: {source}: {error}") from error
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise InvalidParameter(f"Decoding seccomp profile failed: {source}: an object with a defaultAction is needed")
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidParameter(f"{source}: use either 'architectures' or 'archMap'")
    return profile


def translate(
    profile: dict[str, Any], capabilities: Collection[str], *, machine: str = "", kernel: str = ""
) -> dict[str, Any]:
    """Decide the profile's conditions for a container with these capabilities, on this machine and kernel."""
    arch, scmp_arch = ARCHITECTURES.get(machine or platform.machine(), ("", ""))
    release = _version(kernel or os.uname().release)
    result: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    result.update({name: profile[name] for name in PASSED_ON if profile.get(name) is not None})
    architectures = profile.get("architectures") or _architectures(profile.get("archMap") or [], scmp_arch)
    if architectures:
        result["architectures"] = architectures
    try:
        result["syscalls"] = [
            _rule(rule)
            for rule in profile.get("syscalls") or []
            if _included(rule.get("includes") or {}, arch, capabilities, release)
            and not _excluded(rule.get("excludes") or {}, arch, capabilities, release)
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidParameter(f"Decoding seccomp profile failed: a rule is malformed: {error!r}") from error
    return result


def _architectures(arch_map: list[dict[str, Any]], native: str) -> list[str]:
    for entry in arch_map:
        if entry.get("architecture") == native:
            return [native, *(entry.get("subArchitectures") or [])]
    return []


def _included(condition: dict[str, Any], arch: str, capabilities: Collection[str], release: tuple[int, int]) -> bool:
    """All that is named must hold."""
    if condition.get("arches") and arch not in condition["arches"]:
        return False
    if any(name not in capabilities for name in condition.get("caps") or []):
        return False
    return not condition.get("minKernel") or release >= _version(condition["minKernel"])


def _excluded(condition: dict[str, Any], arch: str, capabilities: Collection[str], release: tuple[int, int]) -> bool:
    """One that holds is enough."""
    if arch in (condition.get("arches") or []):
        return True
    if any(name in capabilities for name in condition.get("caps") or []):
        return True
    return bool(condition.get("minKernel")) and release >= _version(condition["minKernel"])


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    names = rule.get("names") or [rule["name"]]
    result: dict[str, Any] = {"names": names, "action": rule["action"]}
    if rule.get("errnoRet") is not None:
        result["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        result["args"] = [
            {"index": arg["index"], "value": arg["value"], "valueTwo": arg.get("valueTwo", 0), "op": arg["op"]}
            for arg in rule["args"]
        ]
    return result


def _version(text: str) -> tuple[int, int]:
    """`6.18.44-fc` → (6, 18)."""
    major, minor, *_ = [*text.replace("-", ".").split("."), "0"]
    return int(major), int(minor)

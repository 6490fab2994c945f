"""A seccomp profile in Docker's format → the `linux.seccomp` section of an OCI bundle.

Docker's profiles name conditions (capabilities, architectures, kernel) that the OCI format does not know: they are
decided here, for one container. Source: Docker's documentation "Seccomp security profiles", OCI runtime
specification, config-linux.md "Seccomp".
"""

import json
import os
import platform
from collections.abc import Collection
from errno import ENOSYS, EPERM
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
_NEW_MOUNT_CALLS: Final = ("fsconfig", "fsmount", "fsopen", "fspick", "mount_setattr", "move_mount", "open_tree")
_ADMIN: Final = "CAP_SYS_ADMIN"
GATED: Final = (  # what Docker's profile allows only with one of these capabilities, and others may allow to everybody
    ((_ADMIN,), frozenset(["mount", "umount", "umount2", "unshare", "setns", "clone", "clone3", *_NEW_MOUNT_CALLS])),
    (("CAP_SYS_BOOT",), frozenset(["reboot"])),
    (("CAP_SYS_NICE",), frozenset(["get_mempolicy", "mbind", "set_mempolicy"])),
    (("CAP_SYS_PTRACE",), frozenset(["pidfd_getfd"])),
    ((_ADMIN, "CAP_SYSLOG"), frozenset(["syslog"])),
    ((_ADMIN, "CAP_BPF"), frozenset(["bpf"])),
    ((_ADMIN, "CAP_PERFMON"), frozenset(["perf_event_open"])),
)
GIVEN: Final = frozenset(["io_pgetevents", "io_pgetevents_time64", "vmsplice"])
REPLACED: Final = GIVEN | {"bpf", "perf_event_open", "socket"}  # podman's rules for them are not Docker's
NEVER: Final = frozenset(["keyctl", "pivot_root"])  # keyrings have no namespace
NEW_NAMESPACES: Final = 0x7E020000  # clone(2): CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
AF_VSOCK: Final = 40  # sys/socket.h; it reaches the hypervisor from any network namespace
ALLOW, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
PASSED_ON: Final = ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata")


def default_profile(path: str = "") -> dict[str, Any]:
    """Read the daemon's profile: the file at `path`, else the first of the standard locations, tightened.

    Raises InvalidParameter if there is none: a container without a filter must be asked for.
    """
    candidates = [Path(path)] if path else list(STANDARD_LOCATIONS)
    for candidate in candidates:
        try:
            profile = parse(candidate.read_bytes(), str(candidate))
            return profile if path else tighten(profile)
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


def tighten(profile: dict[str, Any]) -> dict[str, Any]:
    """Put the capabilities that Docker's profile asks for before calls that a profile allows without a condition.

    Debian's profile is podman's: it lets every container make user namespaces, which widens the kernel's attack
    surface, use the kernel's keyrings, and talk to the hypervisor. On the other side it denies io_pgetevents(2), which
    databases need, and knows neither CAP_BPF nor CAP_PERFMON: where it differs, Docker's rule is taken.

    Source: Docker's documentation "Seccomp security profiles", "Significant syscalls blocked by the default profile";
    seccomp/default.json of github.com/moby/profiles.
    """
    replaced = REPLACED if _is_podmans(profile) else frozenset()
    guarded = NEVER.union(*(names for _, names in GATED))
    rules: list[dict[str, Any]] = []
    loose = {*replaced} & guarded
    for rule in profile.get("syscalls") or []:
        names = rule.get("names") or [rule["name"]]
        taken = replaced | (guarded if _is_for_all(rule) else frozenset())
        loose |= taken & guarded.intersection(names)
        kept = [name for name in names if name not in taken]
        rules += [rule] if kept == names else [{**rule, "names": kept}]
    for capabilities, names in GATED:
        found = sorted(names & loose)
        denied = [name for name in found if name not in {"clone", "clone3"}]
        rules += [{"names": found, "action": ALLOW, "includes": {"caps": [one]}} for one in capabilities]
        rules.append({"names": denied, "action": ERRNO, "errnoRet": EPERM, "excludes": {"caps": list(capabilities)}})
    rules.append({"names": sorted(NEVER & loose), "action": ERRNO, "errnoRet": EPERM})
    rules += [*_clone_rules(loose), *(_podmans_replaced() if replaced else [])]
    return {**profile, "syscalls": [rule for rule in rules if rule.get("names") != []]}


def _is_for_all(rule: dict[str, Any]) -> bool:
    return rule.get("action") == ALLOW and not any(rule.get(key) for key in ("args", "includes", "excludes"))


def _is_podmans(profile: dict[str, Any]) -> bool:
    """Tell podman's profile, which allows mount(2) to everybody, from one that was made with other ideas."""
    return any(_is_for_all(rule) and "mount" in (rule.get("names") or []) for rule in profile.get("syscalls") or [])


def _podmans_replaced() -> list[dict[str, Any]]:
    """Return Docker's rules for what podman's profile denies to all, and for sockets."""
    vsock = {"index": 0, "value": AF_VSOCK, "valueTwo": 0}
    return [
        {"names": sorted(GIVEN), "action": ALLOW},
        {"names": ["socket"], "action": ALLOW, "args": [{**vsock, "op": "SCMP_CMP_NE"}]},
        {"names": ["socket"], "action": ERRNO, "errnoRet": EPERM, "args": [{**vsock, "op": "SCMP_CMP_EQ"}]},
    ]


def _clone_rules(loose: set[str]) -> list[dict[str, Any]]:
    """Allow processes, but no new namespaces; clone3's flags can't be seen, so libc has to fall back on clone."""
    no_admin = ["CAP_SYS_ADMIN"]
    s390 = ["s390", "s390x"]  # there the flags are the second argument
    flags = [1 << bit for bit in range(32) if NEW_NAMESPACES >> bit & 1]
    clone: list[dict[str, Any]] = []
    for index, when in ((0, {"excludes": {"caps": no_admin, "arches": s390}}), (1, _only_on(s390, no_admin))):
        clone.append({"action": ALLOW, "args": [_flags(index, NEW_NAMESPACES, 0)], **when})
        clone += [{"action": ERRNO, "errnoRet": EPERM, "args": [_flags(index, one, one)], **when} for one in flags]
    clone3 = {"names": ["clone3"], "action": ERRNO, "errnoRet": ENOSYS, "excludes": {"caps": no_admin}}
    return [
        *({"names": ["clone"], **rule} for rule in clone if "clone" in loose),
        *([clone3] if "clone3" in loose else []),
    ]


def _only_on(arches: list[str], without: list[str]) -> dict[str, Any]:
    return {"includes": {"arches": arches}, "excludes": {"caps": without}}


def _flags(index: int, mask: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


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

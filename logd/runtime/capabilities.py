"""Linux capabilities by Docker's names: the default set, `--cap-add`, `--cap-drop`, `--privileged`.

Source: capabilities(7), linux/capability.h; Docker's default set is that of its documentation ("Runtime privilege").
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from logd.errors import InvalidParameter

_NAMES: Final = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_DEFAULT_NAMES: Final = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
AUDIT_WRITE
"""
ALL: Final = tuple(f"CAP_{name}" for name in _NAMES.split())
"""Each name at the place of its number."""

DEFAULT: Final = tuple(f"CAP_{name}" for name in _DEFAULT_NAMES.split())


def held() -> frozenset[str]:
    """Return the capabilities in this process's bounding set: no container can have more."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapBnd:"):
            mask = int(line.split()[1], 16)
            return frozenset(name for number, name in enumerate(ALL) if mask >> number & 1)
    raise AssertionError("no CapBnd in /proc/self/status")


def normalise(names: Iterable[str], option: str) -> list[str]:
    """Return names as `CAP_…` (`ALL` stays); an unknown one is refused. `option` is CapAdd or CapDrop."""
    result = []
    for given in names:
        name = given.upper()
        if name != "ALL":
            name = name if name.startswith("CAP_") else f"CAP_{name}"
            if name not in ALL:
                raise InvalidParameter(f'invalid {option}: unknown capability: "{name}"')
        result.append(name)
    return result


def resolve(add: Iterable[str], drop: Iterable[str], *, privileged: bool) -> list[str]:
    """Return the container's capabilities, sorted by number; adding beats dropping, as in Docker.

    `ALL` means all that this daemon itself has; one that is asked for by name and that it has not is refused.
    """
    added, dropped, own = normalise(add, "CapAdd"), normalise(drop, "CapDrop"), held()
    missing = [name for name in added if name != "ALL" and name not in own]
    if missing:
        raise InvalidParameter(f"invalid CapAdd: {missing[0]}: the daemon itself does not have this capability")
    if privileged:
        chosen = set(ALL)
    elif "ALL" in added:
        chosen = set(ALL) - set(dropped)
    elif "ALL" in dropped:
        chosen = set(added)
    else:
        chosen = (set(DEFAULT) - set(dropped)) | set(added)
    return [name for name in ALL if name in chosen & own]

"""`--security-opt`, capabilities and the paths that a container may not see: what confines a container.

Source: Docker's documentation ("Security configuration"), OCI runtime specification.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from logd.errors import InvalidParameter
from logd.runtime import seccomp
from logd.spec import HostConfig

MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
APPARMOR: Final = Path("/sys/module/apparmor/parameters/enabled")
BOOLEANS: Final = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


@dataclass(frozen=True)
class SecurityOptions:
    """What the options say; an empty `seccomp` is the daemon's default profile, `unconfined` none."""

    no_new_privileges: bool | None = None
    seccomp: str = ""
    apparmor: str = ""


def parse_security_options(host: HostConfig) -> SecurityOptions:
    """Read `SecurityOpt`; raises InvalidParameter for what is unknown, wrong or not to be had on this host."""
    no_new_privileges: bool | None = None
    seccomp_value = apparmor = ""
    for option in host.security_opt:
        if option == "no-new-privileges":
            no_new_privileges = True
            continue
        if option == "disable":  # the old form of label=disable
            continue
        separator = "=" if "=" in option else ":"
        key, found, value = option.partition(separator)
        if not found:
            raise InvalidParameter(f'invalid --security-opt 1: "{option}"')
        if key == "seccomp":
            seccomp_value = value
        elif key == "no-new-privileges":
            if value.lower() not in BOOLEANS:
                raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
            no_new_privileges = BOOLEANS[value.lower()]
        elif key == "apparmor":
            apparmor = _apparmor(value)
        elif key == "label":
            if value != "disable":
                raise InvalidParameter(f"--security-opt {option}: SELinux labels are not supported (label=disable is)")
        else:
            raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
    if seccomp_value not in {"", "unconfined", "builtin"}:
        seccomp.parse(seccomp_value, "--security-opt seccomp")
    return SecurityOptions(no_new_privileges, seccomp_value, apparmor)


def apparmor_enabled() -> bool:
    """Tell whether this kernel has AppArmor switched on."""
    try:
        return APPARMOR.read_text(encoding="ascii").startswith("Y")
    except OSError:
        return False


def _apparmor(value: str) -> str:
    if value in {"", "unconfined"}:
        return ""
    if not apparmor_enabled():
        raise InvalidParameter(f"--security-opt apparmor={value}: AppArmor is not enabled on this host")
    return value


def seccomp_section(
    options: SecurityOptions, capabilities: list[str], *, privileged: bool, default_path: str
) -> dict[str, Any] | None:
    """Return `linux.seccomp` of a container, None for no filter. `default_path` is the daemon's `seccomp-profile`."""
    chosen = options.seccomp
    if not chosen:
        chosen = "unconfined" if privileged or default_path == "unconfined" else "builtin"
    if chosen == "unconfined":
        return None
    if chosen == "builtin":
        profile = seccomp.default_profile("" if default_path in {"builtin", "unconfined"} else default_path)
    else:
        profile = seccomp.parse(chosen, "--security-opt seccomp")
    return seccomp.translate(profile, capabilities)


def masked_paths(host: HostConfig) -> list[str]:
    """Return the paths that are hidden: the request's own list, none for a privileged container, else Docker's."""
    if host.masked_paths is not None:
        return host.masked_paths
    if host.privileged:
        return []
    throttle = sorted(Path("/sys/devices/system/cpu").glob("cpu*/thermal_throttle"))
    return [*MASKED_PATHS, *map(str, throttle)]


def readonly_paths(host: HostConfig) -> list[str]:
    """Return the paths that are read-only, chosen likewise."""
    if host.readonly_paths is not None:
        return host.readonly_paths
    return [] if host.privileged else list(READONLY_PATHS)

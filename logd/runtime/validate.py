"""What a create request may ask for: checked as a whole before anything is made.

A known field that this engine does not implement is refused when it is set to something other than its default; it
is never ignored. Messages are Docker's where Docker has one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from logd.errors import InvalidParameter, Unsupported
from logd.runtime import capabilities, cgroup, limits, mounts
from logd.runtime.devices import validate_devices
from logd.runtime.network_files import validate_network_files
from logd.runtime.security import parse_security_options
from logd.spec import ContainerSpec, HostConfig, RestartPolicy, is_user_defined

MAX_HOSTNAME: Final = 64  # sethostname(2)
MAX_CELLS: Final = 0xFFFF  # ioctl_tty(2), struct winsize
IPC_SYSCTLS: Final = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)

REFUSED: Final[tuple[tuple[str, Callable[[ContainerSpec, HostConfig], Any]], ...]] = (
    (
        "--link is supported on user-defined networks only: elsewhere it is a legacy feature of Docker",
        lambda _, host: host.links and not is_user_defined(host.network_mode),
    ),
    ("--gpus is not supported", lambda _, host: host.device_requests),
    ("--volume-driver: only local is supported", lambda _, host: host.volume_driver not in {"", "local"}),
    ("--storage-opt is not supported by overlayfs", lambda _, host: host.storage_opt),
    ("--cgroup: joining another cgroup is not supported", lambda _, host: host.cgroup),
)
MODES: Final[tuple[tuple[str, Callable[[HostConfig], str], frozenset[str]], ...]] = (
    ("--ipc", lambda host: host.ipc_mode, frozenset({"", "private", "shareable", "none", "host"})),
    ("--pid", lambda host: host.pid_mode, frozenset({"", "host"})),
    ("--uts", lambda host: host.uts_mode, frozenset({"", "host"})),
    ("--userns", lambda host: host.userns_mode, frozenset({"", "host"})),
    ("--cgroupns", lambda host: host.cgroupns_mode, frozenset({"", "private", "host"})),
    ("--isolation", lambda host: host.isolation, frozenset({"", "default"})),
)
JOINABLE: Final = frozenset(("--ipc", "--pid"))


def validate_host(spec: ContainerSpec, host: HostConfig, *, root: Path = cgroup.ROOT) -> list[str]:
    """Check a create request; returns Docker's warnings, raises InvalidParameter or Unsupported by name.

    `spec` is the request's own, before the image's config is merged into it.
    """
    for message, is_set in REFUSED:
        if is_set(spec, host):
            raise Unsupported(message)
    for option, mode, known in MODES:
        joins = option in JOINABLE and mode(host).startswith("container:") and mode(host) != "container:"
        if mode(host) not in known and not joins:
            accepted = ", ".join([*sorted(known - {""}), *(("container:NAME",) if option in JOINABLE else ())])
            raise Unsupported(f"{option} {mode(host)} is not supported (supported: {accepted})")
    warnings = _validate_network(host)
    check_restart_policy(host.restart_policy)
    _validate_process(spec, host)
    _validate_sysctls(host)
    parse_security_options(host)
    capabilities.resolve(host.cap_add, host.cap_drop, privileged=host.privileged)
    mounts.plan(spec, host)
    for text in host.volumes_from:
        mounts.parse_volumes_from(text)
    validate_devices(host)
    validate_network_files(host)
    return warnings + limits.validate_limits(host, limits.host_support(root))


def _validate_network(host: HostConfig) -> list[str]:
    published = [port for port, bindings in host.port_bindings.items() if bindings]
    if published and host.network_mode == "host":
        return ["Published ports are discarded when using host network mode"]
    return []


def check_restart_policy(policy: RestartPolicy) -> None:
    """Raise InvalidParameter, in Docker's words, for an unknown policy or a number of restarts that it can't have."""
    count = policy.maximum_retry_count
    if policy.name not in {"", "no", "always", "unless-stopped", "on-failure"}:
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'"
        )
    if policy.name == "on-failure" and count < 0:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    if policy.name not in {"", "on-failure"} and count:
        too = " and cannot be negative" if count < 0 else ""
        raise InvalidParameter(f"invalid restart policy: maximum retry count can only be used with 'on-failure'{too}")


def _validate_process(spec: ContainerSpec, host: HostConfig) -> None:
    if len(spec.hostname.encode()) > MAX_HOSTNAME or any(not letter.isprintable() for letter in spec.hostname):
        raise InvalidParameter(f"invalid hostname: {spec.hostname!r} (at most {MAX_HOSTNAME} printable bytes)")
    if host.uts_mode == "host" and (spec.hostname or spec.domainname):
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if spec.working_dir and not spec.working_dir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{spec.working_dir}' is invalid, it needs to be an absolute path"
        )
    if spec.tty and not (len(host.console_size) == 2 and all(0 <= cells <= MAX_CELLS for cells in host.console_size)):
        raise InvalidParameter(f"ConsoleSize: {host.console_size} is not [rows, columns], at most {MAX_CELLS} each")
    for variable in spec.env:
        if not variable or variable.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {variable}")
    texts = [*spec.env, *spec.cmd, *spec.entrypoint, spec.user, spec.working_dir, spec.domainname]
    if any("\0" in text for text in texts):
        raise InvalidParameter("a NUL byte in Env, Cmd, Entrypoint, User, WorkingDir or Domainname")
    if not host.cgroup_parent.isprintable():
        raise InvalidParameter(f"cgroup-parent: {host.cgroup_parent!r} must contain printable characters only")
    if ".." in host.cgroup_parent.split("/"):
        raise InvalidParameter(f"cgroup-parent: {host.cgroup_parent!r} must not contain '..'")


def _validate_sysctls(host: HostConfig) -> None:
    """Only those that belong to a namespace of the container's own."""
    for name in host.sysctls:
        of_ipc = name in IPC_SYSCTLS or name.startswith("fs.mqueue.")
        if not (of_ipc or name.startswith("net.")) or "/" in name:
            raise InvalidParameter(f"sysctl '{name}' is not whitelisted")
        if name.startswith("net.") and (host.network_mode == "host" or host.network_mode.startswith("container:")):
            raise InvalidParameter(f"sysctl '{name}' not allowed with the host's network namespace")
        if of_ipc and host.ipc_mode == "host":
            raise InvalidParameter(f"sysctl '{name}' not allowed with the host's ipc namespace")

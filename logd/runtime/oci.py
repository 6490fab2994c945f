"""The OCI bundle of a container: `config.json`, and the runtime's command lines around it.

Source: OCI runtime specification 1.0.2, config.md and config-linux.md; the values are Docker's defaults. Everything
here blocks (files, a look into the container's root): call it in a thread.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from logd.errors import InvalidParameter
from logd.idmap import IdMap, IdRange
from logd.runtime import capabilities, limits, mounts, security
from logd.runtime.devices import devices
from logd.runtime.idmapped import acting_as
from logd.runtime.inroot import make_directories, open_directory, open_in_root, opened
from logd.runtime.mount_table import INIT_DESTINATION, oci_mounts
from logd.runtime.mountinfo import root_propagation
from logd.runtime.mounts import MountPlan
from logd.runtime.network_files import LOOPBACK, NetworkSetup, write_network_files
from logd.runtime.users import User, resolve_user
from logd.spec import ContainerSpec, HostConfig

OCI_VERSION: Final = "1.0.2"
CONFIG_NAME: Final = "config.json"
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CGROUP_PARENT: Final = "/logd"
PING_GROUPS: Final = "net.ipv4.ping_group_range"
UNPRIVILEGED_NETWORK: Final = {  # a container's own network namespace has nobody to protect from itself
    "net.ipv4.ip_unprivileged_port_start": "0",
    PING_GROUPS: "0 2147483647",
}
_CGROUP_ROOT: Final = ("/sys/fs/cgroup",)


@dataclass(frozen=True, kw_only=True)
class BundleRequest:
    """All that a bundle is made of. `spec` has the image's config merged into it; `rootfs` is mounted.

    `plan` is what was settled when the container was created; None: what `spec` and `host` say. `volumes` has the
    folder of each planned volume by its destination. `init_path` is the init to put in front of the
    command, empty for none. `joined` has the paths of the namespaces of another container by their types, `shm` is the
    /dev/shm that is shared with others. `env` replaces what `default_env` gives. With `idmap` the container joins the
    user namespace bound to `user_namespace`, whose mapping that is.
    """

    id: str
    spec: ContainerSpec
    host: HostConfig
    container_dir: Path
    exec_dir: Path
    rootfs: Path
    argv: Sequence[str]
    hostname: str
    env: Sequence[str] | None = None
    cgroup_parent: str = ""
    init_path: str = ""
    seccomp_profile: str = ""
    no_new_privileges: bool = False
    plan: MountPlan | None = None
    volumes: Mapping[str, str | Path] = field(default_factory=dict)
    default_ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    network: NetworkSetup = LOOPBACK
    joined: Mapping[str, str] = field(default_factory=dict)
    shm: Path | None = None
    idmap: IdMap | None = None
    user_namespace: Path | None = None

    @property
    def root_ids(self) -> tuple[int, int]:
        """The host's ids of the container's root."""
        return self.idmap.root if self.idmap is not None else (0, 0)


def prepare_bundle(request: BundleRequest) -> None:
    """Write config.json into the exec folder and the network files into the container's; make WORKDIR in the root.

    Raises InvalidParameter for what only the root can tell (an unknown user, a WORKDIR that is a file, an unknown
    seccomp profile), in Docker's words, and OSError.
    """
    user = resolve_user(request.rootfs, request.spec.user, request.host.group_add)
    plan = request.plan or mounts.plan(request.spec, request.host)
    mounts.create_bind_sources(plan)
    mounts.check_propagations(plan)
    with acting_as(*request.root_ids):
        _make_dockers_files(request.rootfs)
        _make_working_dir(request)
    files = write_network_files(
        request.container_dir, request.spec, request.host, request.network, owner=request.root_ids
    )
    table = oci_mounts(
        plan,
        request.host,
        volumes={place: Path(folder) for place, folder in request.volumes.items()},
        network_files=files,
        init_path=_init_path(request),
        shm=request.shm,
        shares_mqueue=request.idmap is not None and request.host.ipc_mode == "host",
    )
    config = bundle_config(request, user, table)
    path = request.exec_dir / CONFIG_NAME
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(config))  # at once and without indent: in C


def bundle_config(request: BundleRequest, user: User, table: list[dict[str, Any]]) -> dict[str, Any]:
    """Return config.json of the request, with the user looked up and the mounts made."""
    caps = capabilities.resolve(request.host.cap_add, request.host.cap_drop, privileged=request.host.privileged)
    config: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": _process(request, user, caps),
        "root": {"path": str(request.rootfs), "readonly": request.host.readonly_rootfs},
        "mounts": table,
        "linux": _linux(request, caps, table),
    }
    if request.host.uts_mode != "host":
        config["hostname"] = request.hostname
    if request.host.annotations:
        config["annotations"] = request.host.annotations
    return config


def default_env(spec: ContainerSpec) -> list[str]:
    """Return the process's environment: Docker's PATH, HOSTNAME (TERM on a terminal), under what the spec says.

    HOME is set by the runtime, from the container's /etc/passwd. A variable without `=` takes its name away.
    """
    variables = {"PATH": DEFAULT_PATH, "HOSTNAME": spec.hostname}
    if spec.tty:
        variables["TERM"] = "xterm"
    for entry in spec.env:
        name, has_value, value = entry.partition("=")
        if has_value:
            variables[name] = value
        else:
            variables.pop(name, None)
    return [f"{name}={value}" for name, value in variables.items()]


def exec_process(exec_dir: Path, argv: Sequence[str]) -> bytes:
    """Return process.json of another command in a container: the bundle's own process, as it was started (blocks).

    It has no terminal.

    Raises OSError, ValueError.
    """
    process: dict[str, Any] = orjson.loads((exec_dir / CONFIG_NAME).read_bytes())["process"]
    process.pop("consoleSize", None)
    return orjson.dumps({**process, "args": list(argv), "terminal": False})


def cgroup_path(container_id: str, parent: str = "") -> str:
    """Return the container's cgroup, absolute in every tree: `/logd/<id>` if no other parent is set."""
    return f"{os.path.normpath('/' + (parent or CGROUP_PARENT).lstrip('/'))}/{container_id}"


def delete_argv(runtime: Sequence[str], container_id: str) -> list[str]:
    """Return the command that removes what a runtime keeps of an ended container."""
    return [*runtime, "delete", container_id]


def _init_path(request: BundleRequest) -> str:
    """A container in the pid namespace of others has no PID 1 to replace, as in Docker."""
    if not request.init_path or request.host.pid_mode:
        return ""
    if not os.access(request.init_path, os.X_OK):
        raise InvalidParameter(f"--init: {request.init_path} is not an executable file (install tini or catatonit)")
    return request.init_path


def _make_dockers_files(rootfs: Path) -> None:
    """Make what Docker puts into each root, where it is missing.

    /.dockerenv is how programs tell that they are in a container, /etc/mtab where they look for what is mounted.
    """
    with opened(open_directory(rootfs)) as root:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(".dockerenv", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o755, dir_fd=root))
        try:
            make_directories(root, "/etc")
            etc = open_in_root(root, "/etc", os.O_RDONLY | os.O_DIRECTORY)
        except InvalidParameter:  # an image whose /etc is no folder
            return
        with opened(etc), contextlib.suppress(FileExistsError):
            os.symlink("/proc/mounts", "mtab", dir_fd=etc)


def _make_working_dir(request: BundleRequest) -> None:
    if request.spec.working_dir:
        with opened(open_directory(request.rootfs)) as root:
            make_directories(root, request.spec.working_dir)


def _process(request: BundleRequest, user: User, caps: list[str]) -> dict[str, Any]:
    options = security.parse_security_options(request.host)
    chosen = options.no_new_privileges
    process: dict[str, Any] = {
        "terminal": request.spec.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": [INIT_DESTINATION, "--", *request.argv] if _init_path(request) else list(request.argv),
        "env": list(request.env) if request.env is not None else default_env(request.spec),
        "cwd": request.spec.working_dir or "/",
        "capabilities": {"bounding": caps},
        "noNewPrivileges": request.no_new_privileges if chosen is None else chosen,
        # Always written: the shim may itself be protected from the out-of-memory killer.
        "oomScoreAdj": request.host.oom_score_adj,
    }
    if user.uid == 0:
        # For another user execve(2) would clear both anyway; a runtime that sets them would leave them set.
        process["capabilities"] |= {"effective": caps, "permitted": caps}
    rows, columns = request.host.console_size
    if request.spec.tty and rows and columns:
        process["consoleSize"] = {"height": rows, "width": columns}
    if rlimits := limits.rlimits(request.host, request.default_ulimits):
        process["rlimits"] = rlimits
    if options.apparmor:
        process["apparmorProfile"] = options.apparmor
    return process


def _linux(request: BundleRequest, caps: list[str], table: list[dict[str, Any]]) -> dict[str, Any]:
    host, support = request.host, limits.host_support()
    nodes, device_rules = devices(host)
    linux: dict[str, Any] = {
        "namespaces": [_namespace(kind, request) for kind in _namespaces(host)] + _user_namespace(request),
        "cgroupsPath": cgroup_path(request.id, host.cgroup_parent or request.cgroup_parent),
        "resources": {"devices": device_rules, **limits.resources(host, support)},
        "devices": nodes,
        "maskedPaths": security.masked_paths(host),
        "readonlyPaths": [
            *security.readonly_paths(host),
            *(_CGROUP_ROOT if _keeps_cgroup_root(table, support) else ()),
        ],
        "sysctl": _sysctls(request),
        "rootfsPropagation": root_propagation({option for mount in table for option in mount["options"]}),
    }
    filter_ = security.seccomp_section(
        security.parse_security_options(host),
        caps,
        privileged=host.privileged,
        default_path=request.seccomp_profile,
    )
    if filter_ is not None:
        linux["seccomp"] = filter_
    if request.idmap is not None:
        linux["uidMappings"] = _mappings(request.idmap.uids)
        linux["gidMappings"] = _mappings(request.idmap.gids)
    return linux


def _mappings(ranges: Iterable[IdRange]) -> list[dict[str, int]]:
    return [{"containerID": one.inside, "hostID": one.outside, "size": one.size} for one in ranges]


def _keeps_cgroup_root(table: list[dict[str, Any]], support: limits.Support) -> bool:
    """With cgroup v1 in a namespace runc mounts each tree read-only, but in a tmpfs that stays writable."""
    return not support.v2 and any(mount["type"] == "cgroup" and "ro" in mount["options"] for mount in table)


def _namespaces(host: HostConfig) -> list[str]:
    shared = {
        "network": host.network_mode == "host",
        "pid": host.pid_mode == "host",
        "ipc": host.ipc_mode == "host",
        "uts": host.uts_mode == "host",
        "cgroup": host.cgroupns_mode == "host",
    }
    return ["mount", *(kind for kind, with_host in shared.items() if not with_host)]


def _namespace(kind: str, request: BundleRequest) -> dict[str, str]:
    path = request.network.namespace if kind == "network" else request.joined.get(kind)
    return {"type": kind, **({"path": path} if path else {})}


def _user_namespace(request: BundleRequest) -> list[dict[str, str]]:
    return [{"type": "user", "path": str(request.user_namespace)}] if request.idmap is not None else []


def _sysctls(request: BundleRequest) -> dict[str, str]:
    own_network = request.host.network_mode != "host" and request.network.shared is None
    sysctls = {**(UNPRIVILEGED_NETWORK if own_network else {}), **request.host.sysctls}
    if own_network and request.idmap is not None and PING_GROUPS not in request.host.sysctls:
        sysctls[PING_GROUPS] = f"0 {request.idmap.gids[0].size - 1}"  # the kernel takes groups of the namespace only
    if request.spec.domainname:
        sysctls["kernel.domainname"] = request.spec.domainname
    return sysctls

"""A container as its creator asked for it: Docker's `Config` and `HostConfig`, with Docker's JSON names and defaults.

Source: Docker Engine API 1.47, POST /containers/create. Field by field only; what a value means and whether this
engine can honour it is checked in `logd.runtime.validate`.
"""

import types
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import orjson

from logd.errors import InvalidParameter

StrSlice = Annotated[list[str], "a single string is a list of one"]
EmptySet = dict[str, dict[str, Any]]  # Go's map[string]struct{}: the keys are the value


class DockerStruct(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What all parts have in common; a changed copy comes from `msgspec.structs.replace`."""

    omit_empty: ClassVar[frozenset[str] | None] = None  # JSON names that Docker leaves out when empty; None: all
    empty_lists: ClassVar[frozenset[str]] = frozenset()  # JSON names of lists that are [] when empty, others are null


S = TypeVar("S", bound=DockerStruct)
INT64_BITS = 63
"""Beside the sign."""


class HealthConfig(DockerStruct, frozen=True):
    """A health check; the durations are nanoseconds, 0 inherits."""

    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerSpec(DockerStruct, frozen=True):
    """Docker's `Config`: what runs inside, independent of the host."""

    omit_empty = frozenset(
        (
            "ExposedPorts",
            "Healthcheck",
            "ArgsEscaped",
            "NetworkDisabled",
            "MacAddress",
            "StopSignal",
            "StopTimeout",
            "Shell",
        )
    )

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: EmptySet = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] = []
    cmd: StrSlice = []
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: EmptySet = {}
    working_dir: str = ""
    entrypoint: StrSlice = []
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] = []
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None  # seconds; None is the daemon's default, -1 waits for ever
    shell: StrSlice = []


class LogConfig(DockerStruct, frozen=True):
    """A log driver and its options; an empty type is the daemon's default."""

    omit_empty = frozenset()

    type: str = ""
    config: dict[str, str] = {}


class PortBinding(DockerStruct, frozen=True):
    """An address and port on the host."""

    omit_empty = frozenset()

    host_ip: str = ""
    host_port: str = ""


class RestartPolicy(DockerStruct, frozen=True):
    """`no`, `always`, `unless-stopped` or `on-failure`."""

    omit_empty = frozenset()

    name: str = ""
    maximum_retry_count: int = 0


class WeightDevice(DockerStruct, frozen=True):
    """A block device's share of the disk time."""

    omit_empty = frozenset()

    path: str = ""
    weight: int = 0


class ThrottleDevice(DockerStruct, frozen=True):
    """A block device's limit, in bytes or operations per second."""

    omit_empty = frozenset()

    path: str = ""
    rate: int = 0


class DeviceMapping(DockerStruct, frozen=True):
    """A device node of the host and where the container finds it; permissions are letters of `rwm`."""

    omit_empty = frozenset()

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(DockerStruct, frozen=True):
    """Devices asked for by capability (`--gpus`)."""

    omit_empty = frozenset()

    driver: str = ""
    count: int = 0
    device_ids: list[str] = msgspec.field(name="DeviceIDs", default_factory=list)
    capabilities: list[list[str]] = []
    options: dict[str, str] = {}


class Ulimit(DockerStruct, frozen=True):
    """A resource limit by its name in lower case without RLIMIT_; -1 is no limit."""

    omit_empty = frozenset()

    name: str = ""
    hard: int = 0
    soft: int = 0


class BindOptions(DockerStruct, frozen=True):
    """How a host path is mounted."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(DockerStruct, frozen=True):
    """A volume driver and its options."""

    name: str = ""
    options: dict[str, str] = {}


class VolumeOptions(DockerStruct, frozen=True):
    """How a volume is made and filled."""

    no_copy: bool = False
    labels: dict[str, str] = {}
    subpath: str = ""
    driver_config: DriverConfig | None = None


class ImageOptions(DockerStruct, frozen=True):
    """Which part of an image is mounted."""

    subpath: str = ""


class TmpfsOptions(DockerStruct, frozen=True):
    """The size in bytes (0: the kernel's default) and the mode of a tmpfs."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] = []


class Mount(DockerStruct, frozen=True):
    """One `--mount`: type `bind`, `volume`, `tmpfs`, `npipe`, `cluster` or `image`."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    cluster_options: dict[str, Any] | None = None


class HostConfig(DockerStruct, frozen=True):
    """Docker's `HostConfig`: how the container sits on this host. Sizes are bytes, CPU times microseconds."""

    omit_empty = frozenset(
        (
            "Annotations",
            "Mounts",
            "StorageOpt",
            "Tmpfs",
            "Sysctls",
            "Runtime",
            "KernelMemory",
            "KernelMemoryTCP",
            "Init",
        )
    )
    empty_lists = frozenset(  # those that the CLI always sends, and so `docker inspect` shows
        (
            "Dns",
            "DnsOptions",
            "DnsSearch",
            "BlkioWeightDevice",
            "BlkioDeviceReadBps",
            "BlkioDeviceWriteBps",
            "BlkioDeviceReadIOps",
            "BlkioDeviceWriteIOps",
            "Devices",
            "MaskedPaths",
            "ReadonlyPaths",
            "Ulimits",
        )
    )

    binds: list[str] = []
    container_id_file: str = msgspec.field(name="ContainerIDFile", default="")
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding]] = {}
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] = []
    console_size: list[int] = msgspec.field(default_factory=lambda: [0, 0])  # rows, columns
    annotations: dict[str, str] = {}
    mounts: list[Mount] = []
    cap_add: StrSlice = []
    cap_drop: StrSlice = []
    cgroupns_mode: str = ""
    dns: list[str] = []
    dns_options: list[str] = []
    dns_search: list[str] = []
    extra_hosts: list[str] = []
    group_add: list[str] = []
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] = []
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] = []
    storage_opt: dict[str, str] = {}
    tmpfs: dict[str, str] = {}
    uts_mode: str = msgspec.field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] = {}
    runtime: str = ""
    isolation: str = ""
    masked_paths: list[str] | None = None  # None: the engine's own list; [] masks nothing
    readonly_paths: list[str] | None = None
    init: bool | None = None

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0  # billionths of a CPU
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] = []
    blkio_device_read_bps: list[ThrottleDevice] = []
    blkio_device_write_bps: list[ThrottleDevice] = []
    blkio_device_read_iops: list[ThrottleDevice] = msgspec.field(name="BlkioDeviceReadIOps", default_factory=list)
    blkio_device_write_iops: list[ThrottleDevice] = msgspec.field(name="BlkioDeviceWriteIOps", default_factory=list)
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] = []
    device_cgroup_rules: list[str] = []
    device_requests: list[DeviceRequest] = []
    kernel_memory: int = 0
    kernel_memory_tcp: int = msgspec.field(name="KernelMemoryTCP", default=0)
    memory_reservation: int = 0
    memory_swap: int = 0  # memory and swap together; -1 is no limit, 0 the default
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] = []
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = msgspec.field(name="IOMaximumIOps", default=0)
    io_maximum_bandwidth: int = msgspec.field(name="IOMaximumBandwidth", default=0)


class ExecConfig(DockerStruct, frozen=True):
    """A process to be run in a container beside its first one: the body of POST /containers/{id}/exec."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: list[int] = []  # rows, columns
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach_keys: str = ""
    env: list[str] = []
    working_dir: str = ""
    cmd: list[str] = []
    log: bool = False  # logd's own: what it prints goes into the container's log too


class EndpointIPAMConfig(DockerStruct, frozen=True):
    """Addresses that an endpoint is to have."""

    ipv4_address: str = msgspec.field(name="IPv4Address", default="")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")
    link_local_ips: list[str] = msgspec.field(name="LinkLocalIPs", default_factory=list)


class EndpointSettings(DockerStruct, frozen=True):
    """How a container is to be connected to a network: the part of Docker's type that a request can set."""

    ipam_config: EndpointIPAMConfig | None = msgspec.field(name="IPAMConfig", default=None)
    links: list[str] = []
    aliases: list[str] = []
    mac_address: str = ""
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0


def is_user_defined(network_mode: str) -> bool:
    """Tell whether a network mode names a network that somebody made, as Docker's IsUserDefined does."""
    return network_mode not in {"", "default", "bridge", "host", "none"} and not network_mode.startswith("container:")


def decode_create(body: bytes) -> tuple[ContainerSpec, HostConfig, dict[str, Any]]:
    """Read the body of a create request: what runs, how, and the NetworkingConfig as it came.

    As in Go a null is an absent field, names match in any case, and unknown fields are ignored. Raises
    InvalidParameter for what is not JSON, for a wrong type, and for a body without any field of `Config`.
    """
    if not body.strip():
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidParameter(f"invalid JSON: {error}") from error
    if not isinstance(request, dict):
        raise InvalidParameter(f"invalid JSON: the body is a {type(request).__name__}, an object is needed")
    parts = {name.lower(): value for name, value in request.items()}
    if not parts.keys() & _fields_as_go(ContainerSpec).keys():
        raise InvalidParameter("config cannot be empty in order to create a container")
    networking = parts.get("networkingconfig") or {}
    if not isinstance(networking, dict):
        raise InvalidParameter("invalid JSON: NetworkingConfig must be an object")
    spec = convert(request, ContainerSpec)
    host = convert(parts.get("hostconfig") or {}, HostConfig, "HostConfig.")
    return spec, host, networking


def convert(value: Any, kind: type[S], where: str = "") -> S:
    """Build a struct of this module from plain JSON data, reading it as Go does; raises InvalidParameter."""
    try:
        return msgspec.convert(_as_go(value, kind), kind)
    except msgspec.ValidationError as error:
        place = str(error) if "`$" in str(error) else f"{error} - at `$`"
        raise InvalidParameter(
            f"invalid JSON: {place.replace('`$.', f'`{where}').replace('`$', f'`{where}')}"
        ) from error


def to_docker(value: DockerStruct) -> dict[str, Any]:
    """Return what `docker inspect` shows of a struct: Docker's names, its nulls, and without what it leaves out."""
    shown: dict[str, Any] = {}
    for field in _fields(type(value)):
        item, name = getattr(value, field.name), field.encode_name
        absent = (
            item is None if field.default is None else not item
        )  # where None is the default, 0 and false are values
        if absent and (value.omit_empty is None or name in value.omit_empty):
            continue
        if isinstance(item, list) and not item and name not in value.empty_lists:
            item = None
        shown[name] = to_docker(item) if isinstance(item, DockerStruct) else _plain(item)
    if shown.get("Volumes") == {}:
        shown["Volumes"] = None
    return shown


@cache
def _fields(kind: type[DockerStruct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [to_docker(item) if isinstance(item, DockerStruct) else _plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _as_go(value: Any, kind: Any) -> Any:
    """Rewrite plain data the way encoding/json reads it: names in any case, null is the zero value."""
    kind, origin = _bare(kind), get_origin(_bare(kind))
    if kind is list or origin is list:
        if isinstance(value, list):
            (item_kind,) = get_args(kind)
            return [_as_go(_zero(item_kind) if item is None else item, item_kind) for item in value]
    elif origin is dict and isinstance(value, dict):
        item_kind = get_args(kind)[1]
        return {key: _as_go(_zero(item_kind) if item is None else item, item_kind) for key, item in value.items()}
    elif isinstance(kind, type) and issubclass(kind, DockerStruct) and isinstance(value, dict):
        return _struct_as_go(value, kind)
    if isinstance(value, int) and (value if value >= 0 else ~value) >> INT64_BITS:
        raise InvalidParameter(f"invalid JSON: {value} is more than a number of 64 bits holds")
    return value


def _struct_as_go(value: dict[str, Any], kind: type[DockerStruct]) -> dict[str, Any]:
    known = _fields_as_go(kind)
    result = {}
    for name, item in value.items():
        encoded, hint = known.get(name.lower(), ("", None))
        if encoded and item is not None:
            result[encoded] = [item] if hint is StrSlice and isinstance(item, str) else _as_go(item, hint)
    return result


@cache
def _fields_as_go(kind: type[DockerStruct]) -> dict[str, tuple[str, Any]]:
    """Return a struct's fields by their names in lower case: (name in JSON, type)."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.encode_name.lower(): (field.encode_name, hints[field.name]) for field in msgspec.structs.fields(kind)}


def _bare(kind: Any) -> Any:
    """Strip Annotated and `| None`."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in {Union, types.UnionType}:
        return _bare(next(arg for arg in get_args(kind) if arg is not type(None)))
    return kind


def _zero(kind: Any) -> Any:
    kind = _bare(kind)
    if get_origin(kind) is not None:
        return get_origin(kind)()
    return {} if issubclass(kind, DockerStruct) or kind is Any else kind()

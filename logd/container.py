"""A container: what was asked for, where it stands, who waits for it, and its file on disk.

`container.json` in the container's folder holds everything that has to outlive the daemon. It is written whole to
a temporary file, forced to the disk and renamed, so that a reader finds the old or the new one. Its `version` rises
when an older logd would misread it.
"""

import asyncio
import contextlib
import os
import threading
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from logd.batch import ContainerInfo
from logd.endpoint import Endpoint
from logd.errors import LogdError, NotFound
from logd.idmap import IdMap
from logd.mounted import Mounted, Volume
from logd.spec import ContainerSpec, EndpointSettings, HostConfig, LogConfig
from logd.turns import Turn
from logd.usage import Counters, Sample

VERSION: Final = 3
"""2: `plan`; a logd that reads 1 would take each volume for one that goes with its container.

3: `idmap`, and only then: a logd that reads 2 would run the container without its user namespace.
"""
VERSION_WITHOUT_IDMAP: Final = 2
FILE_NAME: Final = "container.json"
EXIT_UNKNOWN: Final = 255
"""The exit code that stands for "nobody saw how it ended"."""

Condition = Literal["not-running", "next-exit", "removed"]
Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]


class Probe(msgspec.Struct, kw_only=True, frozen=True):
    """One run of a health check: Unix nanoseconds, its exit code (-1: it did not end in time) and what it printed."""

    start_ns: int
    end_ns: int
    exit_code: int
    output: str


class Health(msgspec.Struct, kw_only=True):
    """How a container's health check fares; the newest probe is the last."""

    status: Literal["starting", "healthy", "unhealthy"] = "starting"
    failing_streak: int = 0
    log: list[Probe] = []


class State(msgspec.Struct, kw_only=True):
    """Where a container stands. Times are Unix nanoseconds, 0 for never."""

    running: bool = False
    starting_ns: int = 0
    """When a start was begun whose end is not known; a restarted daemon has to find out."""
    paused: bool = False
    restarting: bool = False
    oom_killed: bool = False
    removing: bool = False
    dead: bool = False
    pid: int = 0
    exit_code: int = 0
    signal: int | None = None
    """The signal that ended the process, where it was one and is known."""
    exit_known: bool = True
    error: str = ""
    """Why the last start failed, in the runtime's words."""
    started_ns: int = 0
    finished_ns: int = 0
    manually_stopped: bool = False
    """Whether a person stopped it: a restart policy then leaves it alone."""
    restart_wait_ns: int = 0
    """How long a restart policy waited, or waits now, after the last exit; 0 since a person started it."""
    health: Health | None = None
    """None without a health check."""

    @property
    def has_process(self) -> bool:
        """Whether it runs in earnest; one that waits for its restart is "running" too."""
        return self.running and not self.restarting

    @property
    def status(self) -> Status:
        """Docker's word for the state (its ContainerState)."""
        if self.running:
            return "paused" if self.paused else "restarting" if self.restarting else "running"
        if self.removing:
            return "removing"
        if self.dead:
            return "dead"
        return "exited" if self.started_ns else "created"


class MountPoint(msgspec.Struct, frozen=True, rename="pascal"):
    """What is mounted where, as Docker shows it."""

    type: str
    source: str
    destination: str
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = msgspec.field(name="RW", default=True)
    propagation: str = ""


class Record(msgspec.Struct, kw_only=True):
    """The content of container.json."""

    version: int = VERSION_WITHOUT_IDMAP
    id: str
    name: str
    created_ns: int
    image_id: str
    image_ref: str
    os: str
    path: str
    args: list[str]
    config: ContainerSpec
    host_config: HostConfig
    mounts: list[MountPoint]
    plan: list[Mounted] | None = None
    """All that is mounted, as it was settled; None of a container that an older logd made."""
    run: int
    restart_count: int
    state: State
    asked_logging: LogConfig | None = None
    """As it was asked for: without a type it is the daemon's default. None of a container that an older logd made."""
    usage: Counters = msgspec.field(default_factory=Counters)
    """Of the runs that have ended."""
    usage_run: int = 0
    """The last run whose counters are in `usage`."""
    networks: dict[str, EndpointSettings] | None = None
    """How it is to be connected, by the network's name; None of a container that an older logd made."""
    endpoints: list[Endpoint] = []
    """Its interfaces, while it has a network namespace."""
    idmap: IdMap | None = None
    """The mapping of its user namespace, None in the host's; it is that of its creation for good."""


class _Version(msgspec.Struct):
    version: int = 0


class UnreadableRecord(LogdError):
    """A container.json that this logd can't use; its folder is left as it is."""


class LogHold:
    """A reader's claim on a container's log; `path` leads to the store wherever its folder is moved. Close it."""

    def __init__(self, container: "Container") -> None:
        self._container = container
        self._descriptor = os.open(container.log_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = f"/proc/self/fd/{self._descriptor}"

    def close(self) -> None:
        """Give the claim up; once is enough, more is no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._container.release_log(self)


class Container:
    """One container. Changed only in the event loop; `save` what has to outlive the daemon.

    `shim` is a `runtime.shim_client.Shim` while a process runs (this room does not import the runtime).
    `settling` holds between the exit of the process and the end of its output, during which waiters still wait.
    `lingering` is the shim of the last run, which may go on storing output that a process of the host still writes.
    `lock` is held by what starts or removes it, `freezing` (the inner one) by what pauses it or lets it go on.
    `cleanup` removes what the last process left on the host; a start or removal waits for it.
    `last_sample` was taken of the last run between its exit and the end of its cgroup; `usage` includes it, and
    changes with it under `usage_lock`, since scrapes come from threads.
    """

    def __init__(self, record: Record, folder: Path, exec_dir: Path) -> None:
        self.id = record.id
        self.name = record.name
        self.created_ns = record.created_ns
        self.image_id = record.image_id
        self.image_ref = record.image_ref
        self.os = record.os
        self.path = record.path
        self.args = record.args
        self.spec = record.config
        self.host = record.host_config
        self.mounts = record.mounts
        self.plan = record.plan
        self.run = record.run
        self.restart_count = record.restart_count
        self.state = record.state
        self.asked_logging = record.asked_logging
        self.usage = record.usage
        self.usage_run = record.usage_run
        self.networks = _first_networks(self.host) if record.networks is None else record.networks
        self.endpoints = record.endpoints
        self.idmap = record.idmap
        self.last_sample: Sample | None = None
        self.usage_lock = threading.Lock()
        self.dir = folder
        self.exec_dir = exec_dir
        self.lock = Turn()
        self.freezing = asyncio.Lock()
        self.shim: Any = None
        self.lingering: Any = None
        self.settling = False
        self.restart_asked = False
        self.removed = False
        self.cleanup: asyncio.Task[None] | None = None
        self.ended_positions: tuple[int, int] = (0, 0)
        self.log_ended = asyncio.Event()
        self.log_ended.set()
        self.attachments: set[Any] = set()
        self.log_holds: set[LogHold] = set()
        self._unread = asyncio.Event()
        self._unread.set()
        self._waiters: list[tuple[Condition, asyncio.Future[int]]] = []

    @property
    def log_dir(self) -> Path:
        """The folder of the store."""
        return self.dir / "log"

    def hold_log(self) -> "LogHold":
        """Return a reader's claim on the log: until it is closed, a removal does not delete the files."""
        try:
            hold = LogHold(self)
        except FileNotFoundError as error:
            raise NotFound(f"No such container: {self.id}") from error  # removed just now
        self.log_holds.add(hold)
        self._unread.clear()
        return hold

    def release_log(self, hold: "LogHold") -> None:
        """End a claim."""
        self.log_holds.discard(hold)
        if not self.log_holds:
            self._unread.set()

    async def unread(self) -> None:
        """Return once nobody reads the log."""
        await self._unread.wait()

    @property
    def rootfs(self) -> Path:
        """Where the image's layers and the writable one are mounted while it runs.

        In a user namespace the container's root has to get there, by folders that it may pass through: not by those of
        its layers, which have setuid programs of the host's root on the disk.
        """
        return self.dir / "rootfs" if self.idmap is None else self.exec_root / "roots" / self.id / "rootfs"

    @property
    def exec_root(self) -> Path:
        """Where the daemon keeps what belongs to running processes."""
        return self.exec_dir.parents[1]

    @property
    def root_ids(self) -> tuple[int, int]:
        """The host's user and group of the container's root."""
        return self.idmap.root if self.idmap is not None else (0, 0)

    @property
    def user_namespace(self) -> Path:
        """Where its user namespace is bound while it runs, if it has one."""
        return self.exec_root / "userns" / self.id

    @property
    def upper(self) -> Path:
        """The writable layer."""
        return self.dir / "upper"

    @property
    def volumes(self) -> dict[str, Path]:
        """The content folders of its volumes, by their place in it."""
        return {mount.destination: Path(mount.source) for mount in self.mounts if mount.type == "volume"}

    @property
    def volume_names(self) -> list[str]:
        """The names of its volumes."""
        return list(dict.fromkeys(mount.name for mount in self.mounts if mount.type == "volume"))

    @property
    def anonymous_volumes(self) -> list[str]:
        """The names of those of its volumes that nobody has named, and that may go with it."""
        if self.plan is None:
            return self.volume_names
        return list(dict.fromkeys(entry.name for entry in self.plan if isinstance(entry, Volume) and entry.anonymous))

    def info(self) -> ContainerInfo:
        """Return what a log driver is told of it."""
        return ContainerInfo(
            id=self.id,
            name=self.name,
            image_id=self.image_id,
            image_name=self.image_ref,
            entrypoint=self.path,
            args=tuple(self.args),
            created_ns=self.created_ns,
            env=tuple(self.spec.env),
            labels=dict(self.spec.labels),
            folder=str(self.dir),
        )

    def record(self) -> Record:
        """Return what container.json has to hold now."""
        return Record(
            version=VERSION if self.idmap is not None else VERSION_WITHOUT_IDMAP,
            id=self.id,
            name=self.name,
            created_ns=self.created_ns,
            image_id=self.image_id,
            image_ref=self.image_ref,
            os=self.os,
            path=self.path,
            args=self.args,
            config=self.spec,
            host_config=self.host,
            mounts=self.mounts,
            plan=self.plan,
            run=self.run,
            restart_count=self.restart_count,
            state=self.state,
            asked_logging=self.asked_logging,
            usage=self.usage,
            usage_run=self.usage_run,
            networks=self.networks,
            endpoints=self.endpoints,
            idmap=self.idmap,
        )

    def wait(self, condition: Condition) -> asyncio.Future[int]:
        """Return a future of the exit code; "not-running" holds already where nothing runs. Cancel it to give up."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        idle = not (self.state.running or self.settling)
        if (condition == "not-running" and idle) or (condition == "removed" and self.removed):
            future.set_result(self.state.exit_code)
        else:
            self._waiters.append((condition, future))
            future.add_done_callback(self._forget)
        return future

    def tell_waiters(self, *, exited: bool = True, removed: bool = False) -> None:
        """Answer who waits for an exit, and after a removal everybody.

        Who waits for the next exit goes on where a start has failed, since nothing has exited (`exited` is false).
        """
        held = {"removed"} if exited else {"removed", "next-exit"}
        for condition, future in tuple(self._waiters):
            if not future.done() and (removed or condition not in held):
                future.set_result(self.state.exit_code)

    def _forget(self, future: asyncio.Future[int]) -> None:
        self._waiters = [one for one in self._waiters if one[1] is not future]


def _first_networks(host: HostConfig) -> dict[str, EndpointSettings]:
    """Return the settings of a container of which they are not known: those of its network mode."""
    mode = host.network_mode or "bridge"
    return {} if mode in {"host", "none"} or mode.startswith("container:") else {mode: EndpointSettings()}


def encode(record: Record) -> bytes:
    """Return the bytes of container.json."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def decode(data: bytes, source: str) -> Record:
    """Read the bytes of container.json; raises UnreadableRecord with the reason, `source` names the file."""
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version > VERSION:
            raise UnreadableRecord(f"{source}: version {version}, written by a newer logd (this one reads {VERSION})")
        if version < 1:
            raise UnreadableRecord(f"{source}: no version")
        return msgspec.json.decode(data, type=Record)
    except msgspec.MsgspecError as error:
        raise UnreadableRecord(f"{source}: {error}") from error


def write_record(folder: Path, data: bytes) -> None:
    """Replace a folder's container.json for good (it is on the disk when this returns); raises OSError."""
    temporary = folder / f"{FILE_NAME}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
    temporary.replace(folder / FILE_NAME)
    sync_folder(folder)


def read_record(folder: Path) -> Record:
    """Read a folder's container.json; raises FileNotFoundError where there is none, and UnreadableRecord."""
    path = folder / FILE_NAME
    record = decode(path.read_bytes(), str(path))
    if record.id != folder.name:
        raise UnreadableRecord(f"{path}: is of container {record.id}")
    return record


def sync_folder(folder: Path) -> None:
    """Force a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

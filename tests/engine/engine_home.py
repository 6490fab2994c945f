"""A real engine: keeper, shims, runc, an image of busybox; its own data-root and exec-root."""

import contextlib
import io
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

from logd.config import DaemonConfig, Pool
from logd.engine.engine import Engine
from logd.engine.names import Registry
from logd.engine.networks import Networks
from logd.events import EventBus
from logd.images.store import ImageStore
from logd.logstore.follow import Watcher
from logd.network.links import bridges_of
from logd.network.nft import table_name
from logd.runtime.supervisor import Supervisor
from logd.spec import ContainerSpec, HostConfig

APPLET_NAMES = "sh cat echo true false sleep head seq yes ls id env kill printf dd wc test touch"
DATA_FILES = {"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", "etc/group": b"root:x:0:\n", "data/seed": b"seed\n"}
CRASHING = """
import asyncio, os, sys
from pathlib import Path
from engine_home import Home
from logd.spec import HostConfig
home = Home(Path(sys.argv[1]), Path(sys.argv[2]))

def crash(*_):
    os._exit(9)

async def main():
    async with home.engine() as driver:
{body}
        crash()

asyncio.run(main())
"""


def busybox_archive():
    """Return a root file system with busybox, as a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "root", "data"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        tar.add("/usr/bin/busybox", "bin/busybox")
        for name in APPLET_NAMES.split():
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name, content in DATA_FILES.items():
            file = tarfile.TarInfo(name)
            file.size = len(content)
            tar.addfile(file, io.BytesIO(content))
    return out.getvalue()


def is_alive(pid):
    """Tell whether a process still runs; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in b"ZX"
    except OSError:
        return False


def wait_for(condition):
    """Return when the condition holds; fail after 10 s."""
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


class Home:
    """A data-root and an exec-root, over which engines come and go as daemons do."""

    def __init__(self, data_root: Path, exec_root: Path | None = None) -> None:
        exec_root = exec_root or Path(f"/run/lt-{secrets.token_hex(4)}")
        pool = Pool(ip_network(f"10.214.{os.getpid() % 256}.0/24"), 24)
        self.config = DaemonConfig(
            data_root=data_root, exec_root=exec_root, default_stop_timeout=2, default_address_pools=(pool,)
        )
        for folder in (data_root, exec_root):
            folder.mkdir(mode=0o711, exist_ok=True)

    @asynccontextmanager
    async def engine(self):
        """Run an engine as a daemon would; leave its containers to the next one."""
        watcher = Watcher()
        await watcher.start()
        supervisor = Supervisor(self.config.exec_root)
        await supervisor.start()
        images = ImageStore(self.config.data_root / "images")
        events = EventBus()
        engine = Engine(self.config, images, supervisor, events, watcher)
        await engine.restore()
        if not images.list():
            await images.import_(
                _chunks(busybox_archive()), repository="busybox", tag="latest", message="", changes=[], platform=""
            )
        try:
            yield Driver(engine, events, images)
        finally:
            await engine.shutdown()
            await supervisor.close()
            watcher.close()

    def end_processes(self) -> None:
        """End keeper, shims and containers at once, as a loss of power does."""
        ours = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if self._is_ours(pid)]
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not any(map(is_alive, ours)))
        runtime_root = self.config.exec_root / "runc"
        for name in os.listdir(runtime_root) if runtime_root.exists() else []:
            subprocess.run(["runc", "--root", str(runtime_root), "delete", "--force", name], check=False)
        mounts = [*(self.config.data_root / "containers").glob("*/rootfs"), *self.config.exec_root.glob("netns/*")]
        for mounted in mounts:
            subprocess.run(["umount", "-l", str(mounted)], check=False, stderr=subprocess.DEVNULL)
        for link in bridges_of(Networks(self.config, EventBus(), Registry()).alias):
            subprocess.run(["ip", "link", "del", link], check=False)
        table = table_name(self.config.exec_root)
        subprocess.run(["nft", "delete", "table", "inet", table], check=False, stderr=subprocess.DEVNULL)

    def _is_ours(self, pid: str) -> bool:
        """Tell whether a process is this home's keeper or one of its shims: the exec-root is among its arguments."""
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return bytes(self.config.exec_root) in arguments and int(pid) != os.getpid()

    def close(self) -> None:
        """End what the tests left behind."""
        self.end_processes()
        shutil.rmtree(self.config.exec_root, ignore_errors=True)


async def _chunks(data):
    yield data


class Driver:
    """An engine and shortcuts to drive it as the command line does."""

    def __init__(self, engine, events, images):
        self.engine = engine
        self.events = events
        self.images = images

    async def create(self, *cmd, name=None, host=None, **spec):
        """Create a container of busybox, without a network unless `host` says otherwise."""
        request = ContainerSpec(image="busybox", cmd=list(cmd), **spec)
        container, _ = await self.engine.create(name, request, host or HostConfig(network_mode="none"), {})
        return container

    async def run(self, *cmd, input_=None, **asked):
        """Attach, start, feed, read to the end and wait, as `docker run` does: (code, stdout, stderr, container)."""
        container = await self.create(*cmd, open_stdin=input_ is not None, stdin_once=input_ is not None, **asked)
        output = {1: b"", 2: b""}
        async with self.engine.attach(container.id, stdin=input_ is not None) as attachment:
            condition = "removed" if container.host.auto_remove else "next-exit"
            waiter = self.engine.waiter(container.id, condition)
            await self.engine.start(container.id)
            if input_ is not None:
                await attachment.write_stdin(input_)
                await attachment.close_stdin()
            while runs := await attachment.read():
                for run in runs:
                    output[run.stream] += run.data
            code = await waiter
        return code, output[1], output[2], container

    def actions(self, container):
        """What was published of a container, with the attributes."""
        return [
            (event["Action"], event["Actor"]["Attributes"])
            for event in self.events._kept
            if event["Actor"]["ID"] == container.id
        ]


def crash(home, body):
    """Run an engine in a process of its own, in which `body` runs and which then ends like one killed with -9."""
    code = CRASHING.format(body="\n".join(f"        {line}" for line in body.strip().splitlines()))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    argv = [sys.executable, "-c", code, str(home.config.data_root), str(home.config.exec_root)]
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 9, ended.stderr
    return ended.stdout.split()

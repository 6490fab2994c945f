"""A real daemon for tests: its own folders, its own socket, and nothing of it left afterwards."""

import contextlib
import gc
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pools import POOLS, WIDE_POOLS

from logd.cli.client import Client
from logd.network.nft import table_name

ROOT = Path(__file__).parent.parent
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
ID_LENGTH = 64  # a shorter name could be part of another process's cgroup
DOCKER = shutil.which("docker")
SETTINGS = {"metrics-addr": "", "logd": {"log": {"to": "stderr"}}}
LONGEST_FIRST = ("system", "forward", "testing", "metrics", "runtime", "api")
"""Rooms whose files take longest. Whoever gets one of them at the end is waited for by all others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of LONGEST_FIRST first, in that order."""
    ranks = {room: rank for rank, room in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.parent.name, len(ranks)))


def pytest_collection_finish() -> None:
    """Leave thousands of tests out of collections of garbage, which are asked for after many of them: 0.2 s each."""
    gc.freeze()


class Daemon:
    """`python -m logd.daemon` in a folder of its own. `start` returns when it says that it is ready."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.flags = flags
        self.data_root = folder / "data"
        self.exec_root = folder / "run"
        self.socket = self.exec_root / "logd.sock"
        self.host = f"unix://{self.socket}"
        self.log_file = folder / "daemon.log"
        self.config_file = folder / "daemon.json"
        self.config_file.write_text(json.dumps({**SETTINGS, "default-address-pools": [next(WIDE_POOLS), next(POOLS)]}))
        self.process: subprocess.Popen[bytes] | None = None
        self.states: list[str] = []
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(str(folder / "notify"))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "LOGD_"))},
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": str(folder / "docker"),
        }

    def command(self) -> list[str]:
        roots = ["--data-root", str(self.data_root), "--exec-root", str(self.exec_root)]
        return [sys.executable, "-m", "logd.daemon", "--config-file", str(self.config_file), *roots, *self.flags]

    def spawn(self, **environment: str) -> "subprocess.Popen[bytes]":
        """Start without waiting."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify"), **environment},
            )
        return self.process

    def start(self, **environment: str) -> "Daemon":
        self.spawn(**environment)
        self.wait_for_state("READY=1")
        return self

    def wait_for_state(self, state: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Read what the daemon tells its service manager until it says `state`."""
        assert self.process is not None
        self._ear.settimeout(0.2)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                self.states += self._ear.recv(4096).decode().split("\n")
            except TimeoutError:
                assert self.process.poll() is None, f"the daemon ended:\n{self.log()}"
                continue
            if state in self.states:
                self.states.clear()
                return
        raise AssertionError(f"the daemon did not say {state}:\n{self.log()}")

    def forget_states(self) -> None:
        """Leave unread what the daemon has told so far."""
        self._ear.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._ear.recv(4096):
                pass

    def stop(self) -> int:
        """Ask the daemon to stop, and return its exit status. Containers go on."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End the daemon by SIGKILL. Containers go on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def docker_popen(self, *arguments: str, **options: Any) -> "subprocess.Popen[Any]":
        assert DOCKER is not None, "the tests need the docker command line (make test fetches it)"
        return subprocess.Popen([DOCKER, *arguments], env=self.environment, **options)

    def docker(
        self, *arguments: str, stdin: Any = None, check: bool = True, timeout: float = 60, text: bool = True
    ) -> "subprocess.CompletedProcess[Any]":
        """Run the docker command line on this daemon's socket; `stdin` is text or bytes, as `text` says."""
        assert DOCKER is not None, "the tests need the docker command line (make test fetches it)"
        done = subprocess.run(
            [DOCKER, *arguments],
            env=self.environment,
            check=False,
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
            capture_output=True,
            timeout=timeout,
            text=text,
        )
        assert not check or done.returncode == 0, f"{done}\n{self.log()}"
        return done

    def logd(self, *arguments: str, check: bool = True, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run the command line `logd` on this daemon's socket."""
        command = [sys.executable, "-m", "logd.cli.main", *arguments]
        environment = {**os.environ, "LOGD_HOST": self.host, "DOCKER_CONFIG": self.environment["DOCKER_CONFIG"]}
        options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 60, **options}
        done = subprocess.run(command, check=False, **options)
        assert not check or done.returncode == 0, f"{done}\n{self.log()}"
        return done

    def get(self, path: str) -> Any:
        """Return what the API answers: without a process, for what is asked again and again."""
        return Client(self.host).json("GET", path)

    def processes(self) -> list[int]:
        """Return the pids of keeper, shims and containers: whatever stands in our folders or in a cgroup of ours."""
        entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        return [int(entry.name) for entry in entries if int(entry.name) != os.getpid() and self._is_ours(entry)]

    def _is_ours(self, process: Path) -> bool:
        try:
            command = (process / "cmdline").read_bytes()
            cgroups = (process / "cgroup").read_text()
        except OSError:
            return False
        if os.fsencode(str(self.exec_root)) in command and b"logd" in command:
            return True
        return any(identifier in cgroups for identifier in self.container_ids())

    def container_ids(self) -> list[str]:
        try:
            return [one.name for one in (self.data_root / "containers").iterdir() if len(one.name) == ID_LENGTH]
        except FileNotFoundError:
            return []

    def close(self) -> None:
        """Remove everything: daemon, containers, keeper, shims, mounts, links, rules, cgroups, files."""
        identifiers = self.container_ids()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while (pids := self.processes()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for mount in reversed(self.mounts()):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        for identifier in identifiers:
            for folder in [
                *Path("/sys/fs/cgroup").glob(f"logd/{identifier}"),
                *Path("/sys/fs/cgroup").glob(f"*/logd/{identifier}"),
            ]:
                with contextlib.suppress(OSError):
                    folder.rmdir()
        for link in self.bridges():
            subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)
        table = table_name(self.exec_root)
        subprocess.run(["nft", "delete", "table", "inet", table], check=False, capture_output=True)
        self._ear.close()
        shutil.rmtree(self.folder)

    def bridges(self) -> list[str]:
        """Return the host's links that are marked as this daemon's."""
        mark = f"logd {hashlib.sha256(bytes(self.data_root)).hexdigest()[:12]} "
        found = []
        for folder in Path("/sys/class/net").iterdir():
            with contextlib.suppress(OSError):  # it goes just now
                if (folder / "ifalias").read_text().startswith(mark):
                    found.append(folder.name)
        return found

    def mounts(self) -> list[str]:
        """Return the mount points below our folder, in the order in which they were mounted."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
        return [point for point in points if point.startswith(f"{self.folder}/")]


@pytest.fixture
def make_daemon() -> Iterator[Callable[..., Daemon]]:
    """Return a maker of daemons that are not started yet; flags are dockerd's."""
    yield from daemon_maker()


@pytest.fixture(scope="session")
def make_lasting_daemon() -> Iterator[Callable[..., Daemon]]:
    """Return a maker of daemons that all tests of the run may share."""
    yield from daemon_maker()


@pytest.fixture(scope="module")
def make_module_daemon() -> Iterator[Callable[..., Daemon]]:
    """Return a maker of daemons that the tests of a module may share."""
    yield from daemon_maker()


def daemon_maker() -> Iterator[Callable[..., Daemon]]:
    """Yield what makes daemons, and remove them and all that is theirs afterwards."""
    daemons: list[Daemon] = []

    def make(*flags: str) -> Daemon:
        # Short: the path of a socket has at most 107 bytes, and a container's id takes 64 of them.
        daemon = Daemon(Path(tempfile.mkdtemp(prefix="ld-", dir="/tmp")), *flags)
        daemons.append(daemon)
        return daemon

    yield make
    for daemon in daemons:
        daemon.close()


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon that serves, without images."""
    return make_daemon().start()


@pytest.fixture(scope="session")
def busybox_tar() -> bytes:
    """A root file system of the host's static busybox, for `docker import`."""
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "busybox_rootfs.py"], check=True, capture_output=True
    ).stdout


@pytest.fixture
def busybox(daemon: Daemon, busybox_tar: bytes) -> Daemon:
    """A daemon that serves and has the image busybox:latest, whose command is sh."""
    daemon.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
    return daemon


@pytest.fixture(scope="module")
def shared_busybox(busybox_tar: bytes) -> Iterator[Daemon]:
    """A daemon with busybox for all tests of a module, where each test has containers of its own."""
    daemon = Daemon(Path(tempfile.mkdtemp(prefix="ld-", dir="/tmp")))
    try:
        daemon.start()
        daemon.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
        yield daemon
    finally:
        daemon.close()

"""The engines that are compared, each started by hand on a root of its own: logd, dockerd, podman, and a bare pipe.

An engine that is not installed is reported as missing; the others go on.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from processes import children, matching

REPOSITORY = Path(__file__).parents[1]
IMAGE = "loggen:latest"
FAR_SIZE = "20g"


def run(argv: Sequence[str], *, check: bool = True, timeout: float = 180) -> str:
    """Run a command and return its standard output; a failure shows its standard error."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout.strip()


def build_image(work: Path) -> Path:
    """Compile the generator and return a tar with it and busybox, to be imported."""
    work.mkdir(parents=True, exist_ok=True)
    loggen = work / "loggen"
    run(["gcc", "-O2", "-static", "-o", str(loggen), str(REPOSITORY / "bench" / "loggen.c")])
    archive = work / "image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(loggen, "loggen")
        for name in ("busybox", "sleep", "true", "sh", "cat"):
            tar.add(shutil.which("busybox") or "/bin/busybox", f"bin/{name}")
        for name in ("tmp", "w"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(folder)
    return archive


class Engine(ABC):
    """What a workload needs of an engine."""

    name = "?"
    drivers: tuple[str, ...] = ()
    started = 0

    @abstractmethod
    def cli(self, *arguments: str) -> list[str]:
        """The command line of a client that speaks with the engine."""

    def driver_options(self, driver: str) -> list[str]:
        if driver == "local":  # one file that never rotates: the same work as the others do
            return ["--log-driver", "local", "--log-opt", f"max-size={FAR_SIZE}", "--log-opt", "max-file=1",
                    "--log-opt", "compress=false"]  # fmt: skip
        if driver == "local-defaults":
            return ["--log-driver", "local"]
        return ["--log-driver", driver]

    def run_argv(self, driver: str, argv: list[str], *options: str) -> list[str]:
        return self.cli("run", "--network", "none", *self.driver_options(driver), *options, IMAGE, *argv)

    def fresh_name(self) -> str:
        self.started += 1
        return f"bench{os.getpid()}x{self.started}"

    def remove(self, *names: str) -> None:
        if names:
            run(self.cli("rm", "-f", *names), check=False)

    @abstractmethod
    def log_files(self, name: str, driver: str) -> list[Path]:
        """The files that hold the container's stdout, oldest first."""

    def daemons(self) -> list[int]:
        return []

    def helpers(self) -> list[int]:
        return []

    def forwarders(self) -> list[int]:
        """Processes that deliver, where it is not the daemon that does."""
        return []

    def stop(self) -> None:  # noqa: B027 - what was not started by us goes on
        pass


class DockerLike(Engine):
    """Whatever speaks the Docker API on a socket."""

    root: Path
    socket_path: Path
    process: subprocess.Popen[bytes] | None = None

    def cli(self, *arguments: str) -> list[str]:
        return ["docker", "-H", f"unix://{self.socket_path}", *arguments]

    def spawn(self, argv: list[str], root: Path) -> subprocess.Popen[bytes]:
        with (root / "daemon.log").open("ab") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def await_ping(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(self.socket_path))
                    probe.sendall(b"GET /_ping HTTP/1.0\r\nHost: d\r\n\r\n")
                    if b"200" in probe.recv(64):
                        return
                except OSError:
                    pass
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} did not come up")


class Logd(DockerLike):
    name = "logd"
    drivers = ("local", "local-defaults")

    def __init__(self, root: Path, image: Path) -> None:
        self.root = root
        self.folders: dict[str, Path] = {}
        root.mkdir(parents=True)
        self.socket_path = root / "logd.sock"
        folders = ["--data-root", f"{root}/data", "--exec-root", f"{root}/exec", "--pidfile", f"{root}/logd.pid"]
        argv = [sys.executable, "-m", "logd.daemon", *folders, "-H", f"unix://{self.socket_path}"]
        self.process = self.spawn(argv, root)
        self.await_ping()
        run(self.cli("import", str(image), IMAGE))

    def log_files(self, name: str, driver: str) -> list[Path]:
        if name not in self.folders:  # asked again and again while the clock runs
            container_id = run(self.cli("inspect", "-f", "{{.Id}}", name))
            self.folders[name] = self.root / "data" / "containers" / container_id / "log"
        return sorted(self.folders[name].glob("*.stdout"))

    def daemons(self) -> list[int]:
        assert self.process
        return [
            self.process.pid,
            *(pid for pid in matching(str(self.root / "exec")) if self.comm(pid) in {"logd-keeper", "logd-zygote"}),
        ]

    def helpers(self) -> list[int]:
        return [pid for pid in matching(str(self.root / "exec")) if self.comm(pid) == "logd-shim"]

    def forwarders(self) -> list[int]:
        assert self.process
        return [pid for pid in children(self.process.pid) if self.comm(pid) == "logd-forward"]

    def comm(self, pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            return ""

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        self.process.wait(30)
        for pid in matching(str(self.root / "exec")):
            if self.comm(pid) == "logd-keeper":
                os.kill(pid, 9)
        unmount_below(self.root)
        shutil.rmtree(self.root, ignore_errors=True)


class Dockerd(DockerLike):
    name = "dockerd"
    drivers = ("json-file", "local")

    def __init__(self, root: Path, image: Path) -> None:
        for program in ("dockerd", "containerd"):
            if not shutil.which(program):
                raise FileNotFoundError(f"{program} is not installed (Debian: docker.io)")
        self.root = root
        root.mkdir(parents=True)
        self.socket_path = root / "docker.sock"
        config = root / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{root}/ctrd/root"\nstate = "{root}/ctrd/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{root}/ctrd.sock"\n'
        )
        self.containerd = self.spawn(["containerd", "--config", str(config)], root)
        while not (root / "ctrd.sock").exists():
            time.sleep(0.05)
        folders = ["--data-root", f"{root}/data", "--exec-root", f"{root}/exec", "--pidfile", f"{root}/pid"]
        network = ["--iptables=false", "--bridge=none"]
        argv = ["dockerd", "--containerd", f"{root}/ctrd.sock", *folders, *network, "-H", f"unix://{self.socket_path}"]
        self.process = self.spawn(argv, root)
        self.await_ping()
        run(self.cli("import", str(image), IMAGE))

    def log_files(self, name: str, driver: str) -> list[Path]:
        path, container_id = run(self.cli("inspect", "-f", "{{.LogPath}}|{{.Id}}", name)).split("|")
        local = self.root / "data" / "containers" / container_id / "local-logs" / "container.log"
        return [Path(path) if path else local]

    def daemons(self) -> list[int]:
        assert self.process
        return [self.process.pid, self.containerd.pid]

    def helpers(self) -> list[int]:
        return [pid for pid in matching(f"{self.root}/ctrd.sock") if pid not in self.daemons()]

    def stop(self) -> None:
        assert self.process
        for process in (self.process, self.containerd):
            process.terminate()
            process.wait(60)
        unmount_below(self.root)
        shutil.rmtree(self.root, ignore_errors=True)


class Podman(Engine):
    name = "podman"
    drivers = ("k8s-file",)

    def __init__(self, root: Path, image: Path) -> None:
        for program in ("podman", "conmon"):
            if not shutil.which(program):
                raise FileNotFoundError(f"{program} is not installed (Debian: podman, conmon)")
        self.root = root
        run(self.cli("import", str(image), IMAGE))

    def cli(self, *arguments: str) -> list[str]:
        return ["podman", "--root", f"{self.root}/root", "--runroot", f"{self.root}/run", "--cgroup-manager=cgroupfs",
                "--events-backend=file", "--runtime", "runc", *arguments]  # fmt: skip

    def run_argv(self, driver: str, argv: list[str], *options: str) -> list[str]:
        limits = (
            "--ulimit",
            "nofile=20000:20000",
            "--ulimit",
            "nproc=20000:20000",
        )  # it asks for more than it may have
        return super().run_argv(driver, argv, *limits, *options)

    def log_files(self, name: str, driver: str) -> list[Path]:
        return [Path(run(self.cli("inspect", "-f", "{{.HostConfig.LogConfig.Path}}", name)))]

    def remove(self, *names: str) -> None:
        if names:
            run(self.cli("rm", "-f", "-t", "0", *names), check=False)

    def helpers(self) -> list[int]:
        return [
            pid for pid in matching(f"{self.root}/root") if Path(f"/proc/{pid}/comm").read_text().strip() == "conmon"
        ]

    def stop(self) -> None:
        unmount_below(self.root)
        shutil.rmtree(self.root, ignore_errors=True)


def unmount_below(root: Path) -> None:
    """Unmount what an engine left below its root, innermost first."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((one for one in mounts if one.startswith(f"{root}/")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)


def versions(engines: list[Engine]) -> dict[str, str]:
    """What is compared with what."""
    found = {"kernel": os.uname().release, "cores": str(os.cpu_count())}
    for engine in engines:
        found[engine.name] = json.dumps(run(engine.cli("version", "--format", "{{.Server.Version}}"), check=False))
    return found

"""A busybox root and a runtime that runs the bundles made from it: real containers, without engine and shim."""

import contextlib
import os
import secrets
import shutil
import subprocess
from pathlib import Path

from logd.runtime.oci import BundleRequest, delete_argv, prepare_bundle
from logd.runtime.rootfs import mount_overlay, unmount
from logd.runtime.validate import validate_host
from logd.spec import ContainerSpec, HostConfig

RUNC = shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin") or "/usr/sbin/runc"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nwheel:x:10:root\nalice:x:1000:\nstaff:x:50:alice\n"


def make_busybox_layer(folder: Path) -> Path:
    """Lay out an image layer: busybox under all its names, accounts, and a few folders."""
    for name in ("bin", "etc", "tmp", "home/alice", "root", "data"):
        (folder / name).mkdir(parents=True)
    (folder / "tmp").chmod(0o1777)
    shutil.copy("/bin/busybox", folder / "bin/busybox")
    names = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if name != "busybox":
            os.link(folder / "bin/busybox", folder / "bin" / name)
    (folder / "etc/passwd").write_text(PASSWD)
    (folder / "etc/group").write_text(GROUP)
    (folder / "data/of-the-image").write_text("image\n")
    return folder


class Containers:
    """Runs containers below a folder of its own and clears all of them away at the end."""

    def __init__(self, folder: Path, layer: Path) -> None:
        self.folder = folder
        self.layer = layer
        self.runtime = (RUNC, "--root", str(folder / "runc"))
        self.last: BundleRequest | None = None
        self._made: list[BundleRequest] = []

    def bundle(self, *argv, spec=None, host=None, **more) -> BundleRequest:
        """Mount a root and write a bundle, after the request was checked as the engine does."""
        spec, host = spec or ContainerSpec(), host or HostConfig()
        validate_host(spec, host)
        container_id = secrets.token_hex(32)
        container_dir, exec_dir = self.folder / "c" / container_id, self.folder / "e" / container_id
        for folder in (container_dir, exec_dir):
            folder.mkdir(parents=True)
        rootfs = container_dir / "rootfs"
        mount_overlay([self.layer], container_dir / "upper", container_dir / "work", rootfs)
        request = BundleRequest(
            id=container_id,
            spec=spec,
            host=host,
            container_dir=container_dir,
            exec_dir=exec_dir,
            rootfs=rootfs,
            argv=argv,
            hostname=spec.hostname or container_id[:12],
            cgroup_parent="/logd-oci-test",
            **more,
        )
        self._made.append(request)
        self.last = request
        prepare_bundle(request)
        return request

    def run(self, *argv, stdin=b"", **more) -> subprocess.CompletedProcess:
        """Run a command to its end, its stdio on pipes as under a shim."""
        request = self.bundle(*argv, **more)
        return subprocess.run(
            [*self.runtime, "run", "--bundle", str(request.exec_dir), request.id],
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def sh(self, script: str, **more) -> str:
        """Run a shell script that must succeed and return what it printed."""
        done = self.run("/bin/sh", "-c", script, **more)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def close(self) -> None:
        """Remove everything."""
        for request in self._made:
            argv = delete_argv(self.runtime, request.id)
            subprocess.run([*argv[:-1], "--force", argv[-1]], capture_output=True, check=False)
            unmount(request.rootfs)
        for tree in (*Path("/sys/fs/cgroup").glob("*/logd-oci-test"), Path("/sys/fs/cgroup/logd-oci-test")):
            with contextlib.suppress(OSError):  # another test run may be using it
                tree.rmdir()

"""A minimal OCI bundle around the host's busybox, for tests that need a container but no engine."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from logd.logstore.options import StoreOptions
from logd.runtime.protocol import Launch

RUNC = shutil.which("runc") or "/usr/sbin/runc"


def make_launch(
    root: Path,
    exec_root: Path,
    container_id: str,
    argv: list[str],
    *,
    run: int = 1,
    binds: tuple[str, ...] = (),
    **more: object,
) -> Launch:
    """Lay out a bundle under `exec_root` and say how to launch it."""
    container_dir = root / "containers" / container_id
    exec_dir = exec_root / "containers" / container_id
    rootfs = container_dir / "rootfs"
    for folder in (exec_dir, rootfs / "bin", rootfs / "proc", rootfs / "dev", rootfs / "w", rootfs / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("busybox", "sh", "cat", "sleep", "true", "seq", "yes", "head"):
        target = rootfs / "bin" / name
        if not target.exists():
            os.link(_busybox(root), target)
    subprocess.run([RUNC, "spec"], cwd=_fresh(exec_dir), check=True)
    spec = json.loads((exec_dir / "config.json").read_text())
    spec["root"] = {"path": str(rootfs), "readonly": False}
    spec["process"] |= {"terminal": bool(more.get("terminal")), "args": argv, "oomScoreAdj": 0}
    spec["process"].pop("rlimits", None)
    spec["linux"]["cgroupsPath"] = f"/logd-test/{container_id}"
    for bind in binds:
        mount = {"destination": "/w", "type": "bind", "source": bind, "options": ["rbind", "rw"]}
        spec["mounts"].append(mount)
    (exec_dir / "config.json").write_text(json.dumps(spec))
    runtime = (RUNC, "--root", str(exec_root / "runc"))
    store = more.pop("store", StoreOptions())
    return Launch(container_id, str(container_dir), str(exec_dir), runtime, run, store=store, **more)  # type: ignore[arg-type]


def delete(launch: Launch) -> None:
    """Remove what the runtime keeps of a container."""
    subprocess.run([*launch.runtime, "delete", "--force", launch.container_id], check=False, capture_output=True)


def _busybox(root: Path) -> Path:
    copy = root / "busybox"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/busybox", copy)
    return copy


def _fresh(exec_dir: Path) -> Path:
    (exec_dir / "config.json").unlink(missing_ok=True)
    return exec_dir

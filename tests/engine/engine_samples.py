"""Containers for tests that need no process."""

from pathlib import Path
from typing import Any

from logd.container import Container, Record, State
from logd.spec import ContainerSpec, HostConfig, LogConfig, RestartPolicy

CREATED_NS = 1_700_000_000_123_456_789


def make_record(**changes: Any) -> Record:
    """Return the record of a container of busybox, with changes."""
    fields: dict[str, Any] = {
        "id": "0123456789ab" + "c" * 52,
        "name": "web",
        "created_ns": CREATED_NS,
        "image_id": "sha256:" + "1" * 64,
        "image_ref": "busybox:latest",
        "os": "linux",
        "path": "sh",
        "args": ["-c", "echo hello"],
        "config": ContainerSpec(image="busybox:latest", cmd=["sh", "-c", "echo hello"], labels={"tier": "front"}),
        "host_config": HostConfig(
            network_mode="bridge", log_config=LogConfig(type="local"), restart_policy=RestartPolicy(name="no")
        ),
        "mounts": [],
        "run": 0,
        "restart_count": 0,
        "state": State(),
    }
    return Record(**{**fields, **changes})


def make_container(root: Path, *, container_id: str = "", **changes: Any) -> Container:
    """Return a container whose folders would be below `root`."""
    if container_id:
        changes["id"] = container_id
    record = make_record(**changes)
    return Container(record, root / "containers" / record.id, root / "exec" / record.id)

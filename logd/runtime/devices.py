"""Device nodes in a container and the device cgroup's rules.

Source: Docker's "Runtime privilege and Linux capabilities"; OCI runtime specification, config-linux.md "Devices";
Documentation/admin-guide/cgroup-v1/devices.rst.
"""

import os
import re
import stat
from collections.abc import Iterator
from typing import Any, Final

from logd.errors import InvalidParameter, Unsupported
from logd.spec import DeviceMapping, HostConfig

ALLOWED: Final = ((1, 3), (1, 5), (1, 8), (1, 9), (5, 0), (5, 1))  # null, zero, random, urandom, tty, console
FUSE: Final = (10, 229)
RULE: Final = re.compile(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})")
NOT_A_DEVICE: Final = frozenset({"/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console", "/dev/.udev"})  # noqa: S108 - no temporary file


def devices(host: HostConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return `linux.devices` and `linux.resources.devices`; raises InvalidParameter for what can't be had."""
    if host.privileged:
        nodes = [_node(path, path) for path in _nodes_below("/dev")]
        return nodes, [{"allow": True, "access": "rwm"}]
    nodes, rules = [], _default_rules()
    for mapping in host.devices:
        for path, inside in _expand(mapping):
            node = _node(path, inside)
            nodes.append(node)
            rules.append(_rule(node["type"], node["major"], node["minor"], mapping.cgroup_permissions or "rwm"))
    rules += [_parse_rule(text) for text in host.device_cgroup_rules]
    return nodes, rules


def validate_devices(host: HostConfig) -> None:
    """Check the request's devices without building anything."""
    for mapping in host.devices:
        if "=" in mapping.path_on_host:
            raise Unsupported(f"CDI devices are not supported: {mapping.path_on_host}")
        letters = mapping.cgroup_permissions
        if set(letters) - set("rwm") or len(set(letters)) != len(letters):
            raise InvalidParameter(f"invalid device mode: {letters} (letters of rwm)")
        for _ in _expand(mapping):
            pass
    for text in host.device_cgroup_rules:
        _parse_rule(text)


def _default_rules() -> list[dict[str, Any]]:
    denied: dict[str, Any] = {"allow": False, "access": "rwm"}
    fuse = {**_rule("c", *FUSE, "rwm"), "allow": False}
    return [denied, *(_rule("c", major, minor, "rwm") for major, minor in ALLOWED), fuse]


def _rule(kind: str, major: int, minor: int, access: str) -> dict[str, Any]:
    return {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}


def _parse_rule(text: str) -> dict[str, Any]:
    match = RULE.fullmatch(text)
    if not match:
        raise InvalidParameter(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = match.groups()
    numbers = {name: int(value) for name, value in (("major", major), ("minor", minor)) if value != "*"}
    return {"allow": True, "type": kind, **numbers, "access": access}


def _expand(mapping: DeviceMapping) -> Iterator[tuple[str, str]]:
    """Yield (path on the host, path inside); a folder stands for the devices in it."""
    path = os.path.realpath(mapping.path_on_host)
    inside = mapping.path_in_container or mapping.path_on_host
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()  # Go's spelling, by which clients tell a missing file
        raise InvalidParameter(
            f'error gathering device information while adding custom device "{mapping.path_on_host}": {reason}'
        ) from error
    if stat.S_ISDIR(mode):
        found = [(node, os.path.normpath(inside + node[len(path) :])) for node in _nodes_below(path)]
    else:
        found = [(path, os.path.normpath(inside))] if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else []
    if not found:
        raise InvalidParameter(
            f'error gathering device information while adding custom device "{mapping.path_on_host}": not a device node'
        )
    yield from found


def _nodes_below(folder: str) -> Iterator[str]:
    for entry in sorted(os.scandir(folder), key=lambda item: item.name):
        if entry.path in NOT_A_DEVICE or entry.is_symlink():
            continue
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from _nodes_below(entry.path)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            yield entry.path


def _node(path: str, inside: str) -> dict[str, Any]:
    status = os.stat(path)
    return {
        "path": inside,
        "type": "b" if stat.S_ISBLK(status.st_mode) else "c",
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }

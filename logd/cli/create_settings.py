"""HostConfig's fields that options of `logd run` set, and the networks; what is not asked for is left out.

Source: Docker Engine API 1.47, HostConfig and EndpointSettings.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from logd.cli.limits import limits, long_name, parse_size_option
from logd.cli.mounts import fields_of, mounts
from logd.cli.words import pairs, split
from logd.errors import InvalidParameter
from logd.units import parse_ram_size

PLAIN: Final = {
    "cgroup_parent": "CgroupParent", "cgroupns": "CgroupnsMode", "ipc": "IpcMode", "pid": "PidMode", "uts": "UTSMode",
    "userns": "UsernsMode", "runtime": "Runtime", "oom_score_adj": "OomScoreAdj", "isolation": "Isolation",
    "memory_swappiness": "MemorySwappiness", "volume_driver": "VolumeDriver",
}  # fmt: skip
FLAGS: Final = {
    "privileged": "Privileged", "publish_all": "PublishAllPorts", "oom_kill_disable": "OomKillDisable",
}  # fmt: skip
LISTS: Final = {
    "dns": "Dns", "dns_option": "DnsOptions", "dns_search": "DnsSearch",
    "group_add": "GroupAdd", "volumes_from": "VolumesFrom", "device_cgroup_rule": "DeviceCgroupRules",
}  # fmt: skip
SIZES: Final = {"shm_size": "ShmSize", "kernel_memory": "KernelMemory"}
PAIRS: Final = {"sysctl": "Sysctls", "annotation": "Annotations", "storage_opt": "StorageOpt"}
RATES: Final = {
    "device_read_bps": "BlkioDeviceReadBps", "device_write_bps": "BlkioDeviceWriteBps",
    "device_read_iops": "BlkioDeviceReadIOps", "device_write_iops": "BlkioDeviceWriteIOps",
}  # fmt: skip
"""By the options' names: the fields that they set."""
PERMISSIONS: Final = frozenset("rwm")


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are asked for. Raises InvalidParameter."""
    found: dict[str, Any] = {key: options[name] for name, key in PLAIN.items() if options[name] not in {None, ""}}
    found |= {key: True for name, key in FLAGS.items() if options[name]}
    found |= {key: list(options[name]) for name, key in LISTS.items() if options[name]}
    found |= {key: parse_size_option(name, options[name]) for name, key in SIZES.items() if options[name]}
    found |= {key: pairs(long_name(name), options[name]) for name, key in PAIRS.items() if options[name]}
    readers: tuple[tuple[str, str, Callable[[Iterable[str]], list[Any]]], ...] = (
        ("cap_add", "CapAdd", lambda words: [_capability(word) for word in words]),
        ("cap_drop", "CapDrop", lambda words: [_capability(word) for word in words]),
        ("add_host", "ExtraHosts", lambda words: [_host_line(word) for word in words]),
        ("blkio_weight_device", "BlkioWeightDevice", lambda words: [_weight(word) for word in words]),
        ("device", "Devices", lambda words: [_device(word) for word in words]),
        *((name, key, partial(_rates, name)) for name, key in RATES.items()),
        ("mount", "Mounts", mounts),
        ("security_opt", "SecurityOpt", lambda words: [parse_security_option(word) for word in words]),
        ("ulimit", "Ulimits", lambda words: [parse_ulimit(word) for word in words]),
    )
    if options["gpus"]:
        found["DeviceRequests"] = [{"Count": -1, "Capabilities": [["gpu"]]}]
    found |= limits(options)
    return found | {key: read(options[name]) for name, key, read in readers if options[name]}


def networks(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is asked for in each network, by its name; addresses and names of their own options are the first's.

    A network is NAME, or `name=NAME,alias=…,ip=…,ip6=…,link-local-ip=…,mac-address=…,driver-opt=KEY=VALUE`.
    Raises InvalidParameter.
    """
    found: dict[str, dict[str, Any]] = {}
    for word in options["network"]:
        name, endpoint = _network(word)
        if name in found:
            raise InvalidParameter(f"--network: {name} is given twice")
        found[name] = endpoint
    own = {"ip": options["ip"], "ip6": options["ip6"], "mac-address": options["mac_address"]}
    asked = [(key, value) for key, value in own.items() if value]
    asked += [("alias", alias) for alias in options["network_alias"]]
    asked += [("link-local-ip", address) for address in options["link_local_ip"]]
    asked += [("link", link) for link in options["link"]]
    if asked:
        first = found.setdefault("default", {}) if not found else next(iter(found.values()))
        for key, value in asked:
            _ask(first, key, value)
    return found


def _network(word: str) -> tuple[str, dict[str, Any]]:
    if "=" not in word:
        return word, {}
    name, endpoint = "", dict[str, Any]()
    for key, value in fields_of("--network", word):
        if key.strip().lower() == "name":
            name = value
        elif not _ask(endpoint, key.strip().lower(), value):
            raise InvalidParameter(
                f"--network: unknown field {key!r} in {word!r} (name, alias, ip, ip6, link-local-ip, "
                "mac-address, driver-opt)"
            )
    if not name:
        raise InvalidParameter(f"--network: {word!r} has no name (write name=NETWORK,alias=…)")
    return name, endpoint


def _ask(endpoint: dict[str, Any], key: str, value: str) -> bool:
    """Put one wish into an endpoint's settings; return whether there is such a one."""
    match key:
        case "ip":
            endpoint.setdefault("IPAMConfig", {})["IPv4Address"] = value
        case "ip6":
            endpoint.setdefault("IPAMConfig", {})["IPv6Address"] = value
        case "mac-address":
            endpoint["MacAddress"] = value
        case "alias" | "link":
            endpoint.setdefault({"alias": "Aliases", "link": "Links"}[key], []).append(value)
        case "link-local-ip":
            endpoint.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
        case "driver-opt":
            endpoint.setdefault("DriverOpts", {}).update([split(value)])
        case _:
            return False
    return True


def _host_line(word: str) -> str:
    """Return NAME:ADDRESS; docker takes NAME=ADDRESS too, and an address in brackets."""
    mark = "=" if "=" in word else ":"
    name, address = split(word, mark)
    if not name or not address:
        raise InvalidParameter(f"--add-host: invalid value {word!r} (write NAME:ADDRESS)")
    return f"{name}:{address.removeprefix('[').removesuffix(']')}"


def _capability(word: str) -> str:
    """Return a capability's whole name: CAP_CHOWN for chown."""
    name = word.strip().upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def _device(word: str) -> dict[str, str]:
    parts = word.split(":")
    permissions = "rwm"
    if len(parts) > 1 and parts[-1] and set(parts[-1]) <= PERMISSIONS:
        permissions = parts.pop()
    if len(parts) > 2 or not all(parts):
        raise InvalidParameter(f"--device: invalid value {word!r} (write /dev/NAME[:PATH][:rwm])")
    return {"PathOnHost": parts[0], "PathInContainer": parts[-1], "CgroupPermissions": permissions}


def _rates(option: str, words: Iterable[str]) -> list[dict[str, Any]]:
    """Return a limit for each disk, of bytes with units, or of operations."""
    found = []
    for word in words:
        path, _, rate = word.rpartition(":")
        try:
            number = parse_ram_size(rate) if option.endswith("bps") else int(rate)
        except ValueError as error:
            raise InvalidParameter(f"{long_name(option)}: invalid value {word!r} (write /dev/NAME:NUMBER)") from error
        found.append({"Path": path, "Rate": number})
    return found


def _weight(word: str) -> dict[str, Any]:
    path, _, weight = word.rpartition(":")
    if not (weight.isascii() and weight.isdigit()):
        raise InvalidParameter(f"--blkio-weight-device: invalid value {word!r} (write /dev/NAME:10-1000)")
    return {"Path": path, "Weight": int(weight)}


def parse_security_option(word: str) -> str:
    """Return the option; of a seccomp profile the content, for the daemon may not see our files."""
    key, value = split(word)
    if key != "seccomp" or value in {"", "unconfined", "builtin"}:
        return word
    try:
        with open(value, encoding="utf-8") as file:
            return f"seccomp={file.read()}"
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"--security-opt: {value}: {error}") from error


def parse_ulimit(word: str) -> dict[str, Any]:
    """Return the API's Ulimit for NAME=SOFT[:HARD]. Raises InvalidParameter."""
    name, limits = split(word)
    soft, _, hard = limits.partition(":")
    try:
        values = [int(soft), int(hard or soft)]
    except ValueError as error:
        raise InvalidParameter(f"--ulimit: invalid value {word!r} (write nofile=1024, or nofile=1024:2048)") from error
    return {"Name": name, "Soft": values[0], "Hard": values[1]}

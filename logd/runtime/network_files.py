"""/etc/hostname, /etc/hosts and /etc/resolv.conf of a container, written beside it and mounted over the image's.

Source: hosts(5), resolv.conf(5), Docker's "Networking overview" (DNS services, custom hosts).
"""

import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from logd.errors import InvalidParameter
from logd.spec import ContainerSpec, HostConfig

HOSTS_HEAD: Final = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
RESOLV_CONF: Final = Path("/etc/resolv.conf")
RESOLVED_STUB: Final = "127.0.0.53"
RESOLVED_UPLINK: Final = Path("/run/systemd/resolve/resolv.conf")
FILES: Final = ("hostname", "hosts", "resolv.conf")
RESOLVER: Final = "127.0.0.11"
"""Docker's: where the name server of networks that people make answers, in each container's own namespace."""
MAX_HOSTS_BYTES: Final = 1 << 20
"""A hosts file that the container has made longer than this is left to it."""
HOST_GATEWAY: Final = "host-gateway"
"""In --add-host: the address by which a container reaches its host."""


class NetworkSetup(NamedTuple):
    """What a bundle has to know of the container's networks; by default there is nothing but a loopback.

    `namespace`: the file of the namespace that it joins, "" for a new one (or the host's). `addresses`: its own.
    `resolver`: the name server that it has to ask, "" for the host's. `gateway`: the host, as seen from it, "" where it
    can't be reached. `shared`: the folder of the container whose namespace and files it shares.
    """

    namespace: str = ""
    addresses: tuple[str, ...] = ()
    resolver: str = ""
    gateway: str = ""
    shared: Path | None = None


LOOPBACK: Final = NetworkSetup()


def validate_network_files(host: HostConfig) -> None:
    """Check ExtraHosts and Dns; raises InvalidParameter in Docker's words."""
    for entry in host.extra_hosts:
        _extra_host(entry)
    for server in host.dns:
        if not _is_address(server):
            raise InvalidParameter(f"{server} is not an ip address")


def write_network_files(
    folder: Path,
    spec: ContainerSpec,
    host: HostConfig,
    setup: NetworkSetup = LOOPBACK,
    *,
    owner: tuple[int, int] = (0, 0),
) -> dict[str, Path]:
    """Write the three files, of the host's user and group `owner`, into `folder`; return them by their place.

    With the host's network the host's own hosts file is what the container's begins with. Who shares another
    container's network has that one's files. Raises InvalidParameter.
    """
    if setup.shared is not None:
        return {f"/etc/{name}": setup.shared / name for name in FILES if (setup.shared / name).exists()}
    host_network = host.network_mode == "host"
    contents = {
        "hostname": f"{spec.hostname}\n",
        "hosts": hosts(spec, host, _read(Path("/etc/hosts")) if host_network else None, setup),
        "resolv.conf": resolv_conf(_host_resolv_conf(host_network), host, setup.resolver),
    }
    files = {}
    for name, content in contents.items():
        path = folder / name
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
        path.chmod(0o644)
        os.chown(path, *owner)
        files[f"/etc/{name}"] = path
    return files


def change_resolver(folder: Path, host: HostConfig, resolver: str) -> None:
    """Have a container that runs ask `resolver` from now on ("": the host's), unless it has changed that file."""
    path, of_the_host = folder / "resolv.conf", _host_resolv_conf(host.network_mode == "host")
    known = {resolv_conf(of_the_host, host, one) for one in ("", RESOLVER)}
    if path.stat().st_size <= MAX_HOSTS_BYTES and _read(path) in known:
        path.write_text(resolv_conf(of_the_host, host, resolver), encoding="utf-8", errors="surrogateescape")


def hosts(spec: ContainerSpec, host: HostConfig, of_the_host: str | None, setup: NetworkSetup = LOOPBACK) -> str:
    """Return the content of /etc/hosts; its own name is the container's addresses, or the loopback's without any."""
    head = of_the_host if of_the_host is not None else HOSTS_HEAD
    if head and not head.endswith("\n"):
        head += "\n"
    own = "" if of_the_host is not None else "".join(_own_lines(spec, setup.addresses or ("127.0.0.1",)))
    gateway = "127.0.0.1" if of_the_host is not None else setup.gateway
    return head + "".join(_extra_line(entry, gateway) for entry in host.extra_hosts) + own


def _own_lines(spec: ContainerSpec, addresses: Iterable[str]) -> list[str]:
    """Return a line for each address: the name with its domain, the name, and its first part, as Docker has it."""
    whole = f"{spec.hostname}.{spec.domainname}" if spec.domainname else spec.hostname
    names = " ".join(dict.fromkeys((whole, spec.hostname, whole.partition(".")[0])))
    return [f"{address}\t{names}\n" for address in addresses]


def _extra_line(entry: str, gateway: str) -> str:
    name, address = _extra_host(entry)
    if address == HOST_GATEWAY:
        if not gateway:
            raise InvalidParameter("unable to derive the IP value for host-gateway")
        address = gateway
    return f"{address}\t{name}\n"


def add_addresses(folder: Path, spec: ContainerSpec, addresses: Iterable[str]) -> None:
    """Enter further addresses of a container that runs into its hosts file, which stays the same: it is mounted."""
    path = folder / "hosts"
    with path.open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(_own_lines(spec, addresses))


def remove_addresses(folder: Path, addresses: Iterable[str]) -> None:
    """Take addresses that a container has no longer out of its hosts file."""
    path, gone = folder / "hosts", set(addresses)
    if path.stat().st_size > MAX_HOSTS_BYTES:
        return
    lines = _read(path).splitlines(keepends=True)
    kept = [line for line in lines if (line.split() or [""])[0] not in gone]
    path.write_text("".join(kept), encoding="utf-8", errors="surrogateescape")


def resolv_conf(of_the_host: str, host: HostConfig, resolver: str = "") -> str:
    """Return the host's resolv.conf, with each kind of line that the request gives replaced by the request's own.

    A `resolver` of the container's own networks is asked instead of all others, also for names without a dot.
    """
    options = [*host.dns_options]
    if resolver and not any(one.startswith("ndots:") for one in options):
        options.append("ndots:0")
    replaced = {
        "nameserver": [resolver] if resolver else host.dns,
        "search": [" ".join(host.dns_search)] if host.dns_search else [],
        "options": [" ".join(options)] if options else [],
    }
    kept = [
        line
        for line in of_the_host.splitlines()
        if not any(values and line.split()[:1] == [key] for key, values in replaced.items())
    ]
    added = [f"{key} {value}" for key, values in replaced.items() for value in values if value != "."]
    return "".join(f"{line}\n" for line in [*kept, *added])


def _extra_host(entry: str) -> tuple[str, str]:
    """`name:address` (or `=`) → (name, address)."""
    separator = min((mark for mark in ":=" if mark in entry), key=entry.index, default=":")
    name, found, address = entry.partition(separator)
    address = address.removeprefix("[").removesuffix("]")
    if not found or not name or any(letter.isspace() for letter in name):
        raise InvalidParameter(f'bad format for add-host: "{entry}"')
    if address != HOST_GATEWAY and not _is_address(address):
        raise InvalidParameter(f'invalid IP address in add-host: "{address}"')
    return name, address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _host_resolv_conf(host_network: bool) -> str:
    """A stub on the host's loopback is of no use elsewhere: systemd-resolved's own list of servers is taken then."""
    content = _read(RESOLV_CONF)
    if not host_network and RESOLVED_STUB in content.split() and RESOLVED_UPLINK.exists():
        return _read(RESOLVED_UPLINK)
    return content


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""

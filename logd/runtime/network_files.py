"""/etc/hostname, /etc/hosts and /etc/resolv.conf of a container, written beside it and mounted over the image's.

Source: hosts(5), resolv.conf(5), Docker's "Networking overview" (DNS services, custom hosts).
"""

import ipaddress
from pathlib import Path
from typing import Final

from logd.errors import InvalidParameter, Unsupported
from logd.spec import HostConfig

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


def validate_network_files(host: HostConfig) -> None:
    """Check ExtraHosts and Dns; raises InvalidParameter in Docker's words."""
    for entry in host.extra_hosts:
        _extra_host(entry)
    for server in host.dns:
        if not _is_address(server):
            raise InvalidParameter(f"{server} is not an ip address")


def write_network_files(folder: Path, hostname: str, host: HostConfig) -> dict[str, Path]:
    """Write the three files into `folder` and return them by their place in the container.

    With the host's network the host's own hosts file is what the container's begins with.
    """
    host_network = host.network_mode == "host"
    contents = {
        "hostname": f"{hostname}\n",
        "hosts": hosts(hostname, host, _read(Path("/etc/hosts")) if host_network else None),
        "resolv.conf": resolv_conf(_host_resolv_conf(host_network), host),
    }
    files = {}
    for name, content in contents.items():
        path = folder / name
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
        path.chmod(0o644)
        files[f"/etc/{name}"] = path
    return files


def hosts(hostname: str, host: HostConfig, of_the_host: str | None) -> str:
    """Return the content of /etc/hosts; a container without the host's network finds its own name on the loopback."""
    head = of_the_host if of_the_host is not None else f"{HOSTS_HEAD}127.0.0.1\t{hostname}\n"
    if head and not head.endswith("\n"):
        head += "\n"
    return head + "".join(f"{address}\t{name}\n" for name, address in map(_extra_host, host.extra_hosts))


def resolv_conf(of_the_host: str, host: HostConfig) -> str:
    """Return the host's resolv.conf, with each kind of line that the request gives replaced by the request's own."""
    replaced = {
        "nameserver": host.dns,
        "search": [" ".join(host.dns_search)] if host.dns_search else [],
        "options": [" ".join(host.dns_options)] if host.dns_options else [],
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
    if address == "host-gateway":
        raise Unsupported("--add-host: host-gateway is not supported yet (there is no bridge network)")
    if not _is_address(address):
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

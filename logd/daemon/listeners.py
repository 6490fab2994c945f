"""From `hosts` to listening sockets: unix:///path, fd:// (socket activation), tcp://address:port with client TLS."""

import grp
import ipaddress
import logging
import os
import socket
import stat
from pathlib import Path
from typing import Final, NamedTuple

from logd.config import DEFAULT_METRICS_ADDR, DaemonConfig
from logd.daemon.lock import make_folder
from logd.daemon.tls import ServerContext, server_context
from logd.errors import Conflict, InvalidParameter, LogdError

LOG = logging.getLogger(__name__)
SOCKET_MODE: Final = 0o660
BACKLOG: Final = 512
_UMASK: Final = 0o177


class Listener(NamedTuple):
    """A bound socket, how to call it, and the TLS that it needs. `inode` tells whether a path is still ours."""

    name: str
    socket: socket.socket
    tls: ServerContext | None
    path: Path | None
    inode: int
    viewers: bool = False
    """Whether it is the read-only socket."""

    def close(self) -> None:
        """Close the socket and remove its path, unless another daemon has put its own there."""
        self.socket.close()
        if self.path is not None and self.path.exists() and self.path.stat().st_ino == self.inode:
            self.path.unlink()


def open_listeners(config: DaemonConfig, activated: list[socket.socket]) -> list[Listener]:
    """Bind all of `hosts` and the read-only socket; on failure none stays bound. Raises LogdError with the name."""
    listeners: list[Listener] = []
    tls = server_context(config) if config.tlsverify else None
    try:
        for host in config.hosts:
            listeners += _open(host, config, activated, tls)
        if config.viewer_socket:
            listener = _open_unix(Path(config.viewer_socket), config.viewer_group)
            listeners.append(listener._replace(viewers=True))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def open_metrics(config: DaemonConfig) -> list[socket.socket]:
    """Bind metrics-addr. Raises LogdError, unless it is the default that is in use: then the answer is none."""
    address = DEFAULT_METRICS_ADDR if config.metrics_addr is None else config.metrics_addr
    if not address:
        return []
    try:
        found = _open_tcp(f"metrics-addr: {address}", address)
    except LogdError as error:
        if config.metrics_addr is not None:
            raise
        LOG.warning("%s: metrics are served on the API's socket only (set metrics-addr)", error)
        return []
    for one in found:
        where, port, *_ = one.getsockname()
        shown = f"[{where}]:{port}" if one.family == socket.AF_INET6 else f"{where}:{port}"
        LOG.info("Metrics listen on %s", shown)
        if not ipaddress.ip_address(where.partition("%")[0]).is_loopback:
            LOG.warning("metrics-addr: whoever reaches %s reads the names of containers and what they use", shown)
    return found


def _open(host: str, config: DaemonConfig, activated: list[socket.socket], tls: ServerContext | None) -> list[Listener]:
    scheme, _, rest = host.partition("://")
    if scheme == "unix":
        return [_open_unix(Path(rest), config.group)]
    if scheme == "tcp":
        return [Listener(host, one, tls, None, 0) for one in _open_tcp(host, rest)]
    if not activated:
        raise LogdError("fd://: no sockets found via socket activation: make sure the service was started by systemd")
    return [_activated(one, tls) for one in activated]


def _activated(one: socket.socket, tls: ServerContext | None) -> Listener:
    if one.family == socket.AF_UNIX:
        return Listener(f"fd://{one.getsockname()}", one, None, None, 0)
    if tls is None:
        raise InvalidParameter(
            f"fd://: {one.getsockname()} is not a unix socket: TCP needs tlsverify with tlscacert, tlscert and tlskey"
        )
    return Listener(f"fd://{one.getsockname()}", one, tls, None, 0)


def _open_unix(path: Path, group: str) -> Listener:
    gid = _group_id(group)
    if not path.parent.exists():
        make_folder(path.parent)
    _remove_stale(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(_UMASK)  # nobody may connect before the group is right
    try:
        server.bind(str(path))
        if gid is not None:
            os.chown(path, 0, gid)
            path.chmod(SOCKET_MODE)
        server.listen(BACKLOG)
        return Listener(f"unix://{path}", server, None, path, path.stat().st_ino)
    except OSError as error:
        server.close()
        raise LogdError(f"unix://{path}: {error.strerror}") from error
    finally:
        os.umask(before)


def _group_id(group: str) -> int | None:
    """Return the gid of a name or number; None for "", and, with a warning, where the default group does not exist."""
    if not group:
        return None
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group != DaemonConfig.group:
            raise InvalidParameter(f"group: group {group} not found") from None
    LOG.warning("group %s not found: only root can use the socket (create it with: groupadd --system %s)", group, group)
    return None


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises Conflict for one in use and for anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"unix://{path}: the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise Conflict(f"unix://{path}: {error.strerror}") from error
    raise Conflict(f"unix://{path}: another process listens there")


def _open_tcp(host: str, address: str) -> list[socket.socket]:
    """Bind an address, all that a name stands for, and all of the host for none. Raises LogdError."""
    name, _, port = address.rpartition(":")
    found: list[socket.socket] = []
    try:
        answers = socket.getaddrinfo(
            name.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, where in dict.fromkeys(answers):
            server = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
            found.append(server)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind(where)
            server.listen(BACKLOG)
    except OSError as error:
        for one in found:
            one.close()
        raise LogdError(f"{host}: {error.strerror}") from error
    return found

"""The daemon's settings, typed: each field of DaemonConfig is the one home of a key of daemon.json and its flag.

Names, defaults and meanings are dockerd's (https://docs.docker.com/reference/cli/dockerd/); logd's own stand under
`"logd": {"store": …}`. Files and flags are read by daemon/config_file and daemon/flags.
"""
# ruff: noqa: RUF009  (_option is dataclasses.field with names for its metadata)

import os
import shutil
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from logd.config_kinds import (
    ADDRESS,
    ADDRESSES,
    BOOLEAN,
    CGROUP,
    EXEC_OPTS,
    FILE_PATH,
    GROUP,
    HOSTS,
    INSECURE,
    INTERFACE,
    LABEL_NAMES,
    LABELS,
    LISTEN_ADDRESS,
    MIRRORS,
    PATH,
    PATHS,
    POOLS,
    PROXIES,
    RAM_SIZE,
    RUNTIMES,
    SOCKET_PATH,
    STOCK_RUNTIMES,
    STRING_MAP,
    SUBNET,
    TEXT,
    ULIMIT_MAP,
    WORDS,
    Kind,
    Pool,
    Proxies,
    Runtime,
    one_of,
    whole,
)

__all__ = ["OPTIONS", "DaemonConfig", "Option", "Pool", "Proxies", "Runtime", "find_program", "stock_runtimes"]

DEFAULT_METRICS_ADDR: Final = "127.0.0.1:9323"
"""The port that Docker's documentation has its metrics at."""
LOG_LEVELS: Final = ("debug", "info", "warn", "error", "fatal")
RUNTIME_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Searched after $PATH: Debian keeps runc in /usr/sbin, which is not on every PATH."""
INIT_PROGRAMS: Final = ("docker-init", "tini-static", "catatonit", "tini")
"""The static ones first: Debian's tini needs the host's libc, which an image may not have."""


class Option(NamedTuple):
    """One setting. `key` is its path in daemon.json; `flag` is "" where there is none."""

    name: str
    key: tuple[str, ...]
    kind: Kind
    flag: str
    short: str
    reloadable: bool
    help: str


def _option(
    kind: Kind,
    default: Any = ...,
    help: str = "",  # noqa: A002 - argparse's word
    *,
    factory: Callable[[], Any] | None = None,
    key: tuple[str, ...] | None = None,
    flag: str | None = None,
    short: str = "",
    reloadable: bool = False,
) -> Any:
    metadata = {"kind": kind, "help": help, "key": key, "flag": flag, "short": short, "reloadable": reloadable}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def _store(kind: Kind, default: Any, help: str, key: str) -> Any:  # noqa: A002
    return _option(kind, default, help, key=("logd", "store", key), flag="", reloadable=True)


def find_program(name: str) -> str | None:
    """Return the absolute path of a program on $PATH or in the usual folders."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{RUNTIME_PATH}")


def stock_runtimes() -> dict[str, Runtime]:
    """Return runc and crun, as far as they are installed; runc in any case, so that its absence has a name."""
    found = {name: Runtime(path) for name in STOCK_RUNTIMES if (path := find_program(name))}
    return found or {"runc": Runtime("runc")}


def _default_init() -> str:
    return next((path for name in INIT_PROGRAMS if (path := find_program(name))), "")


@dataclass(frozen=True, kw_only=True)
class DaemonConfig:
    """Everything that can be set. Sizes are in bytes, times in whole seconds. Usable as it is: the defaults hold."""

    data_root: Path = _option(PATH, Path("/var/lib/logd"), "where containers, their output and images are kept")
    exec_root: Path = _option(PATH, Path("/run/logd"), "where what belongs to running processes is kept")
    pidfile: Path = _option(PATH, Path("/run/logd/logd.pid"), "default: EXEC-ROOT/logd.pid", short="-p")
    hosts: tuple[str, ...] = _option(
        HOSTS,
        ("unix:///run/logd/logd.sock",),
        "where to listen; default: unix://EXEC-ROOT/logd.sock",
        flag="host",
        short="-H",
    )
    group: str = _option(GROUP, "logd", "the group that may use the unix socket", short="-G")
    tls: bool = _option(BOOLEAN, False, "implied by tlsverify; refused without it")
    tlsverify: bool = _option(BOOLEAN, False, "TCP: clients show a certificate signed by tlscacert")
    tlscacert: str = _option(
        FILE_PATH, "", "PEM file with the authorities that sign clients' certificates", reloadable=True
    )
    tlscert: str = _option(FILE_PATH, "", "PEM file with the daemon's certificate", reloadable=True)
    tlskey: str = _option(FILE_PATH, "", "PEM file with the daemon's key", reloadable=True)
    debug: bool = _option(BOOLEAN, False, "log at level debug", short="-D", reloadable=True)
    log_level: str = _option(one_of(*LOG_LEVELS), "info", "of the daemon's own log", short="-l", reloadable=True)
    log_format: str = _option(one_of("text", "json"), "text", "of the daemon's own log")
    log_driver: str = _option(TEXT, "local", "containers' default log driver", reloadable=True)
    log_opts: dict[str, str] = _option(STRING_MAP, help="its options", factory=dict, flag="log-opt", reloadable=True)
    default_runtime: str = _option(
        TEXT,
        help="default: runc, or crun where only that is",
        factory=lambda: next(iter(stock_runtimes())),
        reloadable=True,
    )
    runtimes: dict[str, Runtime] = _option(
        RUNTIMES,
        help="further OCI runtimes, as NAME=PATH",
        factory=stock_runtimes,
        flag="add-runtime",
        reloadable=True,
    )
    cgroup_parent: str = _option(CGROUP, "", "of all containers; default: /logd")
    exec_opts: tuple[str, ...] = _option(EXEC_OPTS, (), "of the runtime", flag="exec-opt")
    init: bool = _option(BOOLEAN, False, "run an init as PID 1 of each container")
    init_path: str = _option(
        FILE_PATH, help="that init; default: docker-init, tini or catatonit", factory=_default_init
    )
    userns_remap: str = _option(
        TEXT,
        "",
        "containers' root is nobody on the host: USER[:GROUP] with subordinate ids, or default (dockremap)",
    )
    seccomp_profile: str = _option(TEXT, "", 'JSON file; "" or "builtin" for the default profile, or "unconfined"')
    no_new_privileges: bool = _option(BOOLEAN, False, "containers can't gain privileges by set-user-id programs")
    default_shm_size: int = _option(RAM_SIZE, 64 << 20, "of /dev/shm", reloadable=True)
    default_stop_timeout: int = _option(
        whole(-1), 10, "seconds between the stop signal and SIGKILL; -1: for ever", reloadable=True
    )
    default_ulimits: dict[str, tuple[int, int]] = _option(
        ULIMIT_MAP,
        help="name → (soft, hard), as NAME=SOFT[:HARD]",
        factory=dict,
        flag="default-ulimit",
    )
    shutdown_timeout: int = _option(whole(-1), 15, "seconds that requests have to end at a stop", reloadable=True)
    labels: tuple[str, ...] = _option(
        LABELS,
        (),
        "of the daemon, shown by info",
        flag="label",
        reloadable=True,
    )
    bip: str = _option(INTERFACE, "", "the default bridge's address; default: the first of a free pool's")
    bip6: str = _option(INTERFACE, "", "its IPv6 address, with ipv6")
    fixed_cidr: str = _option(SUBNET, "", "the part of its subnet that containers get addresses from")
    fixed_cidr_v6: str = _option(SUBNET, "", "the same for IPv6; its subnet, without bip6")
    default_gateway: str = _option(ADDRESS, "", "what its containers send through; default: the bridge")
    default_gateway_v6: str = _option(ADDRESS, "", "the same for IPv6")
    ipv6: bool = _option(BOOLEAN, False, "containers on the default bridge have IPv6 addresses too")
    mtu: int = _option(whole(68, 65536), 1500, "of the default bridge and of its containers' interfaces, in bytes")
    icc: bool = _option(BOOLEAN, True, "containers on the default bridge reach each other")
    ip_masq: bool = _option(BOOLEAN, True, "what they send out gets the host's address")
    ip_forward: bool = _option(BOOLEAN, True, "switch the host's forwarding on when a network needs it")
    default_address_pools: tuple[Pool, ...] = _option(
        POOLS,
        (),
        "where networks' subnets come from; default: Docker's (172.17.0.0/16 and on), as far as the host has no use "
        "for them",
        flag="default-address-pool",
    )
    ip: str = _option(ADDRESS, "0.0.0.0", "where ports are published that name no address")  # noqa: S104
    host_gateway_ip: str = _option(ADDRESS, "", "what host-gateway means in --add-host; default: the network's gateway")
    iptables: bool = _option(BOOLEAN, True, "set firewall rules for networks; without, no port can be published")
    dns: tuple[str, ...] = _option(ADDRESSES, (), "containers' name servers; default: the host's", reloadable=True)
    dns_opts: tuple[str, ...] = _option(
        WORDS, (), "containers' options in resolv.conf", flag="dns-opt", reloadable=True
    )
    dns_search: tuple[str, ...] = _option(WORDS, (), "containers' search domains", reloadable=True)
    registry_mirrors: tuple[str, ...] = _option(
        MIRRORS, (), "asked for what Docker Hub has, in this order", flag="registry-mirror", reloadable=True
    )
    insecure_registries: tuple[str, ...] = _option(
        INSECURE, (), "spoken to without TLS or with any certificate", flag="insecure-registry", reloadable=True
    )
    max_concurrent_downloads: int = _option(whole(1), 3, "layers that come at once", reloadable=True)
    max_concurrent_uploads: int = _option(whole(1), 5, "layers that go at once", reloadable=True)
    max_download_attempts: int = _option(whole(1), 5, "tries of a transfer that gets no further", reloadable=True)
    proxies: Proxies = _option(
        PROXIES, Proxies(), "for registries; default: $HTTP_PROXY, $HTTPS_PROXY and $NO_PROXY", flag=""
    )
    metrics_addr: str | None = _option(
        LISTEN_ADDRESS,
        None,
        f'where /metrics is served, "" for nowhere; default: {DEFAULT_METRICS_ADDR}, or nowhere if that is in use',
    )
    metrics_labels: tuple[str, ...] = _option(
        LABEL_NAMES,
        ("com.docker.compose.project", "com.docker.compose.service"),
        "the labels of containers that their metrics carry, as container_label_NAME",
        key=("logd", "metrics", "labels"),
        flag="",
        reloadable=True,
    )
    viewer_socket: str = _option(
        SOCKET_PATH,
        "",
        'the read-only socket, for viewers; "": none',
        key=("logd", "read-only", "socket"),
        flag="",
    )
    viewer_group: str = _option(
        GROUP,
        "",
        'the group that may use the read-only socket; "": root only',
        key=("logd", "read-only", "group"),
        flag="",
    )
    max_connections: int = _option(
        whole(0),
        0,
        "connections that a user or an address may have to the API; 0: half of the descriptors, at most 4000",
        key=("logd", "api", "max-connections"),
        flag="",
        reloadable=True,
    )
    registry_certificates: tuple[str, ...] = _option(
        PATHS,
        ("/etc/logd/certs.d", "/etc/docker/certs.d"),
        "folders in which HOST[:PORT]/ has a registry's authorities and client certificates",
        key=("logd", "registry", "certificates"),
        flag="",
        reloadable=True,
    )
    registry_timeout: int = _option(
        whole(1),
        60,
        "seconds that a registry may be silent",
        key=("logd", "registry", "timeout"),
        flag="",
        reloadable=True,
    )
    max_total: int = _store(RAM_SIZE, 0, "bytes of all containers' stores together; 0: no limit", "max-total")
    min_free: int | None = _store(
        RAM_SIZE, None, "bytes left free on the store's file system; default: 1 %, at most 1 GiB", "min-free"
    )
    log_to: str = _option(
        one_of("auto", "journald", "syslog", "stderr"),
        "auto",
        "where the daemon's own log goes; auto: stderr on a terminal, else journald, syslog or stderr, what there is",
        key=("logd", "log", "to"),
        flag="",
    )
    sync: str = _store(
        one_of("", "1s", "always"), "", "when output is forced to the disk, for containers that do not say", "sync"
    )

    def take_over(self, new: "DaemonConfig") -> list[str]:
        """Change the reloadable settings to those of `new`; return the keys of others that differ.

        The one place where a setting changes: all parts hold this object, so that a reload reaches each of them.
        """
        for option in OPTIONS:
            if option.reloadable:
                object.__setattr__(self, option.name, getattr(new, option.name))
        return [".".join(one.key) for one in OPTIONS if getattr(self, one.name) != getattr(new, one.name)]


def _described(one: "Field[Any]") -> Option:
    key = one.metadata["key"] or (one.name.replace("_", "-"),)
    flag = key[-1] if one.metadata["flag"] is None else one.metadata["flag"]
    values = (one.metadata[name] for name in ("short", "reloadable", "help"))
    return Option(one.name, key, one.metadata["kind"], flag, *values)


OPTIONS: Final = tuple(_described(one) for one in fields(DaemonConfig))
"""All settings that have an effect, in the order of the documentation."""

"""User namespaces that outlive their processes: each is bound to a file, as its network namespace is to another.

They are made before the runtime makes the container, since the mounts and the network of it have to belong to the
namespace. A process has to be in a namespace for that to be; it lives for a moment.

Source: user_namespaces(7), unshare(1), nsenter(1). All functions block.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from logd.errors import LogdError
from logd.idmap import IdMap, IdRange
from logd.runtime.idmapped import Mapped
from logd.runtime.mount_calls import MS_BIND, detach, mount

UNSHARE: Final = ("unshare", "--user")
UNSHARE_NETWORK: Final = ("unshare", "--net")
"""Of util-linux, as nsenter is."""


@contextlib.contextmanager
def lent(idmap: IdMap) -> Iterator[Mapped]:
    """Give a new namespace of that mapping, until the end of the block. Raises LogdError."""
    with _process([*UNSHARE], idmap) as pid:
        descriptor = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield Mapped(descriptor, *idmap.root)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened(path: Path, idmap: IdMap) -> Iterator[Mapped]:
    """Give the namespace bound to `path`, whose mapping is `idmap`, until the end of the block. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield Mapped(descriptor, *idmap.root)
    finally:
        os.close(descriptor)


def make(path: Path, idmap: IdMap, network: Path | None = None) -> None:
    """Bind a new namespace to `path`, and a new network namespace that belongs to it to `network`.

    Raises LogdError, OSError; nothing is bound then.
    """
    try:
        with _process([*UNSHARE, *(UNSHARE_NETWORK[1:] if network else ())], idmap) as pid:
            _bind(f"/proc/{pid}/ns/user", path)
            if network is not None:
                _bind(f"/proc/{pid}/ns/net", network)
    except BaseException:
        remove(path)
        if network is not None:
            remove(network)
        raise


def join(path: Path, other: Path, network: Path | None = None) -> None:
    """Bind the namespace bound to `other` to `path` too, and a new network namespace of it to `network`; as above."""
    try:
        _bind(str(other), path)
        if network is not None:
            with _process(["nsenter", f"--user={path}", *UNSHARE_NETWORK]) as pid:
                _bind(f"/proc/{pid}/ns/net", network)
    except BaseException:
        remove(path)
        if network is not None:
            remove(network)
        raise


def is_same(one: Path, other: Path) -> bool:
    """Tell whether two files have the same namespace bound to them. Raises OSError."""
    return os.path.samefile(one, other)


def remove(path: Path) -> None:
    """Unbind a namespace and remove its file; none is fine. It ends with its last process. Raises OSError."""
    detach(path)
    path.unlink(missing_ok=True)


def _bind(source: str, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    mount(source, path, flags=MS_BIND)


@contextlib.contextmanager
def _process(argv: list[str], idmap: IdMap | None = None) -> Iterator[int]:
    """Give the pid of a process in the namespaces that a command makes; a new one gets `idmap`. Raises LogdError."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen([*argv, "cat"], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    except OSError as error:
        raise LogdError(f"user namespace: {argv[0]}: {error.strerror} (it is part of util-linux)") from error
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:
        try:
            os.write(process.stdin.fileno(), b"\n")
            if not process.stdout.read(1):  # its echo says that the namespace is there
                raise LogdError(f"user namespace: {process.stderr.read().decode(errors='replace').strip()}")
            if idmap is not None:
                _write_map(process.pid, "uid_map", idmap.uids)
                _write_map(process.pid, "gid_map", idmap.gids)
            yield process.pid
        finally:
            process.kill()
            process.wait()


def _write_map(pid: int, name: str, ranges: Iterable[IdRange]) -> None:
    lines = "".join(f"{one.inside} {one.outside} {one.size}\n" for one in ranges)
    try:
        with open(os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC), "wb", buffering=0) as file:
            file.write(lines.encode())
    except OSError as error:
        raise LogdError(f"user namespace: {name} {lines.strip()!r}: {error.strerror}") from error

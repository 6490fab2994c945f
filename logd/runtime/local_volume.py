"""A volume with options, as Docker's `local` driver has them: `type`, `device` and `o` are what mount(8) would be told.

Source: Docker's "docker volume create", driver-specific options; mount(2) for the flags; the words are dockerd's.
"""

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from logd.errors import InvalidParameter, LogdError
from logd.runtime.mount_calls import MS_BIND, MS_REC, MS_REMOUNT, mount

OPTIONS: Final = frozenset({"type", "o", "device", "size"})
NEEDED: Final = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
NETWORK_KINDS: Final = frozenset({"nfs", "nfs4", "cifs"})
MS_RDONLY: Final = 1

_SETS: Final = {  # option: flag that it sets
    "ro": MS_RDONLY,
    "nosuid": 2,
    "nodev": 4,
    "noexec": 8,
    "sync": 0x10,
    "remount": MS_REMOUNT,
    "mand": 0x40,
    "dirsync": 0x80,
    "noatime": 0x400,
    "nodiratime": 0x800,
    "bind": MS_BIND,
    "rbind": MS_BIND | MS_REC,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
}
_CLEARS: Final = {  # option: flag that it takes back
    "rw": MS_RDONLY,
    "suid": 2,
    "dev": 4,
    "exec": 8,
    "async": 0x10,
    "nomand": 0x40,
    "atime": 0x400,
    "diratime": 0x800,
    "norelatime": 1 << 21,
    "nostrictatime": 1 << 24,
    "defaults": 0,
}
_PROPAGATIONS: Final = {"unbindable": 1 << 17, "private": 1 << 18, "slave": 1 << 19, "shared": 1 << 20}
PROPAGATIONS: Final = {**_PROPAGATIONS, **{f"r{word}": flag | MS_REC for word, flag in _PROPAGATIONS.items()}}


def check_options(options: Mapping[str, str]) -> None:
    """Raise InvalidParameter for options that are unknown, or that lack another."""
    for option in options:
        if option not in OPTIONS:
            raise InvalidParameter(f'invalid option: "{option}"')
    if "size" in options:
        raise InvalidParameter("quota size requested but no quota support")
    for option, others in NEEDED.items():
        for other in others:
            if option in options and other not in options:
                raise InvalidParameter(f'missing required option: "{other}"')
    if any("\0" in text for text in options.values()):
        raise InvalidParameter("a NUL byte in an option")


def parse_mount_options(text: str) -> tuple[int, int, str]:
    """Return flags, propagation flags and what is left for the file system, of a list as in `mount -o`."""
    flags, propagation, data = 0, 0, []
    for word in text.split(","):
        if word in _SETS:
            flags |= _SETS[word]
        elif word in _CLEARS:
            flags &= ~_CLEARS[word]
        elif word in PROPAGATIONS:
            propagation |= PROPAGATIONS[word]
        elif word:
            data.append(word)
    return flags, propagation, ",".join(data)


def mount_volume(options: Mapping[str, str], target: Path) -> None:
    """Mount what the options name on a volume's folder (blocks); raises LogdError with the system's reason."""
    kind, device = options["type"], options["device"]
    flags, propagation, data = parse_mount_options(_with_address(kind, options.get("o", "")))
    try:
        mount(device, target, kind, flags, data)
        if propagation:
            mount("", target, flags=propagation)
        if flags & MS_BIND and flags & MS_RDONLY:
            mount("", target, flags=flags & ~MS_REC | MS_REMOUNT)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        shown = f", flags: {flags:#x}" if flags else ""
        shown += f", data: {re.sub('password=[^,]*', 'password=********', data)}" if data else ""
        words = f"mount {device}:{target}{shown}: {reason[0].lower()}{reason[1:]}"
        raise LogdError(f"error while mounting volume '{target}': failed to mount local volume: {words}") from error


def _with_address(kind: str, text: str) -> str:
    """Return the options with the number for the name in `addr`: the kernel knows no names."""
    found = re.search(r"(?:^|,)addr=([^,]*)", text)
    if kind not in NETWORK_KINDS or found is None:
        return text
    name = found[1]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        try:
            number = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]
        except OSError as error:
            raise LogdError(f"error resolving passed in network volume address: {name}: {error.strerror}") from error
        return f"{text[: found.start(1)]}{number}{text[found.end(1) :]}"
    return text

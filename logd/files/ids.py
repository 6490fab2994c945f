"""What owners and attributes of files are called in a container with a user namespace, and what they are to the host.

This process sees the container's files as the host does; a tar has the container's own ids.
Source: user_namespaces(7); capabilities(7), linux/capability.h (struct vfs_ns_cap_data); linux/posix_acl_xattr.h.
"""

import struct
from collections.abc import Callable
from typing import Final

from logd.idmap import OVERFLOW, IdMap, inside, outside

CAPABILITY: Final = "security.capability"
ACLS: Final = ("system.posix_acl_access", "system.posix_acl_default")
_REVISION: Final = 0xFF00_0000
_REVISION_2: Final = 0x0200_0000
_REVISION_3: Final = 0x0300_0000
_V2_BYTES: Final = 20
_V3_BYTES: Final = 24
_ACL_HEAD: Final = 4
_ACL_ENTRY: Final = struct.Struct("<HHI")
_ACL_USER: Final = 0x02
_ACL_GROUP: Final = 0x08


class Ids:
    """Both ways, by a mapping; without one everything stays as it is."""

    def __init__(self, idmap: IdMap | None = None) -> None:
        self._idmap = idmap

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the container's ids of the host's."""
        return (uid, gid) if self._idmap is None else (inside(self._idmap.uids, uid), inside(self._idmap.gids, gid))

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the host's ids of the container's; raises ValueError for one that it does not have."""
        return (uid, gid) if self._idmap is None else (outside(self._idmap.uids, uid), outside(self._idmap.gids, gid))

    def attribute_inside(self, name: str, value: bytes) -> bytes | None:
        """Return what an extended attribute has to say in the container, None if it has no effect there."""
        if self._idmap is None:
            return value
        uids, gids = self._idmap.uids, self._idmap.gids
        if name == CAPABILITY:
            root = inside(uids, _root_of(value))
            return None if root == OVERFLOW else _with_root(value, root)
        return _acl(value, lambda one: inside(uids, one), lambda one: inside(gids, one)) if name in ACLS else value

    def attribute_outside(self, name: str, value: bytes) -> bytes:
        """Return what an extended attribute has to say to the host; raises ValueError for an id that there is not."""
        if self._idmap is None:
            return value
        uids, gids = self._idmap.uids, self._idmap.gids
        if name == CAPABILITY:
            return _with_root(value, outside(uids, _root_of(value)))
        return _acl(value, lambda one: outside(uids, one), lambda one: outside(gids, one)) if name in ACLS else value


class OneOwner(Ids):
    """Who owns a file does not count: it becomes one user's."""

    def __init__(self, uid: int, gid: int) -> None:
        super().__init__()
        self._owner = uid, gid

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the one."""
        return self._owner


def _root_of(value: bytes) -> int:
    """Return the user who is root where capabilities of a file have an effect."""
    return int.from_bytes(value[_V2_BYTES:_V3_BYTES], "little") if len(value) == _V3_BYTES else 0


def _with_root(value: bytes, root: int) -> bytes:
    """Return the same capabilities where another user is root."""
    if len(value) not in {_V2_BYTES, _V3_BYTES}:
        return value
    flags = int.from_bytes(value[:4], "little") & ~_REVISION
    head = (flags | (_REVISION_3 if root else _REVISION_2)).to_bytes(4, "little")
    return head + value[4:_V2_BYTES] + (root.to_bytes(4, "little") if root else b"")


def _acl(value: bytes, user: Callable[[int], int], group: Callable[[int], int]) -> bytes:
    if (len(value) - _ACL_HEAD) % _ACL_ENTRY.size:
        return value  # the kernel refuses it
    entries = []
    for tag, permissions, number in _ACL_ENTRY.iter_unpack(value[_ACL_HEAD:]):
        named = user(number) if tag == _ACL_USER else group(number) if tag == _ACL_GROUP else number
        entries.append(_ACL_ENTRY.pack(tag, permissions, named))
    return value[:_ACL_HEAD] + b"".join(entries)

"""A layer's tree on disk, built entry by entry below one directory descriptor and never outside of it.

What a tar says about names is not believed: a name with `..`, an absolute one, a link that leads outside refuses the
whole layer. A parent directory is opened by openat2(2) with RESOLVE_BENEATH, so that `lib -> usr/lib` and then
`lib/x` in one layer works, and a link that leaves the layer on the way does not. The entry itself is created with
O_EXCL or its like, never opened if it exists. The target of a symbolic link is data: it is kept as it is if it is
absolute (it is resolved in the container), refused if its dots climb over the root (as in Docker).

Whiteouts become overlayfs's own marks: `.wh.x` a character device 0/0 named x, `.wh..wh..opq` the attribute
trusted.overlay.opaque=y. Both hide only what lower layers have, so that x in the same layer stays; a whiteout of what
no lower layer has is dropped, since a directory that exists in one layer alone would list it as a broken name.

Source: OCI image-spec layer.md; the kernel's Documentation/filesystems/overlayfs.rst; tar(5).
"""

import errno
import os
import stat
import tarfile
from collections.abc import Sequence
from typing import Final

from logd.images import attributes
from logd.images.attributes import OVERLAY_XATTRS
from logd.images.kernel import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from logd.images.limits import Limits
from logd.images.lowerlayers import OPAQUE_XATTR, LowerLayers, is_opaque, is_whiteout
from logd.images.tarstream import ArchiveRefused, Source
from logd.images.treebuilder import O_DIRECTORY_PATH, TreeBuilder, status
from logd.images.trees import remove_tree

WHITEOUT: Final = ".wh."
WHITEOUT_META: Final = ".wh..wh."
OPAQUE: Final = ".wh..wh..opq"
IN_LAYER: Final = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV


class LayerTree(TreeBuilder):
    """Builds the tree below `root`. `lower` are the directories of the layers beneath, the nearest first.

    Directories that the tar does not name get owner, mode and attributes of those that the lower layers show, else
    root:root 0755. With `any_links`, which is for what a container has made, symbolic links may lead anywhere.
    """

    inside = IN_LAYER
    kind = "layer"

    def __init__(self, root: int, limits: Limits, lower: Sequence[int] = (), *, any_links: bool = False) -> None:
        super().__init__(root, limits)
        self._any_links = any_links
        self._lower = LowerLayers(lower)
        self._whiteouts: list[tuple[str, str]] = []  # folder, name

    def finish(self) -> None:
        """Drop whiteouts of nothing, and set the directories' times, which the entries in them have changed."""
        self._forget_parent()
        for folder, base in self._whiteouts:
            self._drop_idle_whiteout(folder, base)
        super().finish()

    def _add(self, name: str, member: tarfile.TarInfo, source: Source) -> None:
        if WHITEOUT not in name:
            super()._add(name, member, source)
            return
        folder, _, base = name.rpartition("/")
        if any(part.startswith(WHITEOUT_META) for part in name.split("/")) and base != OPAQUE:
            return  # the notes of aufs, where the whiteouts' names come from
        if any(part.startswith(WHITEOUT) for part in folder.split("/")):
            raise ArchiveRefused("it lies in a whiteout")
        if base == OPAQUE:
            os.setxattr(self._open_parent(folder), OPAQUE_XATTR, b"y")
        elif base.startswith(WHITEOUT):
            self._whiteout(self._open_parent(folder), folder, base.removeprefix(WHITEOUT))
        else:
            super()._add(name, member, source)

    def _target_of(self, member: tarfile.TarInfo) -> str:
        target = super()._target_of(member)
        if any(part.startswith(WHITEOUT) for part in target.split("/")):
            raise ArchiveRefused(f"it is a hard link to the whiteout {target!r}")
        return target

    def _symlink(self, parent: int, base: str, member: tarfile.TarInfo) -> None:
        target = member.linkname
        depth = len(self._name_of(member).split("/")) - 1
        for part in [] if target.startswith("/") or self._any_links else target.split("/"):
            depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
            if depth < 0:
                raise ArchiveRefused(f"the symbolic link's target {target!r} leads outside of the layer")
        super()._symlink(parent, base, member)

    def _directory_made(self, fd: int, before: os.stat_result | None) -> None:
        if before is not None and not stat.S_ISDIR(before.st_mode):
            os.setxattr(fd, OPAQUE_XATTR, b"y")  # what was there hid the lower directory, and so must this one

    def _remove_tree(self, parent: int, base: str) -> None:
        remove_tree(parent, base)

    def _whiteout(self, parent: int, folder: str, base: str) -> None:
        if base in {"", ".", ".."}:
            raise ArchiveRefused("it is a whiteout of nothing")
        before = status(parent, base)
        if before is None:
            os.mknod(base, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
            self._whiteouts.append((folder, base))
        elif stat.S_ISDIR(before.st_mode):
            fd = os.open(base, O_DIRECTORY_PATH | os.O_CLOEXEC, dir_fd=parent)
            try:
                os.setxattr(fd, OPAQUE_XATTR, b"y")
            finally:
                os.close(fd)

    def _drop_idle_whiteout(self, folder: str, base: str) -> None:
        parts = folder.split("/") if folder else []
        name = f"{folder}/{base}" if folder else base
        try:
            parent = openat2(self._root, folder or ".", O_DIRECTORY_PATH, IN_LAYER | RESOLVE_NO_SYMLINKS)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return  # a later entry took the folder's place, or it was reached through a link: let it be
            raise
        try:
            before = status(parent, base)
            if before is None or not is_whiteout(before):
                return
            hidden = any(self._opaque_here("/".join(parts[:depth])) for depth in range(1, len(parts) + 1))
            if hidden or self._lower.holder(name) is None:
                os.unlink(base, dir_fd=parent)
        finally:
            os.close(parent)

    def _opaque_here(self, folder: str) -> bool:
        fd = openat2(self._root, folder, os.O_RDONLY | os.O_DIRECTORY, IN_LAYER)
        try:
            return is_opaque(fd)
        finally:
            os.close(fd)

    def _open_or_make_one(self, above: int, base: str, prefix: str) -> int:
        """Open the directory `prefix`, made if need be; a whiteout gives way to it."""
        before = status(above, base)
        hides = before is not None and is_whiteout(before)
        if hides:
            os.unlink(base, dir_fd=above)
        fd = super()._open_or_make_one(above, base, prefix)
        if hides:
            os.setxattr(fd, OPAQUE_XATTR, b"y")
        elif before is None:
            self._inherit(fd, prefix)
        return fd

    def _inherit(self, fd: int, folder: str) -> None:
        """Give a directory that the tar does not name what the lower layers say of it."""
        below = self._lower.open_directory(folder)
        if below is None:
            return
        try:
            there = os.fstat(below)
            os.fchown(fd, there.st_uid, there.st_gid)
            os.fchmod(fd, stat.S_IMODE(there.st_mode))
            for name in os.listxattr(below):
                if not name.startswith(OVERLAY_XATTRS):
                    attributes.set_attribute(fd, name, os.getxattr(below, name))
            self._directories[folder] = there.st_mtime_ns
        finally:
            os.close(below)

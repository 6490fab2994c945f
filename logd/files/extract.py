"""A tar unpacked into a folder of a container, as `docker cp` does: over what is there, links of the root followed.

The process's root is the container's (logd.files.view), so a link can lead nowhere else; entries are made by
descriptors and never through a link in their last part.
"""

import shutil
import stat
import tarfile

from logd.files.ids import Ids
from logd.images.attributes import XATTR_PREFIX
from logd.images.kernel import RESOLVE_NO_MAGICLINKS
from logd.images.limits import Limits
from logd.images.tarstream import ArchiveRefused, Source
from logd.images.treebuilder import TreeBuilder, clean_name, status


class Placement(TreeBuilder):
    """Puts entries below the open directory `root`, which is `path` in the container.

    `keep_kinds`: a directory is never replaced by something else, nor the other way round. `owner`: whose all of it is.
    Owners are the container's: `ids` says who they are to the host.
    """

    inside = RESOLVE_NO_MAGICLINKS
    kind = "archive"

    def __init__(
        self, root: int, limits: Limits, path: str, ids: Ids, *, keep_kinds: bool, owner: tuple[int, int] | None
    ) -> None:
        super().__init__(root, limits)
        self._path = path.rstrip("/")
        self._keep_kinds = keep_kinds
        self._owner = owner
        self._ids = ids

    def add(self, member: tarfile.TarInfo, source: Source) -> None:
        """Create one entry, or replace what is there."""
        if self._owner is not None:
            member.uid, member.gid = self._owner
        try:
            member.uid, member.gid = self._ids.outside(member.uid, member.gid)
            member.pax_headers = {key: self._header_outside(key, text) for key, text in member.pax_headers.items()}
        except ValueError as error:
            raise ArchiveRefused(f"entry {member.name!r}: {error}") from error
        super().add(member, source)

    def _header_outside(self, key: str, text: str) -> str:
        if not key.startswith(XATTR_PREFIX):
            return text
        value = text.encode("utf-8", "surrogateescape")
        name = key.removeprefix(XATTR_PREFIX)
        return self._ids.attribute_outside(name, value).decode("utf-8", "surrogateescape")

    def _name_of(self, member: tarfile.TarInfo) -> str:
        return clean_name(member.name.lstrip("/"), "entry")

    def _target_of(self, member: tarfile.TarInfo) -> str:
        return clean_name(member.linkname.lstrip("/"), "hard link to")

    def _root_entry(self, member: tarfile.TarInfo) -> None:
        """Leave the folder itself as it is."""
        if member.type != tarfile.DIRTYPE:
            super()._root_entry(member)

    def _directory(self, parent: int, base: str, name: str, member: tarfile.TarInfo) -> None:
        before = status(parent, base)
        if self._keep_kinds and before is not None and not stat.S_ISDIR(before.st_mode):
            raise ArchiveRefused(f'cannot overwrite non-directory "{self._path}/{name}" with directory "{self._path}"')
        super()._directory(parent, base, name, member)

    def _replace(self, parent: int, base: str, name: str) -> None:
        before = status(parent, base)
        if self._keep_kinds and before is not None and stat.S_ISDIR(before.st_mode):
            raise ArchiveRefused(f'cannot overwrite directory "{self._path}/{name}" with non-directory "{self._path}"')
        super()._replace(parent, base, name)

    def _remove_tree(self, parent: int, base: str) -> None:
        shutil.rmtree(base, dir_fd=parent)

"""`docker rmi` and `docker image prune`: what may go, what goes with it, and Docker's words for a refusal.

Works on the catalog only; the folders of the layers it returns are for the store to remove.
Source: dockerd's rules as its documentation of `docker image rm` gives them; messages of dockerd 27.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from logd import references
from logd.errors import Conflict
from logd.images.catalog import Catalog, LayerRecord
from logd.images.image import ContainerUse
from logd.references import Reference

InUse = Callable[[str], Sequence[ContainerUse]]
"""The containers of an image, by its id."""


@dataclass
class Removal:
    """What was removed: Docker's items, and the layers whose folders are now without a purpose."""

    items: list[dict[str, str]] = field(default_factory=list)
    layers: list[LayerRecord] = field(default_factory=list)


class _Refused(Conflict):
    """A conflict; `used` if a container is the reason."""

    def __init__(self, message: str, *, used: bool = False) -> None:
        super().__init__(message)
        self.used = used


def short(identifier: str) -> str:
    """Return the 12 digits that Docker shows of an id."""
    return identifier.removeprefix("sha256:")[:12]


def remove(catalog: Catalog, text: str, image_id: str, in_use: InUse, *, force: bool, prune: bool) -> Removal:
    """Take away the name `text`, or the image if that is its id or its last name. Raises Conflict.

    `prune` also removes parents that have no name and no other child.
    """
    done = Removal()
    names = catalog.names_of(image_id)
    by_name = not (image_id.startswith(text) or image_id.removeprefix("sha256:").startswith(text))
    if by_name:
        users = in_use(image_id)
        if users and not force and _are_one(names):
            raise Conflict(
                f'conflict: unable to remove repository reference "{text}" (must force)'
                f" - container {short(users[0].id)} is using its referenced image {short(image_id)}"
            )
        if _untag(catalog, references.parse(text).as_key(), done):
            return done
    elif _are_one(names):
        _check(catalog, image_id, in_use, names=False, stopped=not force)
        _forget_names(catalog, names, done)
    _delete(catalog, image_id, in_use, done, force=force, prune=prune, quiet=by_name)
    return done


def prune(catalog: Catalog, image_ids: Sequence[str], in_use: InUse, *, dangling: bool) -> Removal:
    """Remove those of the images that nothing needs; with `dangling`, none that has a tag."""
    done = Removal()
    for image_id in image_ids:
        if image_id not in catalog.images:
            continue  # it went as the parent of another
        names = catalog.names_of(image_id)
        if dangling and any(name.tag for name in names):
            continue
        for text in [name.familiar for name in names] or [image_id]:
            try:
                part = remove(catalog, text, image_id, in_use, force=False, prune=True)
            except Conflict:
                continue
            done.items += part.items
            done.layers += part.layers
    return done


def collect(catalog: Catalog, in_use: InUse) -> list[LayerRecord]:
    """Forget detached images that no container needs any more, and return the layers that go with them."""
    for image_id in [image_id for image_id in catalog.detached if not in_use(image_id)]:
        del catalog.detached[image_id]
    return list(catalog.drop_unused_layers().values())


def _untag(catalog: Catalog, name: Reference, done: Removal) -> bool:
    """Forget a name, and the digests of its repository with its last tag; say whether names are left."""
    image_id = catalog.names.pop(name)
    done.items.append({"Untagged": name.familiar})
    left = catalog.names_of(image_id)
    if not name.digest and not any(other.tag and other.name == name.name for other in left):
        _forget_names(catalog, [other for other in left if other.name == name.name], done)
    return bool(catalog.names_of(image_id))


def _forget_names(catalog: Catalog, names: Sequence[Reference], done: Removal) -> None:
    for name in names:
        del catalog.names[name]
        done.items.append({"Untagged": name.familiar})


def _are_one(names: Sequence[Reference]) -> bool:
    """Say whether there is one tag at most, and all is of one repository; False for no name at all."""
    tags = [name for name in names if name.tag]
    return bool(names) and len(tags) <= 1 and len({name.name for name in names}) == 1


def _check(catalog: Catalog, image_id: str, in_use: InUse, *, names: bool, stopped: bool) -> None:
    """Raise what stands against removing an image, in Docker's order; `names` and `stopped` can be forced."""
    what = f"conflict: unable to delete {short(image_id)}"
    users = in_use(image_id)
    if catalog.children(image_id):
        raise _Refused(f"{what} (cannot be forced) - image has dependent child images")
    for user in users:
        if user.running:
            reason = f"image is being used by running container {short(user.id)}"
            raise _Refused(f"{what} (cannot be forced) - {reason}", used=True)
    if names and catalog.names_of(image_id):
        raise _Refused(f"{what} (must be forced) - image is referenced in multiple repositories")
    if stopped and users:
        reason = f"image is being used by stopped container {short(users[0].id)}"
        raise _Refused(f"{what} (must be forced) - {reason}", used=True)


def _delete(
    catalog: Catalog, image_id: str, in_use: InUse, done: Removal, *, force: bool, prune: bool, quiet: bool
) -> None:
    """Delete an image with its names and layers. `quiet` keeps it without a word if it is still good for something."""
    try:
        _check(catalog, image_id, in_use, names=not force, stopped=not force)
    except _Refused as conflict:
        dangling = not catalog.names_of(image_id) and not catalog.children(image_id)
        if quiet and (not dangling or conflict.used):
            return
        raise
    _forget_names(catalog, catalog.names_of(image_id), done)
    record = catalog.images.pop(image_id)
    if in_use(image_id):
        catalog.detached[image_id] = record
    done.items.append({"Deleted": image_id})
    unused: dict[str, Any] = catalog.drop_unused_layers()
    done.items += [{"Deleted": chain_id} for chain_id in unused]
    done.layers += unused.values()
    if prune and record.parent in catalog.images:
        _delete(catalog, record.parent, in_use, done, force=False, prune=True, quiet=True)

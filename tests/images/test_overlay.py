"""Two layers, mounted as a container has them, show what the layer format says: checked against a model of it."""

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from image_archives import Messages, Picture, docker_save_old, file, folder, stream, symlink, tar

from logd.images.layertree import LayerTree
from logd.images.limits import Limits
from logd.images.store import ImageStore
from logd.images.tarstream import Source, members

NAMES = ("a", "b", "c")
PATHS = [*NAMES] + [f"{x}/{y}" for x in NAMES for y in NAMES] + [f"a/b/{z}" for z in NAMES]
KINDS = ("file", "folder", "link", "whiteout", "opaque")
Tree = dict[str, str]
"""Path → "folder", "link:TARGET" or "file:CONTENT"."""

layers = st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(KINDS)), max_size=8)


def build(steps: list[tuple[str, str]], number: int) -> tuple[bytes, Tree, set[str], set[str]]:
    """A layer's tar; its own tree; what it hides; the folders whose lower content it hides."""
    members, own, hidden, opaque = [], {}, set(), set()
    for path, kind in steps:
        parts = path.split("/")
        above = ["/".join(parts[:n]) for n in range(1, len(parts))]
        if any(own.get(parent, "folder") != "folder" for parent in above):
            continue  # an entry below a file: refused, which other tests see
        if kind in {"file", "folder", "link"}:
            if path in own and own[path] != "folder" and kind == "folder":
                opaque.add(path)
            for parent in above:
                if parent not in own and parent in hidden:
                    opaque.add(parent)
                own.setdefault(parent, "folder")
            if kind != "folder" or own.get(path) != "folder":
                if kind == "folder" and path in hidden:
                    opaque.add(path)
                for below in [entry for entry in own if entry.startswith(f"{path}/")]:
                    del own[below]
        if kind == "file":
            content = f"{path}{number}"
            members.append(file(path, content.encode()))
            own[path] = f"file:{content}"
        elif kind == "folder":
            members.append(folder(path))
            own[path] = "folder"
        elif kind == "link":
            members.append(symlink(path, f"target{number}"))
            own[path] = f"link:target{number}"
        else:
            mark = f"{path}/.wh..wh..opq" if kind == "opaque" else "/".join((*parts[:-1], f".wh.{parts[-1]}"))
            if kind == "opaque" and own.get(path, "folder") != "folder":
                continue
            for parent in above if kind == "whiteout" else [*above, path]:
                if parent not in own and parent in hidden:
                    opaque.add(parent)
                own.setdefault(parent, "folder")
            members.append(file(mark))
            (opaque if kind == "opaque" else hidden).add(path)
            if kind == "whiteout" and own.get(path) == "folder":
                opaque.add(path)
    return tar(*members), own, hidden, opaque


def merge(below: Tree, own: Tree, hidden: set[str], opaque: set[str]) -> Tree:
    """What the layer format says is seen: whiteouts and opaque folders hide lower content only."""
    result = {}
    for path, what in below.items():
        parts = path.split("/")
        above = ["/".join(parts[:n]) for n in range(1, len(parts))]
        covered = any(own.get(parent, "folder") != "folder" or parent in hidden or parent in opaque for parent in above)
        if not covered and path not in hidden:
            result[path] = what
    return result | own


def seen(root: Path) -> Tree:
    tree = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            tree[name] = f"link:{path.readlink()}"
        elif path.is_dir():
            tree[name] = "folder"
        else:
            tree[name] = f"file:{path.read_text()}"
    return tree


def remount(lower: list[Path], at: Path) -> Tree:
    at.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={':'.join(map(str, lower))}", str(at)], check=True
    )
    try:
        return seen(at)
    finally:
        subprocess.run(["umount", str(at)], check=True)


def unpack(data: bytes, target: Path, lower: list[Path]) -> None:
    """Build the layer in this process: hundreds of examples would spend their time on starting others."""
    target.mkdir()
    (target.parent / "tar").write_bytes(data)
    fds = [os.open(path, os.O_RDONLY) for path in (target.parent / "tar", target, *lower)]
    try:
        source = Source(fds[0], Limits())
        tree = LayerTree(fds[1], Limits(), fds[2:])
        for member in members(source, Limits()):
            tree.add(member, source)
        tree.finish()
    finally:
        for fd in fds:
            os.close(fd)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(layers, min_size=2, max_size=3))
def test_an_overlay_of_layers_shows_what_the_format_says(steps: list[list[tuple[str, str]]]) -> None:
    expected: Tree = {}
    lower: list[Path] = []
    with tempfile.TemporaryDirectory() as base:
        for number, layer in enumerate(steps):
            data, *effect = build(layer, number)
            unpack(data, Path(base) / str(number), lower)
            lower.insert(0, Path(base) / str(number))
            expected = merge(expected, *effect)
        assert remount(lower, Path(base) / "mount") == expected


async def test_a_container_writes_above_its_layers_only(store: ImageStore, overlay: Callable[..., Path]) -> None:
    picture = Picture([tar(file("a", b"1"), file("d/b", b"2")), tar(file(".wh.a"), file("d/c", b"3"))], tags=["x:1"])
    await store.load(stream(docker_save_old(picture)), Messages())
    layers_ = list(store.layers(store.resolve("x:1")))
    root = overlay(layers_)
    assert seen(root) == {"d": "folder", "d/b": "file:2", "d/c": "file:3"}
    (root / "d/b").write_text("changed")
    (root / "a").mkdir()
    assert (layers_[1] / "d/b").read_text() == "2"


async def test_an_image_of_many_layers_can_be_mounted(store: ImageStore, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    picture = Picture([tar(file(f"f{number}", b"x")) for number in range(25)], tags=["deep:1"])
    await store.load(stream(docker_save_old(picture)), Messages())
    lower = list(store.layers(store.resolve("deep:1")))
    lower_ = ":".join(f"l/{path.name}" for path in lower)
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower_}", str(mount)],
        check=True,
        cwd=lower[0].parents[1],
    )
    try:
        assert len(seen(mount)) == 25
    finally:
        subprocess.run(["umount", str(mount)], check=True)

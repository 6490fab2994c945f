"""Overlay mounts and the making of folders inside a root."""

import os

import pytest

from logd.errors import InvalidParameter, LogdError
from logd.runtime.inroot import make_directories, open_directory, open_in_root, opened
from logd.runtime.rootfs import is_mounted, mount_overlay, unmount


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "rootfs"
    yield folder
    unmount(folder)


def layer(folder, **files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def test_layers_are_stacked_top_first_and_writes_go_to_the_upper_folder(tmp_path, target):
    lower = [layer(tmp_path / "top", a="top"), layer(tmp_path / "base", a="base", b="base")]
    mount_overlay(lower, tmp_path / "upper", tmp_path / "work", target)
    assert is_mounted(target)
    assert (target / "a").read_text() == "top"
    (target / "b").write_text("changed")
    unmount(target)
    assert not is_mounted(target)
    assert (tmp_path / "base/b").read_text() == "base"
    mount_overlay(lower, tmp_path / "upper", tmp_path / "work", target)
    assert (target / "b").read_text() == "changed"


def test_the_upper_folder_holds_all_of_what_was_changed(tmp_path, target):
    layer(tmp_path / "base/folder", a="content")
    mount_overlay([tmp_path / "base"], tmp_path / "upper", tmp_path / "work", target)
    os.chmod(target / "folder/a", 0o600)
    assert (tmp_path / "upper/folder/a").read_text() == "content"
    with pytest.raises(OSError, match="Invalid cross-device link"):  # mv(1) copies then
        os.rename(target / "folder", target / "moved")


def test_unmounting_twice_or_what_never_was_is_fine(tmp_path, target):
    mount_overlay([layer(tmp_path / "a")], tmp_path / "upper", tmp_path / "work", target)
    unmount(target)
    unmount(target)
    unmount(tmp_path / "nothing")


def test_a_busy_mount_is_detached(tmp_path, target):
    mount_overlay([layer(tmp_path / "a", f="x")], tmp_path / "upper", tmp_path / "work", target)
    with open(target / "f", encoding="ascii") as file:
        unmount(target)
        assert not is_mounted(target)
        assert file.read() == "x"


def test_names_with_separators_are_mounted(tmp_path, target):
    odd = layer(tmp_path / "a:b,c\\d", f="odd")
    mount_overlay([odd, layer(tmp_path / "plain", g="plain")], tmp_path / "up:p,er", tmp_path / "wo:rk", target)
    assert ((target / "f").read_text(), (target / "g").read_text()) == ("odd", "plain")
    (target / "new").touch()
    assert (tmp_path / "up:p,er/new").exists()


def test_128_layers_are_stacked_although_their_paths_exceed_a_page(tmp_path, target):
    base = tmp_path / ("long" * 10)
    lower = [layer(base / f"{number:013}", **{f"f{number}": "x"}) for number in range(128)]
    cwd = os.getcwd()
    mount_overlay(lower, tmp_path / "upper", tmp_path / "work", target)
    assert len(list(target.iterdir())) == 128
    assert os.getcwd() == cwd


def test_too_many_layers_are_refused_with_their_number(tmp_path, target):
    lower = [layer(tmp_path / f"{number:030}") for number in range(200)]
    with pytest.raises(LogdError, match="200 layers are too many for one mount"):
        mount_overlay(lower, tmp_path / "upper", tmp_path / "work", target)


def test_an_image_without_a_layer_is_an_empty_root(tmp_path, target):
    mount_overlay([], tmp_path / "upper", tmp_path / "work", target)
    assert list(target.iterdir()) == []


def test_a_mount_that_fails_tells_the_systems_reason(tmp_path, target):
    with pytest.raises(LogdError, match="No such file or directory"):
        mount_overlay([tmp_path / "missing"], tmp_path / "upper", tmp_path / "work", target)


def test_links_of_an_image_are_followed_inside_its_root_only(tmp_path):
    (tmp_path / "secret").write_text("host")
    root = tmp_path / "root"
    root.mkdir()
    (root / "up").symlink_to("../secret")
    (root / "secret").write_text("inside")
    with opened(open_directory(root)) as fd, open(open_in_root(fd, "/up", os.O_RDONLY), encoding="ascii") as file:
        assert file.read() == "inside"


def test_folders_are_made_with_their_mode_whatever_the_umask(tmp_path):
    old = os.umask(0o077)
    try:
        with opened(open_directory(tmp_path)) as root:
            make_directories(root, "/a/../b/./c//d")
    finally:
        os.umask(old)
    assert (tmp_path / "b/c/d").stat().st_mode & 0o7777 == 0o755
    assert not (tmp_path / "a").exists()


def test_a_link_to_nowhere_is_not_made_into_a_folder(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to("/elsewhere")
    with opened(open_directory(root)) as fd, pytest.raises(InvalidParameter, match="Cannot mkdir: /link/x"):
        make_directories(fd, "/link/x")
    assert os.listdir(root) == ["link"]

"""Volumes with options, parts of volumes, and how mounts propagate: what the kernel is told, and what it says."""

import os
import threading

import pytest

from logd.errors import InvalidParameter, LogdError, NotFound
from logd.runtime.local_volume import check_options, mount_volume, parse_mount_options
from logd.runtime.mount_calls import MS_BIND, MS_REC, detach, mount
from logd.runtime.mountinfo import MountEntry, check_propagation, mounts_below, read_mounts, root_propagation
from logd.runtime.subpaths import Part, mount_parts, open_part, unmount_parts


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"x": "y"}, 'invalid option: "x"'),
        ({"size": "10m"}, "quota size requested but no quota support"),
        ({"type": "nfs"}, 'missing required option: "device"'),
        ({"device": "/x"}, 'missing required option: "type"'),
        ({"o": "bind"}, 'missing required option: "device"'),
        ({"type": "none", "device": "/x\0", "o": "bind"}, "a NUL byte"),
    ],
)
def test_options_that_can_not_be_are_refused(options, words):
    with pytest.raises(InvalidParameter, match=words):
        check_options(options)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", (0, 0, "")),
        ("defaults", (0, 0, "")),
        ("rbind,ro", (MS_BIND | MS_REC | 1, 0, "")),
        ("ro,rw,noexec,size=1m,uid=5", (8, 0, "size=1m,uid=5")),
        ("bind,rshared", (MS_BIND, 1 << 20 | MS_REC, "")),
    ],
)
def test_mount_options_become_flags_and_data(text, read):
    assert parse_mount_options(text) == read


def test_a_read_only_bind_of_a_folder_is_mounted_and_taken_down(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "file").write_text("kept")
    mount_volume({"type": "none", "device": str(source), "o": "bind,ro"}, target)
    try:
        assert (target / "file").read_text() == "kept"
        assert mounts_below(target) == [str(target)]
        with pytest.raises(OSError, match="Read-only"):
            (target / "file").write_text("changed")
    finally:
        detach(target)
    assert mounts_below(target) == []
    detach(target)  # once more is no harm


def test_a_mount_that_fails_says_what_was_mounted_and_keeps_the_password(tmp_path):
    with pytest.raises(LogdError) as caught:
        mount_volume({"type": "none", "device": "/nowhere", "o": "bind"}, tmp_path)
    assert str(caught.value) == (
        f"error while mounting volume '{tmp_path}': failed to mount local volume: "
        f"mount /nowhere:{tmp_path}, flags: 0x1000: no such file or directory"
    )
    with pytest.raises(LogdError) as caught:
        mount_volume({"type": "nothing", "device": "//x/y", "o": "user=a,password=secret,addr=127.0.0.1"}, tmp_path)
    assert "data: user=a,password=********,addr=127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_part_is_opened_inside_its_volume_only(tmp_path):
    volume = tmp_path / "volume"
    (volume / "part" / "deep").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (volume / "inside").symlink_to("part/deep")
    os.close(open_part(volume, "part/deep"))
    os.close(open_part(volume, "inside"))
    (volume / "absolute").symlink_to(tmp_path / "outside")
    (volume / "relative").symlink_to("../outside")
    for subpath in ("../outside", "part/../../outside", "absolute", "relative", str(tmp_path / "outside")):
        with pytest.raises(InvalidParameter, match="path concatenation escapes the base directory, base: "):
            open_part(volume, subpath)
    for subpath in ("missing", "part/missing/x"):
        with pytest.raises(NotFound, match=f"cannot access path {volume / subpath}: no such file or directory"):
            open_part(volume, subpath)


def test_what_is_mounted_of_a_volume_stays_inside_it_while_its_links_are_swapped(tmp_path):
    volume, folder = tmp_path / "volume", tmp_path / "points"
    (volume / "real").mkdir(parents=True)
    (volume / "real" / "mine").touch()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "stolen").touch()
    os.symlink(tmp_path / "secret", volume / "swap")
    os.symlink("real", volume / "part")
    done = threading.Event()

    def swap():
        while not done.is_set():
            os.rename(volume / "swap", volume / "spare")
            os.rename(volume / "part", volume / "swap")
            os.rename(volume / "spare", volume / "part")

    swapping = threading.Thread(target=swap)
    swapping.start()
    outcomes = set()
    try:
        for _ in range(300):
            try:
                points = mount_parts(folder, {"/x": Part(volume, "part")})
                outcomes.add(tuple(os.listdir(points["/x"])))
            except LogdError as error:
                outcomes.add(type(error).__name__)
            finally:
                unmount_parts(folder)
    finally:
        done.set()
        swapping.join()
    assert outcomes <= {("mine",), "InvalidParameter", "NotFound"}
    assert (tmp_path / "secret" / "stolen").exists()


def test_taking_down_parts_deletes_nothing_of_them(tmp_path):
    volume, folder = tmp_path / "volume", tmp_path / "points"
    (volume / "part").mkdir(parents=True)
    (volume / "part" / "kept").touch()
    (volume / "file").write_text("kept")
    points = mount_parts(folder, {"/d": Part(volume, "part"), "/f": Part(volume, "file")})
    assert (points["/d"] / "kept").exists()
    assert points["/f"].read_text() == "kept"
    unmount_parts(folder)
    assert not folder.exists()
    assert sorted(os.listdir(volume)) == ["file", "part"]
    assert (volume / "part" / "kept").exists()
    assert mount_parts(folder, {}) == {}
    unmount_parts(folder)


def test_a_propagation_needs_a_mount_that_is_made_for_it(tmp_path):
    real = os.path.realpath(tmp_path)
    mounts = [MountEntry("/", False, False), MountEntry(real, False, False)]
    check_propagation(real, "rprivate", mounts)
    check_propagation(real, "", mounts)
    for propagation in ("shared", "rshared"):
        with pytest.raises(LogdError, match=f"^path {real} is mounted on {real} but it is not a shared mount$"):
            check_propagation(real, propagation, mounts)
    with pytest.raises(LogdError, match=f"^path {real}/x is mounted on {real} but it is not a shared or slave mount$"):
        check_propagation(f"{real}/x", "rslave", mounts)
    check_propagation(real, "rslave", [*mounts, MountEntry(real, False, True)])  # the last one is on top
    check_propagation(real, "shared", [*mounts, MountEntry(real, True, False)])


def test_the_kernel_tells_of_shared_mounts_whatever_their_name(tmp_path):
    point = tmp_path / "a b\\c"
    point.mkdir()
    mount("tmpfs", point, "tmpfs")
    try:
        mount("", point, flags=1 << 20)  # shared
        (entry,) = [entry for entry in read_mounts() if entry.point == str(point)]
        assert (entry.shared, entry.slave) == (True, False)
        (tmp_path / "link").symlink_to(point)
        check_propagation(str(tmp_path / "link"), "rshared")
    finally:
        detach(point)


def test_the_root_of_a_container_is_what_its_mounts_need():
    assert root_propagation({"rbind", "rprivate", "ro"}) == "rprivate"
    assert root_propagation({"rprivate", "slave"}) == "rslave"
    assert root_propagation({"rslave", "rshared"}) == "shared"

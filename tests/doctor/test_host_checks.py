"""The doctor's checks of what a host has to have: kernel, cgroups, runtimes, disk, permissions."""

import os
from pathlib import Path

import pytest

from logd.doctor import disk, features, holes, permissions

MODERN = {
    "proc/filesystems": "nodev\tproc\nnodev\toverlay\n",
    "proc/self/status": "Name:\tx\nSeccomp:\t0\n",
    "proc/sys/user/max_user_namespaces": "1000\n",
    "proc/sys/net/ipv4/ip_forward": "1\n",
    "proc/pressure/cpu": "some\n",
    **{f"proc/self/ns/{name}": "" for name in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")},
}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The files of a host where all is in order."""
    write(tmp_path, MODERN)
    return tmp_path


@pytest.mark.parametrize(
    ("release", "status"),
    [("6.1.0-18-amd64", "ok"), ("5.6.0", "ok"), ("5.5.19", "fail"), ("4.19", "fail"), ("x", "warn")],
)
def test_a_kernel_without_openat2_is_too_old(release: str, status: str) -> None:
    assert features.version(release).status == status


def test_what_no_container_starts_without_fails(host: Path) -> None:
    assert features.features("6.1.0", host).status == "ok"
    for file, word in (
        ("proc/self/ns/pid", "pid namespace"),
        ("proc/filesystems", "overlayfs"),
        ("proc/self/status", "seccomp"),
    ):
        text = (host / file).read_text()
        (host / file).unlink()
        found = features.features("6.1.0", host)
        assert (found.status, word in found.found) == ("fail", True), found
        (host / file).write_text(text)


def test_overlayfs_may_be_a_module_that_is_not_loaded_yet(host: Path) -> None:
    write(host, {"proc/filesystems": "", "lib/modules/6.1.0/modules.dep": "kernel/fs/overlayfs/overlay.ko.xz:\n"})
    assert features.features("6.1.0", host).status == "ok"


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("proc/pressure/cpu", "psi=1"),
        ("proc/sys/user/max_user_namespaces", "userns-remap"),
        ("proc/self/ns/cgroup", "cgroup"),
    ],
)
def test_what_only_some_need_is_warned_of(host: Path, file: str, word: str) -> None:
    if "max_" in file:
        (host / file).write_text("0\n")
    else:
        (host / file).unlink()
    found = features.features("6.1.0", host)
    assert (found.status, word in found.found) == ("warn", True), found


def test_a_controller_that_is_missing_is_named_with_the_mode(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu io memory\n")
    found = features.cgroups(["WARNING: No cpuset support"], tmp_path)
    assert (found.status, "version 2; missing: cpuset, pids" in found.found) == ("warn", True), found
    (tmp_path / "cgroup.controllers").write_text("cpu cpuset io memory pids\n")
    assert features.cgroups([], tmp_path).status == "ok"
    assert features.cgroups(["WARNING: No swap limit support"], tmp_path).status == "warn"


def test_packets_that_are_not_forwarded_matter_where_a_container_needs_it(host: Path) -> None:
    def status(*, in_use: bool, switched_on: bool) -> str:
        return features.packets(in_use=in_use, switched_on=switched_on, root=host).status

    assert status(in_use=True, switched_on=False) == "ok"
    (host / "proc/sys/net/ipv4/ip_forward").write_text("0\n")
    assert status(in_use=True, switched_on=True) == "fail"
    assert status(in_use=False, switched_on=True) == "ok"
    assert status(in_use=False, switched_on=False) == "warn"


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("1.1.4", 7), ("1.1.11", 5), ("1.1.12", 4), ("1.1.14", 3), ("1.1.15", 3), ("1.2.0-rc.2", 4), ("1.2.0-rc.3", 3),
        ("1.2.7", 3), ("1.2.8", 0), ("1.3.0", 3), ("1.3.2", 3), ("1.3.3", 0), ("1.4.0-rc.2", 3), ("1.4.0-rc.3", 0),
        ("1.4.0", 0), ("1.5.0-rc.1+dev", 0), ("1.0.0-rc95", 7), ("nonsense", 0),
    ],
)  # fmt: skip
def test_a_version_of_runc_has_the_holes_that_were_mended_later_in_its_line(version: str, number: int) -> None:
    found = holes.holes({"runc": {"version": version}})
    assert found.status == ("warn" if number else "ok")
    assert found.found.count("CVE-") == number, found.found


def test_what_a_distribution_is_known_to_have_mended_is_left_out() -> None:
    debian = {"version": "1.1.5+ds1", "commit": "1.1.5+ds1-1+deb12u1"}
    assert "CVE-2024-21626" in holes.holes({"runc": {**debian, "commit": "abc"}}).found
    found = holes.holes({"runc": debian})
    assert "CVE-2024-21626" not in found.found
    assert "(1.1.5+ds1-1+deb12u1)" in found.found
    assert "apt changelog runc" in found.advice


def test_of_crun_and_of_what_nothing_is_known_of() -> None:
    assert "CVE-2025-24965" in holes.holes({"crun": {"version": "1.19.1"}}).found
    assert holes.holes({"crun": {"version": "1.20"}, "youki": {"version": "0.1"}, "gone": {}}).status == "ok"


MOUNTS = """\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 0:30 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw,size=1g
31 21 0:31 / /mnt/with\\040space rw - nfs4 server:/x rw
32 21 8:1 / /read-only ro,relatime - ext4 /dev/sda1 ro
33 21 8:2 / /broken rw,relatime - ext4 /dev/sda2 ro
34 21 8:3 / /careful rw,noexec,nodev - xfs /dev/sda3 rw
35 21 0:35 / /var/lib/over rw - overlay overlay rw,lowerdir=/a
"""


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/var/lib/logd", "ok", "ext4 at /"),
        ("/tmp/logd", "warn", "gone after a restart"),
        ("/mnt/with space/logd", "fail", "nfs4 at /mnt/with space"),
        ("/read-only/logd", "fail", "read-only"),
        ("/broken/logd", "fail", "read-only"),
        ("/careful/logd", "warn", "nodev, noexec"),
        ("/var/lib/over/logd", "fail", "overlay at"),
    ],
)
def test_a_file_system_that_can_not_carry_containers_fails(tmp_path: Path, path: str, status: str, words: str) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    found = disk.file_system(Path(path), tmp_path / "mountinfo")
    assert (found.status, words in found.found) == (status, True), found


def test_a_socket_that_all_may_write_to_fails(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    path.touch()
    path.chmod(0o660)
    assert permissions.sockets([path, tmp_path / "not-yet"], "root").status == "ok"
    assert permissions.sockets([path], "").status == "ok"
    assert permissions.sockets([path], "nobody-has-this").status == "warn"
    os.chown(path, 0, 12345)
    assert permissions.sockets([path], "root").status == "warn"
    path.chmod(0o666)
    found = permissions.sockets([path], "root")
    assert (found.status, "every user of this host is root" in found.found) == ("fail", True)


def test_folders_of_the_daemon_are_roots_alone(tmp_path: Path) -> None:
    for mode, status in ((0o711, "ok"), (0o700, "ok"), (0o755, "warn"), (0o777, "fail"), (0o730, "fail")):
        tmp_path.chmod(mode)
        assert permissions.folders([tmp_path, tmp_path / "not-yet"], 0).status == status
    os.chown(tmp_path, 12345, 0)
    assert permissions.folders([tmp_path], 0).status == "fail"

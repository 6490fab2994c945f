"""Containers in user namespaces, through the docker command line, on a daemon with ranges of ids of its own.

The daemon runs in a mount namespace in which /etc/subuid and /etc/subgid are a file of the test's; the host's stay as
they are. The daemon's mounts are in there too.
"""

import io
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT, SECOND = 1_200_000, 1_400_000
"""The host's ids of containers' root: the daemon's first mapping, and another."""
OVERFLOW = 65534
CRUN = """#!/bin/sh
exec unshare -m sh -c 'umount /sys/fs/cgroup/unified; exec crun "$@"' sh "$@"
"""
"""crun 1.8 refuses a unified tree with the hugetlb controller, so it gets a mount namespace without that tree."""
MAPPING = f"0 {ROOT} 65536"


class Remapped:
    """A daemon whose containers get user namespaces; `ids` is its file of subordinate ids."""

    def __init__(self, daemon: Any) -> None:
        self.daemon = daemon
        self.ids = daemon.folder / "subids"
        self.ids.write_text(f"dockremap:{ROOT}:65536\nother:{SECOND}:60000\nother:{SECOND + 100_000}:10000\n")
        daemon.folder.chmod(0o711)
        script = 'mount --bind "$0" /etc/subuid && mount --bind "$0" /etc/subgid && echo && exec cat'
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, str(self.ids)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"\n"
        crun = daemon.folder / "crun"
        crun.write_text(CRUN)
        crun.chmod(0o755)
        daemon.flags += ("--add-runtime", f"crun={crun}")
        plain = daemon.command
        daemon.command = lambda: ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", *plain()]

    def docker(self, *arguments: str, **options: Any) -> Any:
        return self.daemon.docker(*arguments, **options)

    def run(self, *arguments: str) -> str:
        """Run a container of busybox to its end and return what it printed."""
        return str(self.docker("run", "--rm", *arguments).stdout).strip()

    def refusal(self, *arguments: str) -> str:
        done = self.docker("run", "--rm", *arguments, check=False)
        assert done.returncode == 125
        return str(done.stderr).split("daemon: ", 1)[1].partition("\n")[0].removesuffix(".")  # which newer clients add

    def mounts(self) -> list[str]:
        lines = Path(f"/proc/{self.holder.pid}/mountinfo").read_text().splitlines()
        return [point for line in lines if (point := line.split()[4]).startswith(f"{self.daemon.folder}/")]

    def close(self) -> None:
        assert self.holder.stdin is not None
        self.holder.stdin.close()
        self.holder.wait()
        assert self.holder.stdout is not None
        self.holder.stdout.close()


@pytest.fixture(scope="module")
def shared(make_module_daemon: Callable[..., Any], busybox_tar: bytes) -> Iterator[Remapped]:
    remapped = Remapped(make_module_daemon("--userns-remap", "default"))
    try:
        remapped.daemon.start()
        remapped.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
        yield remapped
    finally:
        if names := remapped.docker("ps", "-aq", check=False).stdout.split():
            remapped.docker("rm", "-f", "-v", *names, check=False)
        remapped.close()


@pytest.fixture
def remapped(shared: Remapped) -> Iterator[Remapped]:
    yield shared
    if names := shared.docker("ps", "-aq").stdout.split():
        shared.docker("rm", "-f", "-v", *names)


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def owners(tar: bytes) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {member.name.removeprefix("./").strip("/"): (member.uid, member.gid) for member in archive}


def tar_of(name: str, uid: int, gid: int) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.uid, member.gid = uid, gid
        tar.addfile(member)
    return archive.getvalue()


def host_owner(remapped: Remapped, name: str) -> int:
    pid = remapped.docker("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
    return os.stat(f"/proc/{pid}").st_uid


def test_a_containers_root_is_a_user_of_the_host_that_owns_nothing_and_has_all_of_the_image(remapped: Remapped) -> None:
    script = """
        tr -s ' ' < /proc/self/uid_map
        id -u
        echo error > /proc/self/fd/2
        echo output > /dev/stdout
        mkdir /made && touch /etc/hosts && echo words >> /etc/resolv.conf && stat -c %u:%g / /bin/sh /made /etc/hosts
        pwd; stat -c %u /a/b
        cat /proc/sys/net/ipv4/ping_group_range
    """
    done = remapped.docker("run", "--name", "web", "-w", "/a/b", "busybox", "sh", "-c", script)
    lines = ["0", "output", *["0:0"] * 4, "/a/b", "0", "0\t65535"]
    assert done.stdout.split("\n")[:-1] == [f" {MAPPING}", *lines]
    assert done.stderr == "error\n"
    assert "/made" in remapped.docker("diff", "web").stdout
    assert "name=userns" in remapped.docker("info", "-f", "{{.SecurityOptions}}").stdout
    assert (os.stat("/dev/null").st_uid, os.stat("/dev/null").st_gid) == (0, 0)


def test_a_user_of_the_image_writes_to_stdout_reads_stdin_and_has_a_terminal(remapped: Remapped) -> None:
    script = "id -u; cat /dev/stdin; echo out > /proc/self/fd/1"
    done = remapped.docker("run", "--rm", "-i", "-u", "1000:50", "busybox", "sh", "-c", script, stdin="in\n")
    assert done.stdout == "1000\nin\nout\n"
    remapped.docker("run", "-d", "-t", "-u", "1000", "--name", "tty", "busybox", "sh", "-c", "tty > /dev/tty; sleep 60")
    wait_until(lambda: "/dev/pts/0" in remapped.docker("logs", "tty").stdout, "no terminal")


def test_execs_health_checks_and_a_restart_are_in_the_same_mapping(remapped: Remapped) -> None:
    health = ["--health-cmd", "id -u > /dev/stderr && tr -s ' ' < /proc/self/uid_map", "--health-interval", "100ms"]
    remapped.docker("run", "-d", "--name", "web", *health, "busybox", "sleep", "600")
    script = "id -u; tr -s ' ' < /proc/self/uid_map; echo error > /proc/self/fd/2; touch /by-exec"
    done = remapped.docker("exec", "web", "sh", "-c", script)
    assert (done.stdout, done.stderr) == (f"0\n {MAPPING}\n", "error\n")
    assert remapped.docker("exec", "-i", "-u", "5", "web", "cat", "/dev/stdin", stdin="in").stdout == "in"
    wait_until(
        lambda: f"0\\n {MAPPING}" in remapped.docker("inspect", "-f", "{{json .State.Health.Log}}", "web").stdout,
        "no health",
    )
    assert host_owner(remapped, "web") == ROOT
    (way,) = (remapped.daemon.exec_root / "roots").iterdir()
    assert (way.stat().st_mode & 0o7777, way.stat().st_uid, way.stat().st_gid) == (0o710, 0, ROOT)
    assert (remapped.daemon.data_root / "volumes").stat().st_mode & 0o7777 == 0o700
    assert str(ROOT) in remapped.docker("top", "web", "-o", "uid,pid").stdout
    remapped.docker("restart", "-t", "0", "web")
    assert remapped.docker("exec", "web", "stat", "-c", "%u", "/by-exec").stdout == "0\n"


def test_volumes_have_the_containers_ids_and_binds_those_of_the_host(remapped: Remapped, tmp_path: Path) -> None:
    (tmp_path / "of-the-host").touch()
    os.chown(tmp_path / "of-the-host", ROOT + 7, 0)
    tmp_path.chmod(0o777)
    (tmp_path / "filled").mkdir()
    options = f"volume-opt=type=none,volume-opt=o=bind,volume-opt=device={tmp_path}/filled"
    places = ["-v", "data:/home", "-v", "/anon", "--tmpfs", "/scratch", "-v", f"{tmp_path}:/host"]
    places += ["--mount", f"type=volume,dst=/etc,{options}"]
    script = """
        for place in /home /anon /scratch /host; do touch $place/made || exit 1; done
        chown 1000:1000 /home/made
        stat -c %u:%g /home /home/made /anon/made /scratch/made /host/made /host/of-the-host
    """
    owned = remapped.run(*places, "busybox", "sh", "-c", script).split()
    assert owned == ["0:0", "1000:1000", "0:0", "0:0", "0:0", f"7:{OVERFLOW}"]
    assert (tmp_path / "made").stat().st_uid == (tmp_path / "filled/passwd").stat().st_uid == ROOT
    look = ["busybox", "stat", "-c", "%u:%g", "/data/made"]
    assert remapped.run("-v", "data:/data", *look) == "1000:1000"
    assert remapped.run("-v", "data:/data", "--userns", "host", *look) == "1000:1000"
    part = "type=volume,src=data,dst=/data/made,volume-subpath=made"
    assert remapped.run("--mount", part, *look) == "1000:1000"


def test_what_is_copied_exported_and_committed_has_the_containers_ids(remapped: Remapped) -> None:
    script = (
        "touch /home/joes /data/joes && chown 1000:50 /home/joes /data/joes && mkdir /made && echo made; exec sleep 600"
    )
    remapped.docker("run", "-d", "--name", "web", "-v", "/data", "busybox", "sh", "-c", script)
    wait_until(lambda: remapped.docker("logs", "web").stdout == "made\n", "it does not begin")
    expected = {"bin/sh": (0, 0), "home/joes": (1000, 50), "data": (0, 0), "data/joes": (1000, 50), "made": (0, 0)}
    for is_running in (True, False):
        name = "live" if is_running else "later"
        for place in ("made", "data"):
            remapped.docker("cp", "-", f"web:/{place}", stdin=tar_of(name, 5, 6), text=False)
            expected[f"{place}/{name}"] = (5, 6)
        copied = owners(remapped.docker("cp", "web:/.", "-", text=False).stdout)
        assert {path: owner for path, owner in copied.items() if path in expected} == expected
        if is_running:
            exported = owners(remapped.docker("export", "web", text=False).stdout)
            assert [exported[path] for path in ("bin/sh", "home/joes", "made/live")] == [(0, 0), (1000, 50), (5, 6)]
            remapped.docker("stop", "-t", "0", "web")
    done = remapped.docker("cp", "-", "web:/made", stdin=tar_of("stranger", 70_000, 0), text=False, check=False)
    assert b"Container ID 70000 cannot be mapped to a host ID" in done.stderr
    assert remapped.docker("diff", "web").stdout.split("\n")[:-1] == [
        *("A /data", "C /home", "A /home/joes", "A /made", "A /made/later", "A /made/live")
    ]
    remapped.docker("commit", "web", "made")
    look = ["made", "stat", "-c", "%u:%g", "/home/joes", "/made/live", "/made", "/bin/sh"]
    assert remapped.run("--userns", "host", *look).split() == ["1000:50", "5:6", "0:0", "0:0"]


def test_what_would_undo_the_namespace_is_refused_but_for_containers_in_the_hosts(remapped: Remapped) -> None:
    assert remapped.refusal("--privileged", "busybox") == (
        "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when "
        "running privileged mode"
    )
    shares = "when user namespaces are enabled"
    assert remapped.refusal("--network", "host", "busybox") == f"cannot share the host's network namespace {shares}"
    assert remapped.refusal("--pid", "host", "busybox") == f"cannot share the host PID namespace {shares}"
    bare = ["--userns", "host", "--privileged", "--network", "host", "--pid", "host"]
    assert remapped.run(*bare, "busybox", "cat", "/proc/self/uid_map").split() == ["0", "0", "4294967295"]
    remapped.docker("run", "-d", "--name", "bare", "--userns", "host", "busybox", "sleep", "600")
    assert "which runs in the host's user namespace" in remapped.refusal("--network", "container:bare", "busybox")


def test_containers_that_share_namespaces_share_the_user_namespace(remapped: Remapped) -> None:
    script = "touch /dev/shm/shared; exec sleep 600"
    remapped.docker("run", "-d", "--name", "web", "--ipc", "shareable", "busybox", "sh", "-c", script)
    theirs = remapped.docker("exec", "web", "readlink", "/proc/self/ns/user").stdout.strip()
    for mode, look in (
        ("--network", "ls /sys/class/net/eth0/mtu"),
        ("--pid", "ls -d /proc/1/root/dev/shm/shared && ls /sys/class/net/eth0/mtu"),
        ("--ipc", "ls /dev/shm/shared && ls /sys/class/net/eth0/mtu"),
    ):
        assert (
            remapped.run(
                mode, "container:web", "busybox", "sh", "-c", f"{{ {look}; }} >&2 && readlink /proc/self/ns/user"
            )
            == theirs
        )


def test_crun_has_the_same_mapping_and_gets_no_device_of_the_host_to_give_away(remapped: Remapped) -> None:
    health = ["--health-cmd", "id -u > /dev/stderr", "--health-interval", "100ms"]
    remapped.docker(
        "run", "-d", "-t", "-u", "1000", "--runtime", "crun", "--name", "web", *health, "busybox", "sleep", "60"
    )
    done = remapped.docker(
        "exec", "-u", "0", "web", "sh", "-c", "tr -s ' ' < /proc/self/uid_map; echo out > /dev/stdout"
    )
    assert done.stdout == f" {MAPPING}\nout\n"
    remapped.docker("exec", "-d", "-u", "1000", "web", "true")
    wait_until(
        lambda: '"1000\\n"' in remapped.docker("inspect", "-f", "{{json .State.Health.Log}}", "web").stdout, "no health"
    )
    assert (os.stat("/dev/null").st_uid, os.stat("/dev/null").st_gid) == (0, 0)


def test_a_killed_daemon_costs_nothing_and_each_container_keeps_the_mapping_of_its_creation(remapped: Remapped) -> None:
    daemon = remapped.daemon
    script = "echo begun; trap 'echo ended; exit 3' TERM; while :; do sleep 0.1; done"
    remapped.docker("run", "-d", "--name", "web", "-v", "kept:/kept", "busybox", "sh", "-c", script)
    daemon.kill()
    daemon.flags = ("--userns-remap", "other")
    daemon.start()
    assert remapped.docker("exec", "web", "sh", "-c", "touch /kept/made; id -u").stdout == "0\n"
    remapped.docker("stop", "web")
    assert remapped.docker("logs", "web").stdout == "begun\nended\n"
    assert remapped.docker("inspect", "-f", "{{.State.ExitCode}}", "web").stdout == "3\n"
    remapped.docker("start", "web")
    assert host_owner(remapped, "web") == ROOT
    assert remapped.docker("exec", "web", "stat", "-c", "%u", "/kept/made").stdout == "0\n"
    maps = remapped.run("-v", "kept:/kept", "busybox", "sh", "-c", "stat -c %u /kept/made; cat /proc/self/gid_map")
    assert maps.split() == ["0", *f"0 {SECOND} 60000 60000 {SECOND + 100_000} 10000".split()]
    remapped.docker("rm", "-f", "web")
    wait_until(lambda: not remapped.mounts(), "mounts are left")
    assert list((daemon.exec_root / "roots").iterdir()) == list((daemon.exec_root / "userns").iterdir()) == []

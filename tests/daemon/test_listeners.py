"""Sockets, the lock and the pidfile: who may use them, and what stands in the way."""

import grp
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from logd.config import DaemonConfig
from logd.daemon import listeners, lock, notify
from logd.errors import Conflict, InvalidParameter, LogdError


def opened(*hosts: str, group: str = "0") -> list[listeners.Listener]:
    return listeners.open_listeners(DaemonConfig(hosts=hosts, group=group), [])


def test_a_unix_socket_is_for_root_and_its_group_from_the_first_moment(tmp_path: Path) -> None:
    name = grp.getgrgid(os.getgid()).gr_name
    (listener,) = opened(f"unix://{tmp_path}/deep/a.sock", group=name)
    status = (tmp_path / "deep" / "a.sock").stat()
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert (status.st_uid, status.st_gid) == (0, os.getgid())
    listener.close()
    assert not (tmp_path / "deep" / "a.sock").exists()


def test_without_the_default_group_the_socket_is_for_root_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", missing)
    (listener,) = opened(f"unix://{tmp_path}/a.sock", group="logd")
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o600
    assert "group logd not found" in caplog.text
    listener.close()


def test_a_group_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="group nosuchgroup not found"):
        opened(f"unix://{tmp_path}/a.sock", group="nosuchgroup")
    assert not (tmp_path / "a.sock").exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "a.sock"))
    (listener,) = opened(f"unix://{tmp_path}/a.sock")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "a.sock"))
    listener.close()


def test_a_socket_that_somebody_listens_on_is_left_alone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(tmp_path / "a.sock"))
        live.listen()
        with pytest.raises(Conflict, match="another process listens there"):
            opened(f"unix://{tmp_path}/a.sock")
        assert (tmp_path / "a.sock").exists()


def test_anything_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("data")
    (tmp_path / "link").symlink_to(target)
    for name in ("precious", "link"):
        with pytest.raises(Conflict, match="is not a socket"):
            opened(f"unix://{tmp_path}/{name}")
    assert target.read_text() == "data"


def test_when_one_host_fails_none_stays_bound(tmp_path: Path) -> None:
    (tmp_path / "b.sock").write_text("")
    with pytest.raises(Conflict):
        opened(f"unix://{tmp_path}/a.sock", f"unix://{tmp_path}/b.sock")
    assert not (tmp_path / "a.sock").exists()


def test_a_path_that_another_took_over_is_not_removed(tmp_path: Path) -> None:
    (listener,) = opened(f"unix://{tmp_path}/a.sock")
    (tmp_path / "a.sock").unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "a.sock"))
        listener.close()
        assert (tmp_path / "a.sock").exists()


def test_socket_activation_without_sockets_is_refused() -> None:
    with pytest.raises(LogdError, match="no sockets found via socket activation"):
        opened("fd://")


def test_an_activated_tcp_socket_needs_tls() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        with pytest.raises(InvalidParameter, match="needs tlsverify"):
            listeners.open_listeners(DaemonConfig(hosts=("fd://",)), [one])


def test_sockets_and_watchdog_meant_for_another_process_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.activated_sockets() == []
    assert notify.Notifier().watchdog_s == 0
    assert not {"LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)


def test_the_watchdog_is_fed_twice_in_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert notify.Notifier().watchdog_s == 15.0


def test_a_second_daemon_on_a_data_root_is_told_who_holds_it(tmp_path: Path) -> None:
    held = lock.lock_data_root(tmp_path)
    code = "import pathlib, sys; from logd.daemon import lock; lock.lock_data_root(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert f"data-root: {tmp_path} is in use by another logd (pid {os.getpid()})" in done.stderr
    os.close(held)
    os.close(lock.lock_data_root(tmp_path))


def test_folders_get_their_mode_whatever_the_umask_and_stricter_ones_stay(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        lock.make_folder(tmp_path / "fresh")
    finally:
        os.umask(before)
    (tmp_path / "wide").mkdir(mode=0o777)
    (tmp_path / "wide").chmod(0o777)
    lock.make_folder(tmp_path / "wide")
    (tmp_path / "strict").mkdir(mode=0o700)
    lock.make_folder(tmp_path / "strict")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("fresh", "wide", "strict")]
    assert modes == [0o711, 0o711, 0o700]


def test_a_pidfile_of_a_process_that_is_no_logd_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "logd.pid"
    for content in ("1\n", "999999999\n", "nonsense", ""):
        path.write_text(content)
        lock.write_pidfile(path)
        assert path.read_text() == f"{os.getpid()}\n"
    lock.remove_pidfile(path)
    assert not path.exists()


def test_a_pidfile_of_a_living_logd_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "logd.pid"
    code = "import time; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, "logd.daemon"], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()  # its command line is in place
        path.write_text(f"{other.pid}\n")
        try:
            with pytest.raises(Conflict, match=f"process with PID {other.pid} is still running"):
                lock.write_pidfile(path)
        finally:
            other.kill()
    assert path.read_text() == f"{other.pid}\n"

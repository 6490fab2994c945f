"""Through the unmodified docker command line: what must hold when processes die, disks fill or hang, readers dawdle."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

LOGGEN_SOURCE = Path(__file__).parents[2] / "bench" / "loggen.c"


@pytest.fixture(scope="module")
def loggen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generator and checker of numbered lines, static, for use inside and outside a container."""
    target = tmp_path_factory.mktemp("loggen") / "loggen"
    subprocess.run(["gcc", "-O2", "-static", "-o", target, LOGGEN_SOURCE], check=True)
    target.parent.chmod(0o777)
    return target


def checked(loggen: Path, reader: "subprocess.Popen[bytes]", lines: int) -> dict[str, int]:
    """Check numbered lines from a reader's standard output."""
    with reader:
        done = subprocess.run(
            [loggen, "check", "-n", str(lines)], stdin=reader.stdout, capture_output=True, check=False
        )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def flawless(lines: int) -> dict[str, int]:
    return {"lines": lines, "missing": 0, "doubled": 0, "disorder": 0, "bad": 0}


def helper_pids(daemon: Any, comm: str) -> list[int]:
    return [pid for pid in daemon.processes() if comm_of(pid) == comm]


def comm_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it has ended since
        return ""


def ended(daemon: Any, name: str, timeout_s: float = 60) -> int:
    """Return the exit code, asked again when the daemon is just away."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        done = daemon.docker("wait", name, check=False, timeout=timeout_s)
        if done.returncode == 0:
            return int(done.stdout)
        time.sleep(0.1)
    raise AssertionError(f"{name} did not end:\n{daemon.log()}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rate", [[], ["-r", "50000"]], ids=["full speed", "50,000 lines a second"])
def test_daemon_shim_and_keeper_killed_one_at_a_time_cost_no_line(busybox: Any, loggen: Path, rate: list[str]) -> None:
    lines = 200_000 if rate else 4_000_000
    rounds = int(os.environ.get("LOGD_TEST_KILLS", "6"))
    command = ["/w/loggen", "gen", "-n", str(lines), *rate, "-o", "/w/report", "-k", "/w/end"]
    options = ["--log-opt", "max-size=4g", "-v", f"{loggen.parent}:/w"]
    for leftover in ("report", "end"):
        (loggen.parent / leftover).unlink(missing_ok=True)
    busybox.docker("run", "-d", "--name", "victim", *options, "busybox", *command)
    for number in range(rounds):
        time.sleep(random.uniform(0.01, 0.25))
        kind = ("daemon", "logd-shim", "logd-keeper")[number % 3]
        if kind == "daemon":
            busybox.kill()
            busybox.start()
            continue
        for pid in helper_pids(busybox, kind):
            with suppress(ProcessLookupError):  # a shim's errand
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)  # one at a time: the next one only once this one has been replaced
    (loggen.parent / "end").touch()
    assert ended(busybox, "victim") == 0
    reader = busybox.docker_popen("logs", "victim", stdout=subprocess.PIPE)
    assert checked(loggen, reader, lines) == flawless(lines)
    report = json.loads((loggen.parent / "report").read_text())
    assert (report["lines"], report["errno"]) == (lines, 0)
    state = json.loads(busybox.docker("inspect", "-f", "{{json .State}}", "victim").stdout)
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("size", [120_000_000, pytest.param(2_000_000_000, marks=pytest.mark.soak)])
def test_a_slow_reader_of_run_gets_all_bytes_although_the_log_keeps_five_megabytes(
    emptied_busybox: Any, size: int
) -> None:
    script = f"yes 0123456789abcdef | head -c {size}"
    options = ["--rm", "--log-opt", "max-size=1m"]
    digest, read = hashlib.sha256(), 0
    with emptied_busybox.docker_popen("run", *options, "busybox", "sh", "-c", script, stdout=subprocess.PIPE) as reader:
        while chunk := reader.stdout.read(1 << 20):
            digest.update(chunk)
            read += len(chunk)
            if read < 40 << 20:
                time.sleep(0.02)  # slow at first: 50 MB/s, so that the writer is ahead by far
    assert reader.returncode == 0
    line = b"0123456789abcdef\n"
    expected = hashlib.sha256()
    whole, rest = divmod(size, len(line) * 100_000)
    for _ in range(whole):
        expected.update(line * 100_000)
    expected.update((line * 100_000)[:rest])
    assert (read, digest.hexdigest()) == (size, expected.hexdigest())


def test_ten_megabytes_through_stdin_come_back_after_the_half_close(emptied_busybox: Any) -> None:
    data = random.randbytes(10_000_000)
    assert emptied_busybox.docker("run", "-i", "--rm", "busybox", "cat", stdin=data, text=False).stdout == data


def test_a_daemon_killed_in_the_middle_of_stdin_leaves_the_container_alive_and_its_stdin_open(busybox: Any) -> None:
    client = busybox.docker_popen(
        "run", "-i", "--name", "cat", "busybox", "cat", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    client.stdin.write(b"before\n")
    client.stdin.flush()
    while "before" not in busybox.docker("logs", "cat", check=False).stdout:
        time.sleep(0.05)
    busybox.kill()
    client.stdin.close()
    client.wait(20)
    busybox.start()
    assert busybox.docker("inspect", "-f", "{{.State.Running}}", "cat").stdout.strip() == "true"
    again = busybox.docker_popen("attach", "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = again.communicate(b"after\n", timeout=20)
    assert out == b"after\n"
    assert ended(busybox, "cat") == 0
    assert busybox.docker("logs", "cat").stdout == "before\nafter\n"


def test_wait_returns_although_a_host_process_holds_the_containers_stdout(emptied_busybox: Any) -> None:
    emptied_busybox.docker("run", "-d", "--name", "held", "busybox", "sh", "-c", "echo out; sleep 1; exit 5")
    pid = emptied_busybox.docker("inspect", "-f", "{{.State.Pid}}", "held").stdout.strip()
    with open(f"/proc/{pid}/fd/1", "wb", buffering=0) as stdout:
        began = time.monotonic()
        assert emptied_busybox.docker("wait", "held", timeout=20).stdout.strip() == "5"
        assert time.monotonic() - began < 6
        assert emptied_busybox.docker("logs", "-f", "held", timeout=20).stdout == "out\n"
        stdout.write(b"late\n")
    emptied_busybox.docker("rm", "held")


def test_all_processes_killed_at_once_leave_the_container_running_and_its_log_going_on(
    busybox: Any, tmp_path: Path
) -> None:
    script = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done; until [ -e /w/end ]; do sleep 0.05; done; exit 9"
    busybox.docker("run", "-d", "--name", "orphan", "-v", f"{tmp_path}:/w", "busybox", "sh", "-c", script)
    while "1\n" not in busybox.docker("logs", "orphan").stdout:
        time.sleep(0.05)
    pids = [*helper_pids(busybox, "logd-keeper"), *helper_pids(busybox, "logd-shim")]
    assert len(pids) == 2
    busybox.kill()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    busybox.start()
    (tmp_path / "end").touch()
    assert ended(busybox, "orphan") == 9
    assert busybox.docker("logs", "orphan").stdout == "1\n2\n3\n4\n5\n6\n"


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Path]:
    """An ext4 file system of this size."""
    image = path / "disk.img"
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    mount = path / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


def test_a_full_disk_lets_the_container_live_and_the_loss_is_counted_and_shown(
    make_daemon: Any, busybox_tar: bytes, loggen: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path, 64) as disk:
        daemon = make_daemon()
        daemon.data_root = disk / "data"
        daemon.start()
        daemon.docker("import", "-", "busybox:latest", stdin=busybox_tar, text=False)
        (loggen.parent / "end").unlink(missing_ok=True)
        command = ["/w/loggen", "gen", "-n", "2000000", "-k", "/w/end"]
        options = ["--log-opt", "max-size=1g", "-v", f"{loggen.parent}:/w"]
        daemon.docker("run", "-d", "--name", "full", *options, "busybox", *command)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status = daemon.get("/logd/containers/full/log")
            if "no-space" in json.dumps(status) or "min-free" in json.dumps(status):
                break
            time.sleep(0.2)
        else:
            raise AssertionError(f"no loss is shown: {status}")
        assert daemon.docker("inspect", "-f", "{{.State.Running}}", "full").stdout.strip() == "true"
        (loggen.parent / "end").touch()
        assert ended(daemon, "full") == 0
        status = json.loads(daemon.logd("log", "status", "--format", "json", "full").stdout)
        stdout = status["streams"]["stdout"]
        assert stdout["position"] == 200_000_000
        assert stdout["stored"] + stdout["expired"] + sum(stdout["dropped"].values()) == 200_000_000
        assert daemon.docker("logs", "--tail", "1", "full").returncode == 0
        daemon.docker("rm", "full")


def test_kill_returns_although_the_disk_hangs(make_daemon: Any, busybox_tar: bytes, tmp_path: Path) -> None:
    with small_disk(tmp_path, 128) as disk:
        daemon = make_daemon()
        daemon.data_root = disk / "data"
        daemon.start()
        daemon.docker("import", "-", "busybox:latest", stdin=busybox_tar, text=False)
        daemon.docker("run", "-d", "--name", "writer", "busybox", "sh", "-c", "while true; do echo x; sleep 0.01; done")
        time.sleep(0.5)
        subprocess.run(["fsfreeze", "--freeze", disk], check=True)
        thaw = threading.Timer(40, subprocess.run, (["fsfreeze", "--unfreeze", disk],))
        thaw.start()
        try:
            time.sleep(0.5)
            began = time.monotonic()
            daemon.docker("kill", "writer", timeout=30)
            assert time.monotonic() - began < 15
            assert daemon.docker("version", "-f", "{{.Server.Version}}", timeout=10).returncode == 0
        finally:
            thaw.cancel()
            subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)
        assert ended(daemon, "writer") == 137
        daemon.docker("rm", "writer")


def test_a_stopped_shim_is_never_joined_by_a_second_writer(busybox: Any) -> None:
    busybox.docker("run", "-d", "--name", "one", "busybox", "sh", "-c", "while true; do echo x; sleep 0.05; done")
    (shim,) = helper_pids(busybox, "logd-shim")
    os.kill(shim, signal.SIGSTOP)
    try:
        (folder,) = (busybox.data_root / "containers").glob("*/log")
        code = (
            "import sys; from logd.logstore.opening import open_store; from logd.logstore.options import StoreOptions;"
            "open_store(sys.argv[1], StoreOptions()); print('writing', flush=True)"
        )
        rival = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            rival.wait(2)
        size = (folder / "0000000001.stdout").stat().st_size
        rival.kill()
        rival.communicate()
    finally:
        os.kill(shim, signal.SIGCONT)
    while (folder / "0000000001.stdout").stat().st_size <= size:
        time.sleep(0.05)
    busybox.docker("rm", "-f", "one")


@pytest.mark.parametrize("attempt", [1, *(pytest.param(one, marks=pytest.mark.soak) for one in (2, 3))])
def test_a_slow_reader_of_run_rm_gets_the_end_although_the_container_is_gone(
    emptied_busybox: Any, attempt: int
) -> None:
    command = ["run", "--rm", "busybox", "seq", "3000000"]
    digest, read = hashlib.sha256(), 0
    with emptied_busybox.docker_popen(*command, stdout=subprocess.PIPE) as reader:
        while chunk := reader.stdout.read(1 << 18):
            digest.update(chunk)
            read += len(chunk)
            if read > 15_000_000:
                time.sleep(0.02)  # the container has ended and is being removed by now
    assert reader.returncode == 0
    expected = b"".join(b"%d\n" % number for number in range(1, 3_000_001))
    assert (read, digest.hexdigest()) == (len(expected), hashlib.sha256(expected).hexdigest())
    assert emptied_busybox.docker("ps", "-aq").stdout == ""
    deadline = time.monotonic() + 10
    while any((emptied_busybox.data_root / "trash").iterdir()):
        assert time.monotonic() < deadline, "the removed container's files stay"
        time.sleep(0.05)

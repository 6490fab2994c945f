"""Statistics of containers, by the docker command line and SDK, against the files of the cgroup read by hand."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from python_sdk import LEAVES_SOCKETS

pytestmark = LEAVES_SOCKETS

RECORDED = Path(__file__).parents[1] / "data/docker-stats"
UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
MIB = 1 << 20
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(client: docker.DockerClient) -> Iterator[Run]:
    """Start a container in the background, which goes with the module."""
    containers = []

    def start(name: str, script: str, **options: Any) -> Any:
        containers.append(client.containers.run("busybox", ["sh", "-c", script], name=name, detach=True, **options))
        return containers[-1]

    yield start
    for container in containers:
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True)


@pytest.fixture(scope="module")
def quiet(run: Run) -> Any:
    """A container that has 20 MB in memory and sleeps."""
    container = run(
        "quiet", "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; echo ready; exec sleep 1000",
        mem_limit="64m", pids_limit=50,
    )  # fmt: skip
    await_line(container, b"ready")
    deadline, used = time.monotonic() + 30, 0
    while used != (used := cpu_ns(container)):  # until it sleeps
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return container


@pytest.fixture(scope="module")
def busy(run: Run) -> Any:
    """A container that has written 8 MB to the disk, and burns half a CPU."""
    script = "dd if=/dev/zero of=/f bs=1M count=8 oflag=direct 2>/dev/null; echo ready; while :; do :; done"
    container = run("busy", script, nano_cpus=500_000_000)
    await_line(container, b"ready")
    return container


def await_line(container: Any, line: bytes) -> None:
    assert next(container.logs(stream=True, follow=True)).strip() == line


def cgroup(container: Any, *names: str) -> str:
    """Read a file of the container's cgroup by hand, the first that there is."""
    for name in names:
        for root in ("/sys/fs/cgroup", f"/sys/fs/cgroup/{name.partition('.')[0]}"):
            path = Path(root) / "logd" / container.id / name
            if path.exists():
                return path.read_text()
    raise AssertionError(f"no {names}")


def keyed(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def cpu_ns(container: Any) -> int:
    text = cgroup(container, "cpuacct.usage", "cpu.stat")
    return int(text) if text.strip().isdigit() else keyed(text)["usage_usec"] * 1000


def memory(container: Any) -> int:
    """Return what docker shows: the usage without the inactive files."""
    stat = keyed(cgroup(container, "memory.stat"))
    usage = int(cgroup(container, "memory.usage_in_bytes", "memory.current"))
    return usage - stat.get("total_inactive_file", stat["inactive_file"])


def moved(container: Any, operation: str) -> int:
    """Return the bytes that the container has had read or written, `Read` or `Write`."""
    lines = cgroup(container, "blkio.throttle.io_service_bytes", "io.stat").splitlines()
    if any("=" in line for line in lines):
        key = f"{operation[0].lower()}bytes="
        return sum(int(word.removeprefix(key)) for line in lines for word in line.split() if word.startswith(key))
    return sum(int(line.split()[2]) for line in lines if f" {operation} " in line)


def size(text: str) -> float:
    number = text.rstrip("BKMGkib")
    return float(number) * UNITS[text[len(number) :]]


def shape(value: object) -> object:
    """Return a JSON value with the names of types in place of values; a list has one of its elements."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def get(daemon: Any, path: str) -> Any:
    """GET JSON, or text that is none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(daemon.socket))
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: d\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    status = int(head.split()[1])
    return json.loads(body) if status == 200 else (status, json.loads(body)["message"])


# -- docker ----------------------------------------------------------------------------------------------------------


def test_docker_stats_agrees_with_the_files_read_by_hand(shared_busybox: Any, quiet: Any, busy: Any) -> None:
    began, used = time.monotonic(), cpu_ns(busy)
    shown = shared_busybox.docker("stats", "--no-stream", "--format", "json", "busy", "quiet").stdout
    by_hand = (cpu_ns(busy) - used) / 1e9 / (time.monotonic() - began) * 100
    rows = {row["Name"]: row for row in map(json.loads, shown.splitlines())}
    assert float(rows["busy"]["CPUPerc"].rstrip("%")) == pytest.approx(by_hand, abs=5)
    assert float(rows["quiet"]["CPUPerc"].rstrip("%")) < 1
    usage, limit = map(size, rows["quiet"]["MemUsage"].split(" / "))
    assert usage == pytest.approx(memory(quiet), abs=0.1 * MIB)  # four digits are shown
    assert (usage > 20 * MIB, limit) == (True, 64 * MIB)
    assert float(rows["quiet"]["MemPerc"].rstrip("%")) == pytest.approx(memory(quiet) / 64 / MIB * 100, abs=0.5)
    assert rows["quiet"]["PIDs"] == cgroup(quiet, "pids.current").strip()
    read, written = map(size, rows["busy"]["BlockIO"].split(" / "))
    assert read == pytest.approx(moved(busy, "Read"), rel=0.01)  # three digits are shown
    assert written == pytest.approx(moved(busy, "Write"), rel=0.01)
    assert written > 8 * MIB * 0.99
    assert rows["busy"]["ID"] == busy.id[:12]


def test_docker_stats_shows_a_container_that_does_not_run_with_nothing(
    shared_busybox: Any, client: docker.DockerClient
) -> None:
    client.containers.create("busybox", name="created")
    shown = shared_busybox.docker("stats", "--no-stream", "created").stdout.splitlines()[1]
    assert shown.split()[1:] == [
        "created", "0.00%", "0B", "/", "0B", "0.00%", "0B", "/", "0B", "0B", "/", "0B", "0",
    ]  # fmt: skip


def test_an_idle_containers_figures_are_those_of_its_files(shared_busybox: Any, quiet: Any) -> None:
    found = get(shared_busybox, "/containers/quiet/stats?stream=0&one-shot=1")
    assert found["cpu_stats"]["cpu_usage"]["total_usage"] == cpu_ns(quiet)
    stat = keyed(cgroup(quiet, "memory.stat"))
    shown = found["memory_stats"]["stats"]
    assert {name: stat[name] for name in shown if name in stat} == {name: shown[name] for name in shown if name in stat}
    assert len(shown) in {31, 32}
    assert found["memory_stats"]["usage"] == int(cgroup(quiet, "memory.usage_in_bytes", "memory.current"))
    assert found["pids_stats"] == {"current": 1, "limit": 50}


@pytest.mark.skipif(not Path("/sys/fs/cgroup/memory").exists(), reason="what was recorded is of cgroups v1")
def test_the_answers_have_the_keys_and_types_of_dockerd(shared_busybox: Any, busy: Any) -> None:
    running = json.loads((RECORDED / "running.json").read_text())
    del running["pids_stats"]["limit"]  # it had one
    shown = busy.stats(stream=False)
    assert shown.pop("os_type") == "linux"  # of newer dockerds
    assert shape(shown) == shape(running)
    container = shared_busybox.docker("create", "busybox", "true").stdout.strip()
    stopped = get(shared_busybox, f"/containers/{container}/stats?stream=0")
    assert stopped.pop("os_type") == "linux"
    assert shape(stopped) == shape(json.loads((RECORDED / "stopped.json").read_text()))


def test_the_hosts_network_is_not_the_containers(shared_busybox: Any, run: Run) -> None:
    run("hosts", "exec sleep 1000", network_mode="host")
    assert "networks" not in get(shared_busybox, "/containers/hosts/stats?stream=0&one-shot=1")
    (shown,) = (one for one in get(shared_busybox, "/logd/stats")["containers"] if one["name"] == "hosts")
    assert (shown["rx_bytes"], shown["tx_bytes"]) == (0, 0)


def test_without_a_stream_there_are_two_looks_unless_one_is_asked_for(
    shared_busybox: Any, client: docker.DockerClient, busy: Any
) -> None:
    both = get(shared_busybox, "/v1.40/containers/busy/stats?stream=0&one-shot=1")  # which does not know one-shot
    assert both["precpu_stats"]["cpu_usage"]["total_usage"] < both["cpu_stats"]["cpu_usage"]["total_usage"]
    assert both["precpu_stats"]["system_cpu_usage"] < both["cpu_stats"]["system_cpu_usage"]
    assert both["preread"] < both["read"]
    one = client.api.stats("busy", stream=False, one_shot=True)
    assert (one["preread"], "system_cpu_usage" in one["precpu_stats"]) == ("0001-01-01T00:00:00Z", False)


def test_what_can_not_be_answered_is_refused(shared_busybox: Any, busy: Any) -> None:
    assert get(shared_busybox, "/containers/nope/stats") == (404, "No such container: nope")
    assert get(shared_busybox, "/containers/busy/stats?one-shot=1") == (
        400,
        "cannot have stream=true and one-shot=true",
    )


def test_a_stream_goes_on_over_stop_and_start_and_ends_with_the_container(run: Run) -> None:
    container = run("fleeting", "exec sleep 1000")
    stream = container.stats(decode=True)
    first, second = next(stream), next(stream)
    assert (first["preread"], "system_cpu_usage" in first["precpu_stats"]) == ("0001-01-01T00:00:00Z", False)
    assert (second["preread"], second["precpu_stats"]) == (first["read"], first["cpu_stats"])
    container.kill()
    stopped = next(one for one in stream if not one["pids_stats"])
    assert (stopped["read"], stopped["name"], stopped["memory_stats"]) == ("0001-01-01T00:00:00Z", "/fleeting", {})
    container.start()
    again = next(one for one in stream if one["pids_stats"])
    assert again["memory_stats"]["usage"] > 0
    container.remove(force=True)
    assert all(not one["pids_stats"] for one in stream)  # and it ends


def test_clients_of_a_container_share_a_reading(shared_busybox: Any, quiet: Any) -> None:
    streams = [quiet.stats(decode=True) for _ in range(8)]
    times = {next(stream)["read"] for stream in streams}
    assert len(times) < len(streams)


# -- logd ------------------------------------------------------------------------------------------------------------


def overview(daemon: Any, parameters: str = "") -> dict[str, Mapping[str, Any]]:
    return {one["name"]: one for one in get(daemon, f"/logd/stats{parameters}")["containers"]}


def test_the_overview_has_all_that_run_in_one_answer(shared_busybox: Any, quiet: Any, busy: Any) -> None:
    shared_busybox.docker("create", "--name", "asleep", "busybox", "true")
    found = overview(shared_busybox)
    assert {"quiet", "busy"} <= set(found)
    assert "asleep" not in found
    assert overview(shared_busybox, "?all=1")["asleep"]["state"] == "created"
    shown = found["quiet"]
    assert shown["cpu_ns"] == cpu_ns(quiet)
    assert shown["memory_working_set"] == memory(quiet)
    assert (shown["memory_limit"], shown["pids"], shown["pids_limit"]) == (64 * MIB, 1, 50)
    assert (shown["state"], shown["health"], shown["image"]) == ("running", "", "busybox")
    assert shown["log_bytes"] == len(b"ready\n")
    assert found["busy"]["cpu_limit"] == 0.5
    assert found["busy"]["written_bytes"] == moved(busy, "Write") >= 8 * MIB
    assert found["busy"]["pressure"]["cpu"]["some_us"] > 0


def test_the_overviews_counters_go_on_over_a_restart(shared_busybox: Any, run: Run) -> None:
    container = run("twice", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; exec sleep 1000")
    await_line(container, b"done")
    before = overview(shared_busybox)["twice"]
    container.restart(timeout=0)
    after = overview(shared_busybox, "?all=1")["twice"]
    assert after["cpu_ns"] >= before["cpu_ns"] > 0
    assert after["started_ns"] > before["started_ns"]


def test_the_overview_says_which_log_driver_is_behind(shared_busybox: Any, run: Run) -> None:
    with socket.socket() as taken:  # bound and not listening: refused
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        run(
            "behind",
            "echo a line; exec sleep 1000",
            log_config={"Type": "syslog", "Config": {"syslog-address": address}},
        )
        deadline = time.monotonic() + 30
        while (shown := overview(shared_busybox)["behind"])["driver_state"] != "retrying" or not shown["driver_lag_s"]:
            assert time.monotonic() < deadline, shown
            time.sleep(0.05)


def test_the_overview_streams_a_line_each_second(shared_busybox: Any, quiet: Any) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(shared_busybox.socket))
        connection.sendall(b"GET /logd/stats?stream=1 HTTP/1.0\r\nHost: d\r\n\r\n")
        lines = connection.makefile("rb")
        while lines.readline().strip():
            pass
        first, second = (json.loads(lines.readline()) for _ in range(2))
    assert second["time_ns"] - first["time_ns"] > 0.5e9
    assert second["system_cpu_ns"] > first["system_cpu_ns"] > 0


def test_logd_stats_and_top_show_what_docker_shows(shared_busybox: Any, quiet: Any, busy: Any) -> None:
    asked = shared_busybox.docker_popen("stats", "--no-stream", "--format", "json", "quiet", stdout=-1)
    row = json.loads(shared_busybox.logd("stats", "--no-stream", "--format", "json", "quiet").stdout)
    of_docker = json.loads(asked.communicate(timeout=30)[0])
    assert {**row, "CPUPerc": "", "Container": ""} == {**of_docker, "CPUPerc": "", "Container": ""}
    shown = shared_busybox.logd("top", "--once", "-d", "0.2", "-a").stdout.splitlines()
    assert shown[1].split()[0] == "busy"

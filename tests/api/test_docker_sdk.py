"""The docker SDK for Python on a real daemon."""

import contextlib
import datetime
import io
import struct
import threading
import time

import docker
import docker.errors
import pytest
from python_sdk import LEAVES_SOCKETS

pytestmark = LEAVES_SOCKETS


@pytest.fixture
def run(client, containers):
    """Start a container in the background, which goes with the test."""

    def start(script, **options):
        container = client.containers.run("busybox", ["sh", "-c", script], detach=True, **options)
        containers.append(container)
        return container

    return start


@pytest.fixture
def printed(run):
    """Return a container that has printed and ended."""

    def start(script, **options):
        container = run(script, **options)
        container.wait(timeout=30)
        return container

    return start


def test_ping_version_and_info_answer_what_the_sdk_reads(client):
    assert client.ping() is True
    version = client.version()
    assert (version["ApiVersion"], version["MinAPIVersion"], version["Os"]) == ("1.47", "1.24", "linux")
    assert version["Components"][0]["Name"] == "Engine"
    info = client.info()
    assert info["ServerVersion"] == version["Version"]
    assert info["LoggingDriver"] == "local"
    assert {"json-file", "local", "syslog", "journald"} <= set(info["Plugins"]["Log"])
    assert info["MemTotal"] > 1 << 20
    assert info["Containers"] == len(client.containers.list(all=True))


def test_wait_tells_why_a_start_failed(client, run):
    container = client.containers.create("busybox", ["nothing-of-the-kind"])
    try:
        assert container.wait(timeout=5) == {"StatusCode": 0}
        with pytest.raises(docker.errors.APIError):
            container.start()
        result = container.wait(timeout=5)
        assert result["StatusCode"] == 127
        assert "executable file not found in $PATH" in result["Error"]["Message"]
    finally:
        container.remove()


def test_the_disk_usage_has_images_as_the_clients_version_knows_them(client, shared_busybox):
    assert "VirtualSize" not in client.df()["Images"][0]
    with contextlib.closing(docker.DockerClient(base_url=shared_busybox.host, version="1.41")) as older:
        (image, *_) = older.df()["Images"]
    assert image["VirtualSize"] == image["Size"] > 0


def test_fields_that_a_version_does_not_have_count_for_nothing(client, shared_busybox):
    body = {"Image": "busybox", "HostConfig": {"KernelMemory": 1 << 24, "Annotations": {"a": "b"}}}
    mount = {"Type": "bind", "Source": "/tmp", "Target": "/b", "TmpfsOptions": {"SizeBytes": 5}}
    made = client.api._result(client.api._post_json(client.api._url("/containers/create"), data=body), True)
    assert client.api.inspect_container(made["Id"])["HostConfig"]["Annotations"] == {"a": "b"}
    client.api.remove_container(made["Id"])
    with contextlib.closing(docker.DockerClient(base_url=shared_busybox.host, version="1.41")) as older:
        body["HostConfig"] = {"Annotations": {"a": "b"}, "ConsoleSize": [5, 6], "Mounts": [mount]}
        made = older.api._result(older.api._post_json(older.api._url("/containers/create"), data=body), True)
        shown = older.api.inspect_container(made["Id"])["HostConfig"]
        older.api.remove_container(made["Id"])
    assert "Annotations" not in shown
    assert shown["ConsoleSize"] == [0, 0]


def test_run_waits_for_the_end_and_an_exit_code_is_an_error(client):
    # of other drivers than json-file and journald the SDK does not return the output, with dockerd neither
    assert client.containers.run("busybox", ["echo", "hello"], remove=True) is None
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert (caught.value.exit_status, caught.value.stderr) == (3, b"bad\n")


def test_an_unknown_image_is_refused_in_dockers_words(client):
    with pytest.raises(docker.errors.ImageNotFound, match="No such image: nothing:latest"):
        client.api.create_container("nothing")
    with pytest.raises(docker.errors.APIError, match="connection refused"):
        client.images.pull("127.0.0.1:9/nothing", tag="latest")


def test_inspect_and_list_have_dockers_fields(client, printed):
    container = printed("exit 4", name="sdk-inspect", labels={"purpose": "sdk"}, environment={"A": "b"})
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 4
    assert container.status == "exited"
    assert container.name == "sdk-inspect"
    assert "A=b" in container.attrs["Config"]["Env"]
    assert container.image.tags == ["busybox:latest"]
    (item,) = client.api.containers(all=True, filters={"label": "purpose=sdk"})
    assert (item["State"], item["Names"], item["Image"]) == ("exited", ["/sdk-inspect"], "busybox")
    assert client.api.containers(filters={"label": "purpose=sdk"}) == []


def test_logs_give_all_that_was_printed_and_each_stream_by_itself(printed):
    container = printed("echo one; sleep 0.05; echo two >&2; sleep 0.05; printf three")
    assert container.logs() == b"one\ntwo\nthree"
    assert container.logs(stdout=False) == b"two\n"
    assert container.logs(stderr=False) == b"one\nthree"


def test_an_iterated_log_gives_a_line_a_frame(printed):
    container = printed("seq 1 100")
    assert list(container.logs(stream=True)) == [b"%d\n" % number for number in range(1, 101)]


@pytest.mark.parametrize(
    ("tail", "expected"),
    [(0, b""), (2, b"9\n10\n"), (99, None), ("all", None), (-1, None), ("many", None)],
)
def test_tail_counts_lines(printed, tail, expected):
    container = printed("seq 1 10")
    everything = b"".join(b"%d\n" % number for number in range(1, 11))
    assert container.logs(tail=tail) == (everything if expected is None else expected)


def test_timestamps_have_nine_digits_and_each_parses(printed):
    lines = printed("seq 1 5").logs(timestamps=True).splitlines()
    assert len(lines) == 5
    for line in lines:
        assert line[19:20] == b"."
        assert line[29:31] == b"Z "
        datetime.datetime.fromisoformat(line[:26].decode())


def test_since_and_until_take_ints_floats_and_datetimes(printed):
    container = printed("echo early; sleep 1.2; echo late")
    first, second = (line.split(b" ")[0].decode() for line in container.logs(timestamps=True).splitlines())
    middle = (_seconds(first) + _seconds(second)) / 2
    assert container.logs(since=middle) == b"late\n"
    assert container.logs(until=middle) == b"early\n"
    assert container.logs(since=int(_seconds(second)) + 3600) == b""
    moment = datetime.datetime.fromtimestamp(time.time() + 3600, datetime.UTC).replace(tzinfo=None)
    assert container.logs(until=moment) == b"early\nlate\n"


def _seconds(text):
    return datetime.datetime.fromisoformat(text[:26]).replace(tzinfo=datetime.UTC).timestamp()


def test_a_follower_sees_everything_and_the_containers_end(run):
    container = run("for i in 1 2 3 4 5; do echo $i; sleep 0.1; done; printf end")
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n4\n5\nend"


def test_a_follower_with_tail_nought_sees_only_what_comes(run):
    container = run("echo before; sleep 1; echo after")
    time.sleep(0.4)
    assert b"".join(container.logs(stream=True, follow=True, tail=0)) == b"after\n"


def test_a_follow_of_an_ended_container_returns_at_once(printed):
    container = printed("echo done")
    assert b"".join(container.logs(stream=True, follow=True)) == b"done\n"


def test_a_follow_ends_when_until_has_come(run):
    container = run("while :; do echo x; sleep 0.2; done")
    began = time.monotonic()
    assert set(container.logs(stream=True, follow=True, until=time.time() + 1)) == {b"x\n"}
    assert time.monotonic() - began < 5


def test_a_follow_can_be_cancelled(run):
    stream = run("echo here; sleep 60").logs(stream=True, follow=True)
    threading.Timer(0.5, stream.close).start()
    assert list(stream) == [b"here\n"]


def test_a_container_that_has_never_started_has_an_empty_log(client):
    container = client.containers.create("busybox", ["true"])
    try:
        assert container.logs() == b""
        assert b"".join(container.logs(stream=True, follow=True)) == b""
    finally:
        container.remove()


def test_a_log_spans_the_runs_of_a_container(client, run):
    container = run("echo run")
    container.wait(timeout=30)
    container.start()
    container.wait(timeout=30)
    assert container.logs() == b"run\nrun\n"


def test_the_log_of_the_driver_none_cannot_be_read(printed):
    container = printed("echo x", log_config=docker.types.LogConfig(type="none"))
    with pytest.raises(docker.errors.APIError, match="configured logging driver does not support reading") as caught:
        container.logs()
    assert caught.value.status_code == 501


def test_attach_gives_what_comes_and_takes_input_to_its_end(client):
    container = client.containers.create("busybox", ["cat"], stdin_open=True)
    try:
        holder = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        sock = holder._sock
        container.start()
        sock.sendall(b"to and fro\n")
        header = _exactly(sock, 8)
        assert struct.unpack(">BxxxI", header) == (1, 11)
        assert _exactly(sock, 11) == b"to and fro\n"
        holder.close()
    finally:
        container.remove(force=True)


def _exactly(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, f"the stream ended after {data!r}"
        data += piece
    return data


def test_attach_with_logs_replays_what_was_printed(run):
    container = run("echo before; sleep 1.5; echo after")
    time.sleep(0.5)
    assert b"".join(container.attach(stream=True, logs=True)) == b"before\nafter\n"


def test_wait_has_conditions_and_a_removed_container_is_reported(client, run):
    container = run("sleep 2; exit 7")
    assert container.wait(condition="next-exit", timeout=30) == {"StatusCode": 7}
    assert container.wait(timeout=30) == {"StatusCode": 7}
    seen = []
    waiting = threading.Thread(target=lambda: seen.append(container.wait(condition="removed", timeout=30)))
    waiting.start()
    time.sleep(0.3)
    container.remove()
    waiting.join(10)
    assert seen == [{"StatusCode": 7}]
    with pytest.raises(docker.errors.APIError, match='invalid condition: "never"'):
        run("true").wait(condition="never")


def test_kill_stop_restart_and_rename(client, run):
    container = run("trap 'exit 9' TERM; while :; do sleep 0.1; done", name="sdk-before")
    container.rename("sdk-after")
    assert client.containers.get("sdk-after").id == container.id
    container.stop(timeout=10)
    assert container.wait(timeout=30)["StatusCode"] == 9
    container.restart(timeout=0)
    container.reload()
    assert container.status == "running"
    container.kill()
    assert container.wait(timeout=30)["StatusCode"] == 137
    with pytest.raises(docker.errors.APIError, match="is not running") as caught:
        container.kill()
    assert caught.value.status_code == 409


def test_top_lists_the_processes(run):
    container = run("sleep 600; true")
    time.sleep(0.3)
    table = container.top()
    assert "PID" in table["Titles"]
    assert any("sleep 600" in process[-1] for process in table["Processes"])


def test_events_tell_the_life_of_a_container(client, run):
    since = time.time()
    container = run("exit 5", labels={"watch": "me"})
    container.wait(timeout=30)
    container.remove()
    events = list(client.events(since=since, until=time.time() + 1, filters={"container": container.id}, decode=True))
    assert [event["Action"] for event in events] == ["create", "start", "die", "destroy"]
    die = events[2]
    assert die["Actor"]["Attributes"]["exitCode"] == "5"
    assert die["Actor"]["Attributes"]["watch"] == "me"
    assert (die["status"], die["id"], die["from"], die["Type"]) == ("die", container.id, "busybox", "container")


def test_images_are_imported_tagged_listed_and_removed(client, busybox_tar):
    client.api.import_image_from_data(busybox_tar, repository="sdk/imported", tag="1", changes=["ENV A=b"])
    image = client.images.get("sdk/imported:1")
    assert image.attrs["Config"]["Env"] == ["A=b"]
    assert image.tag("sdk/other", tag="2")
    image.reload()
    assert sorted(image.tags) == ["sdk/imported:1", "sdk/other:2"]
    assert image.history()[0]["Comment"].startswith("Imported from")
    assert image.id in {one.id for one in client.images.list()}
    client.images.remove("sdk/imported:1")
    client.images.remove("sdk/other:2")
    with pytest.raises(docker.errors.ImageNotFound, match="No such image: sdk/imported:1"):
        client.images.get("sdk/imported:1")


def test_a_bad_archive_is_an_error_in_words(client):
    with pytest.raises((docker.errors.APIError, docker.errors.ImageLoadError)):
        client.images.load(io.BytesIO(b"this is no archive" * 100))


def test_networks_and_volumes_are_listed_and_made(client):
    assert {network.name for network in client.networks.list()} >= {"bridge", "none", "host"}
    assert isinstance(client.volumes.list(), list)
    new = client.networks.create("new", labels={"of": "sdk"})
    assert client.networks.list(filters={"label": "of=sdk"})[0].attrs["Driver"] == "bridge"
    new.remove()
    with pytest.raises(docker.errors.NotFound):
        client.networks.get("new")


def test_prune_removes_what_does_not_run(client, printed, run):
    ended = printed("true", labels={"prune": "sdk"})
    running = run("sleep 600", labels={"prune": "sdk"})
    report = client.containers.prune(filters={"label": "prune=sdk"})
    assert report["ContainersDeleted"] == [ended.id]
    running.reload()
    assert running.status == "running"

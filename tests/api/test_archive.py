"""docker cp, diff, export and commit, by the docker command line and its SDK, on a real daemon."""

import base64
import contextlib
import io
import json
import os
import subprocess
import tarfile
import time

import docker
import docker.errors
import pytest
from python_sdk import LEAVES_SOCKETS

pytestmark = LEAVES_SOCKETS


@pytest.fixture
def make(client, containers):
    """Make a container that runs `script` once it is started; it goes with the test."""

    def create(script="sleep 600", **options):
        options = {"network_mode": "none", "stop_signal": "SIGKILL", **options}
        containers.append(client.containers.create("busybox", ["sh", "-c", script], **options))
        return containers[-1]

    return create


def pack(**files):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def unpack(chunks):
    return tarfile.open(fileobj=io.BytesIO(b"".join(chunks)))


def actions(daemon, since, container):
    asked = ("events", "--since", str(since), "--until", str(time.time()), "--filter", f"container={container.id}")
    return daemon.docker(*asked, "--format", "{{.Action}}").stdout.split()


@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
def test_a_folder_comes_back_from_a_container_as_it_was_put_in(shared_busybox, make, tmp_path, running):
    container = make()
    if running:
        container.start()
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep/file").write_text("content")
    (source / "deep/file").chmod(0o751)
    os.symlink("../deep/file", source / "deep/link")
    since = time.time()
    shared_busybox.docker("cp", str(source), f"{container.name}:/srv")
    shared_busybox.docker("cp", str(source / "deep/file"), f"{container.name}:/srv/deep/second")
    shared_busybox.docker("cp", f"{container.name}:/srv/.", str(tmp_path / "back"))
    back = tmp_path / "back"
    assert (back / "deep/file").read_text() == (back / "deep/second").read_text() == "content"
    assert (back / "deep/file").stat().st_mode & 0o777 == 0o751
    assert os.readlink(back / "deep/link") == "../deep/file"
    assert {"extract-to-dir", "archive-path"} <= set(actions(shared_busybox, since, container))
    if running:
        assert container.exec_run(["cat", "/srv/deep/link"]).output == b"content"
    else:
        assert not [mount for mount in shared_busybox.mounts() if container.id in mount]


def test_volumes_and_binds_are_seen_and_what_is_read_only_stays_so(client, make, tmp_path):
    bound = tmp_path / "bound"
    bound.mkdir()
    (bound / "f").write_text("of the host")
    volumes = [f"{bound}:/bound", f"{bound}:/fixed:ro", "archive-data:/data"]
    container = make(volumes=volumes, read_only=True)
    container.put_archive("/data", pack(f=b"in the volume"))
    container.put_archive("/bound", pack(g=b"put there"))
    assert (bound / "g").read_text() == "put there"
    assert unpack(container.get_archive("/fixed/f")[0]).extractfile("f").read() == b"of the host"
    for path, words in (
        ("/fixed", "mounted volume is marked read-only"),
        ("/tmp", "container rootfs is marked read-only"),
    ):
        with pytest.raises(docker.errors.APIError, match=words) as caught:
            container.put_archive(path, pack(f=b"x"))
        assert caught.value.status_code == 400
    other = make(volumes=["archive-data:/elsewhere"])
    assert unpack(other.get_archive("/elsewhere")[0]).getnames() == ["elsewhere", "elsewhere/f"]
    for one in (container, other):
        one.remove(v=True)
    client.volumes.get("archive-data").remove()


def test_what_is_not_there_or_no_folder_is_told_in_dockerds_words(make):
    container = make()
    for path in ("/nosuch", "/etc/nosuch/x"):
        with pytest.raises(docker.errors.NotFound, match=f"Could not find the file {path} in container {container.id}"):
            container.get_archive(path)
        with pytest.raises(docker.errors.NotFound, match="Could not find the file"):
            container.put_archive(path, pack(f=b"x"))
    for path, words in (("/etc/passwd", "extraction point is not a directory"), ("", "path cannot be empty")):
        with pytest.raises(docker.errors.APIError, match=words) as caught:
            container.put_archive(path, pack(f=b"x"))
        assert caught.value.status_code == 400
    with pytest.raises(docker.errors.APIError, match="lstat /etc/passwd/: not a directory"):
        container.get_archive("/etc/passwd/")
    with pytest.raises(docker.errors.APIError, match="invalid tar header"):
        container.put_archive("/etc", b"no tar" * 200)


def test_the_header_says_what_a_path_is(client, make):
    container = make(
        "mkdir /d; chmod 1777 /d; ln -s ../../etc/passwd /d/l; touch -t 202001010000 /d/f; chmod 4755 /d/f"
    )
    container.start()
    container.wait(timeout=30)

    def stat(path):
        response = client.api.head(client.api._url("/containers/{0}/archive", container.id), params={"path": path})
        return json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"]))

    expected = {"name": "f", "size": 0, "mode": 0x8001ED, "mtime": "2020-01-01T00:00:00Z", "linkTarget": ""}
    assert stat("/d/f") == expected
    assert (stat("/d")["name"], stat("/d")["mode"]) == ("d", 0x801001FF)
    assert (stat("/d/l")["mode"], stat("/d/l")["linkTarget"]) == (0x80001FF, "/etc/passwd")
    assert [stat(path)["name"] for path in ("/", "/d/.", "/d/", "d")] == ["/", ".", "d", "d"]


def test_a_link_that_is_swapped_meanwhile_leads_nowhere_outside(make, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("outside")
    container = make(
        f"mkdir /safe; echo inside >/safe/secret; ln -s {outside} /bad; cp -r /safe /t;"
        "while :; do mv /t /a; mv /bad /t; mv /t /bad; mv /a /t; done"
    )
    container.start()
    read = set()
    for _ in range(6):
        for path in ("/t/secret", "/t/.", "/t"):
            with contextlib.suppress(docker.errors.APIError):
                archive = unpack(container.get_archive(path)[0])
                read |= {archive.extractfile(member).read() for member in archive if member.isfile()}
        with contextlib.suppress(docker.errors.APIError):
            container.put_archive("/t", pack(planted=b"x", **{"t/planted": b"x"}))
    assert b"inside\n" in read
    assert b"outside" not in read
    assert os.listdir(outside) == ["secret"]


def test_diff_lists_what_was_added_changed_and_deleted(make):
    container = make(
        "echo x >>/etc/passwd; rm /etc/group; rm -r /var/spool; mkdir /var/spool; echo n >/var/spool/new; touch /tmp/t;"
        "rm /tmp/t; mkdir -p /new/d; echo 1 >/new/d/f; rm -r /usr/sbin; chmod 700 /home; rm -r /var/tmp; echo >/var/tmp"
    )
    assert container.diff() is None
    container.start()
    container.wait(timeout=30)
    found = {f"{'CAD'[change['Kind']]} {change['Path']}" for change in container.diff()}
    assert found == {  # what dockerd lists after the same steps
        *("A /new", "A /new/d", "A /new/d/f", "A /var/spool/new"),
        *("C /etc", "C /etc/passwd", "C /home", "C /usr", "C /var", "C /var/spool", "C /var/tmp"),
        *("D /etc/group", "D /usr/sbin", "D /var/spool/mail"),
    }


def test_an_exported_root_is_whole_and_can_be_imported_and_run(shared_busybox, make):
    container = make("echo kept >/kept; rm /etc/group")
    container.start()
    container.wait(timeout=30)
    data = b"".join(container.export())
    names = unpack([data]).getnames()
    assert {"kept", "bin/busybox", "etc/passwd"} <= set(names)
    assert "etc/group" not in names
    shared_busybox.docker("import", "-", "exported:1", stdin=data, text=False)
    assert shared_busybox.docker("run", "--rm", "--network", "none", "exported:1", "cat", "/kept").stdout == "kept\n"


def test_a_committed_image_has_the_containers_files_and_settings(shared_busybox, make):
    container = make(
        "echo kept >/kept; rm /etc/group; rm -r /var/spool; mkdir /var/spool; ln -s ../../../x /odd; mkfifo /fifo;"
        "chown 7:8 /kept; sleep 600",
        environment=["A=1"],
        working_dir="/tmp",
    )
    container.start()
    deadline = time.monotonic() + 30
    while container.exec_run(["test", "-p", "/fifo"]).exit_code:
        assert time.monotonic() < deadline
    since = time.time()
    options = ("--author", "me", "--message", "why", "--change", 'CMD ["stat","-c","%u %g","/kept"]', "-c", "ENV B=2")
    shared_busybox.docker("commit", *options, container.name, "made:1")
    said = actions(shared_busybox, since, container)
    assert [action for action in said if action in {"pause", "unpause", "commit"}] == ["pause", "unpause", "commit"]
    container.reload()
    assert container.status == "running"

    shown = json.loads(shared_busybox.docker("image", "inspect", "made:1").stdout)[0]
    assert (shown["Author"], shown["Comment"], len(shown["RootFS"]["Layers"])) == ("me", "why", 2)
    assert (shown["Config"]["Env"], shown["Config"]["WorkingDir"]) == (["A=1", "B=2"], "/tmp")
    assert shown["Parent"] == json.loads(shared_busybox.docker("image", "inspect", "busybox").stdout)[0]["Id"]
    assert shared_busybox.docker("run", "--rm", "--network", "none", "made:1").stdout == "7 8\n"
    script = "cat /kept; readlink /odd; ls /var/spool /etc/group; test -p /fifo && echo fifo"
    done = shared_busybox.docker("run", "--rm", "--network", "none", "made:1", "sh", "-c", script, check=False)
    assert done.stdout == "kept\n../../../x\n/var/spool:\nfifo\n"
    assert "/etc/group: No such file" in done.stderr


def test_a_commit_of_nothing_adds_no_layer_and_a_bad_one_is_refused(client, make):
    container = make()
    image = container.commit("made", "empty", changes=["LABEL a=b", 'ENTRYPOINT ["echo"]'])
    assert (image.labels, len(image.attrs["RootFS"]["Layers"])) == ({"a": "b"}, 1)
    assert image.attrs["Config"]["Cmd"] is None
    assert image.history()[0]["Size"] == 0
    for options, words in (
        ({"repository": "UPPER"}, "must be lowercase"),
        ({"changes": "RUN x"}, "not a valid change"),
    ):
        with pytest.raises(docker.errors.APIError, match=words) as caught:
            container.commit(**options)
        assert caught.value.status_code == 400
    with pytest.raises(docker.errors.NotFound, match="No such container: nosuch"):
        client.api.commit("nosuch")


def test_a_container_whose_commit_ended_with_the_daemon_goes_on(shared_busybox, make):
    container = make("dd if=/dev/zero of=/big bs=1M count=256 2>/dev/null; touch /ready; sleep 600")
    container.start()
    deadline = time.monotonic() + 60
    while container.exec_run(["test", "-e", "/ready"]).exit_code:
        assert time.monotonic() < deadline
    with shared_busybox.docker_popen("commit", container.name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        while container.status != "paused":
            assert time.monotonic() < deadline
            container.reload()
        shared_busybox.kill()
    shared_busybox.start()
    container.reload()
    assert container.status == "running"
    assert container.exec_run(["echo", "on"]).output == b"on\n"

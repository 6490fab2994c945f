"""Volumes and mounts by the unmodified docker command line and SDK on a real daemon."""

import io
import json
import os
import subprocess
import tarfile
import threading
import time

import docker as sdk
import pytest
from docker.types import DriverConfig, Mount
from python_sdk import LEAVES_SOCKETS

pytestmark = LEAVES_SOCKETS


@pytest.fixture
def docker(shared_busybox):
    return shared_busybox.docker


@pytest.fixture(autouse=True)
def without_leftovers(shared_busybox):
    """Remove what a test made; nothing may stay mounted and no folder half made."""
    yield
    docker = shared_busybox.docker
    if containers := docker("ps", "-aq").stdout.split():
        docker("rm", "-fv", *containers)
    if volumes := docker("volume", "ls", "-q").stdout.split():
        docker("volume", "rm", *volumes)
    assert os.listdir(shared_busybox.data_root / "volumes") == []
    wait_for(lambda: shared_busybox.mounts() == [])


@pytest.fixture
def sh(docker):
    """Run a script in a container that goes with its end, and return what it prints."""

    def run(script, *options, check=True, image="busybox"):
        done = docker("run", "--rm", *options, image, "sh", "-c", script, check=check)
        return done.stdout if check else done

    return run


def mounts_of(docker, container):
    shown = json.loads(docker("inspect", "-f", "{{json .Mounts}}", container).stdout)
    return {mount["Destination"]: mount for mount in shown}


def refused(done):
    assert done.returncode != 0, done
    return done.stderr


def test_a_volume_is_made_shown_listed_and_removed(docker, shared_busybox):
    assert docker("volume", "create", "--label", "a=b", "--label", "c", "first").stdout == "first\n"
    assert docker("volume", "create", "first").stdout == "first\n"
    (shown,) = json.loads(docker("volume", "inspect", "first").stdout)
    assert shown.pop("CreatedAt")
    assert shown == {
        "Driver": "local",
        "Labels": {"a": "b", "c": ""},
        "Mountpoint": str(shared_busybox.data_root / "volumes" / "first" / "_data"),
        "Name": "first",
        "Options": None,
        "Scope": "local",
    }
    docker("volume", "create", "second")
    unnamed = docker("volume", "create").stdout.strip()
    assert len(unnamed) == 64

    def names(*filters):
        return docker("volume", "ls", "-q", *(word for one in filters for word in ("-f", one))).stdout.split()

    assert names() == sorted([unnamed, "first", "second"])
    assert names("label=a=b") == names("label=c") == names("name=^fi") == ["first"]
    assert names("label=com.docker.volume.anonymous") == [unnamed]
    assert names("label=a=c") == names("driver=loc") == names("dangling=false") == []
    assert names("driver=local", "dangling=true", "name=second") == ["second"]
    assert "invalid filter 'colour'" in refused(docker("volume", "ls", "-f", "colour=red", check=False))
    assert docker("volume", "rm", "first", "second").stdout == "first\nsecond\n"
    assert "no such volume" in refused(docker("volume", "rm", "first", check=False))
    assert docker("volume", "rm", "-f", "first").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["../x"], 'create ../x: "../x" includes invalid characters for a local volume name, only "[a-zA-Z0-9]'),
        (["/etc"], "includes invalid characters for a local volume name"),
        ([".new-x"], "includes invalid characters for a local volume name"),
        (["a"], "create a: volume name is too short, names should be at least two alphanumeric characters"),
        (["x" * 300], "file name too long"),
        (["-d", "nfs", "xx"], 'create xx: error looking up volume plugin nfs: plugin "nfs" not found'),
        (["--opt", "bogus=1", "xx"], 'create xx: invalid option: "bogus"'),
        (["--opt", "type=nfs", "xx"], 'create xx: missing required option: "device"'),
        (["--opt", "size=10m", "xx"], "create xx: quota size requested but no quota support"),
    ],
)
def test_a_volume_that_can_not_be_is_refused_in_dockers_words(docker, arguments, words):
    assert words in refused(docker("volume", "create", *arguments, check=False)).replace("File", "file")
    assert docker("volume", "ls", "-q").stdout == ""


def test_a_named_volume_is_shared_and_outlives_its_containers(docker, sh):
    sh("echo one >/d/file", "-v", "shared:/d")
    assert sh("cat /e/file", "-v", "shared:/e:ro") == "one\n"
    assert "Read-only file system" in sh("echo two >/d/file", "-v", "shared:/d:ro", check=False).stderr
    docker("create", "--name", "user", "-v", "shared:/d", "-v", "/own", "busybox")
    identifier = docker("inspect", "-f", "{{.Id}}", "user").stdout.strip()
    in_use = refused(docker("volume", "rm", "-f", "shared", check=False))
    assert f"remove shared: volume is in use - [{identifier}]" in in_use
    assert docker("ps", "-a", "--filter", "volume=shared", "--format", "{{.Names}}").stdout == "user\n"
    docker("rm", "-v", "user")
    assert docker("volume", "ls", "-q").stdout == "shared\n"


def test_an_empty_volume_starts_with_what_the_image_has_in_its_place_once(docker, sh, shared_busybox):
    assert "passwd" in sh("ls /etc; echo mine >/etc/passwd", "-v", "copied:/etc")
    assert sh("cat /etc/passwd", "-v", "copied:/etc") == "mine\n"
    assert "passwd" not in sh("ls /etc", "-v", "bare:/etc:nocopy")
    assert "passwd" not in sh("ls /etc", "--mount", "type=volume,source=bare2,target=/etc,volume-nocopy")
    docker("volume", "create", "filled")
    content = shared_busybox.data_root / "volumes" / "filled" / "_data"
    (content / "already").touch()
    assert "passwd" not in sh("ls /etc", "-v", "filled:/etc")
    assert (content / "already").exists()


def test_containers_made_at_once_fill_a_volume_once(docker, shared_busybox):
    started = [
        shared_busybox.docker_popen(
            "run", "-d", "-v", "race:/etc", "busybox", "cat", "/etc/passwd", stdout=subprocess.DEVNULL
        )
        for _ in range(4)
    ]
    assert [process.wait(60) for process in started] == [0] * 4
    identifiers = docker("ps", "-aq").stdout.split()
    assert docker("wait", *identifiers).stdout.split() == ["0"] * 4
    assert len({docker("logs", one).stdout for one in identifiers}) == 1
    assert os.listdir(shared_busybox.data_root / "volumes" / "race").count("_filling") == 0


def test_a_volume_in_the_place_of_a_file_is_refused_and_leaves_no_volume_without_a_name(docker):
    done = docker(
        "create", "--name", "no", "-v", "/gone", "-v", "named:/x", "-v", "own:/bin/busybox", "busybox", check=False
    )
    assert "cannot mount volume over existing file, file exists /bin/busybox" in refused(done)
    assert docker("ps", "-aq").stdout == ""
    assert docker("volume", "ls", "-q").stdout == "named\nown\n"


def test_inspect_tells_each_mount_as_docker_does(docker, shared_busybox, tmp_path):
    volumes = shared_busybox.data_root / "volumes"
    options = ["-v", "named:/d:ro", "-v", f"{tmp_path}:/h:ro,rprivate", "-v", "/anonymous", "--tmpfs", "/hidden"]
    options += ["--mount", f"type=bind,source={tmp_path},target=/b", "--mount", "type=tmpfs,target=/t,tmpfs-size=1m"]
    options += ["--mount", "type=volume,source=named,target=/m,volume-nocopy"]
    docker("create", "--name", "shown", *options, "busybox")
    mounts = mounts_of(docker, "shown")
    anonymous = mounts.pop("/anonymous")
    assert len(anonymous["Name"]) == 64
    assert anonymous["Source"] == str(volumes / anonymous["Name"] / "_data")
    assert mounts == {
        "/d": {
            "Type": "volume", "Name": "named", "Source": str(volumes / "named" / "_data"), "Destination": "/d",
            "Driver": "local", "Mode": "ro", "RW": False, "Propagation": "",
        },
        "/m": {
            "Type": "volume", "Name": "named", "Source": str(volumes / "named" / "_data"), "Destination": "/m",
            "Driver": "local", "Mode": "z", "RW": True, "Propagation": "",
        },
        "/h": {
            "Type": "bind", "Source": str(tmp_path), "Destination": "/h", "Mode": "ro,rprivate", "RW": False,
            "Propagation": "rprivate",
        },
        "/b": {
            "Type": "bind", "Source": str(tmp_path), "Destination": "/b", "Mode": "", "RW": True,
            "Propagation": "rprivate",
        },
        "/t": {"Type": "tmpfs", "Source": "", "Destination": "/t", "Mode": "", "RW": True, "Propagation": ""},
    }  # fmt: skip
    host = json.loads(docker("inspect", "-f", "{{json .HostConfig}}", "shown").stdout)
    assert sorted(host["Binds"]) == [f"{tmp_path}:/h:ro,rprivate", "named:/d:ro"]
    assert {mount["Type"] for mount in host["Mounts"]} == {"bind", "tmpfs", "volume"}


def test_volumes_from_takes_over_volumes_and_binds_and_outlives_their_container(docker, tmp_path):
    (tmp_path / "host").write_text("host\n")
    options = ["-v", "named:/d", "-v", "/anonymous", "-v", f"{tmp_path}:/h", "--tmpfs", "/t"]
    docker("run", "--name", "giver", *options, "busybox", "sh", "-c", "echo one >/d/f; echo two >/anonymous/f")
    docker("create", "--name", "taker", "--volumes-from", "giver", "busybox", "cat", "/d/f", "/anonymous/f", "/h/host")
    docker("create", "--name", "reader", "--volumes-from", "giver:ro", "-v", "other:/d", "busybox")
    given, taken, read = (mounts_of(docker, name) for name in ("giver", "taker", "reader"))
    assert set(taken) == {"/d", "/anonymous", "/h"}
    assert {place: mount["Name"] for place, mount in taken.items() if "Name" in mount} == {
        "/d": "named",
        "/anonymous": given["/anonymous"]["Name"],
    }
    assert (read["/d"]["Name"], read["/d"]["RW"], read["/h"]["RW"], read["/anonymous"]["RW"]) == (
        "other",
        True,
        False,
        False,
    )
    docker("rm", "reader")
    docker("rm", "-v", "giver")  # its volume without a name has another user
    assert given["/anonymous"]["Name"] in docker("volume", "ls", "-q").stdout
    assert docker("start", "-a", "taker").stdout == "one\ntwo\nhost\n"
    docker("rm", "-v", "taker")
    assert docker("volume", "ls", "-q").stdout == "named\nother\n"


@pytest.mark.parametrize(
    ("text", "words"), [("nobody", "No such container: nobody"), ("nobody:bogus", "invalid mode: bogus")]
)
def test_volumes_from_what_is_not_there_is_refused(docker, text, words):
    assert words in refused(docker("create", "--volumes-from", text, "busybox", check=False))


def test_a_missing_folder_of_the_host_is_made_for_v_and_refused_for_mount(docker, sh, tmp_path):
    sh("touch /x/made", "-v", f"{tmp_path}/new/folder:/x")
    assert (tmp_path / "new" / "folder" / "made").exists()
    done = docker("create", "--mount", f"type=bind,source={tmp_path}/missing,target=/x", "busybox", check=False)
    assert f'invalid mount config for type "bind": bind source path does not exist: {tmp_path}/missing' in refused(done)
    assert not (tmp_path / "missing").exists()


def test_mounts_lie_on_each_other_by_depth_and_a_read_only_root_has_writable_volumes(sh, tmp_path):
    (tmp_path / "file").write_text("deep\n")
    options = ["-v", f"{tmp_path}/file:/a/b/f", "-v", "inner:/a/b", "-v", "outer:/a"]
    assert sh("ls /a; cat /a/b/f", *options) == "b\ndeep\n"
    done = sh("touch /a/ok && ls /a; touch /no", "--read-only", "-v", "fresh:/a", check=False)
    assert done.stdout == "ok\n"
    assert "/no: Read-only file system" in done.stderr


def test_a_volume_with_options_is_mounted_once_while_containers_use_it(docker, sh, shared_busybox, tmp_path):
    docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,uid=1000", "ram")
    data = str(shared_busybox.data_root / "volumes" / "ram" / "_data")
    docker("run", "-d", "--name", "holder", "-v", "ram:/d", "busybox", "sh", "-c", "echo one >/d/f; exec sleep 600")
    assert "size=1024k,uid=1000" in sh("grep ' /d ' /proc/mounts; until cat /d/f; do :; done", "-v", "ram:/d")
    assert [one for one in shared_busybox.mounts() if one == data] == [data]
    docker("rm", "-f", "holder")
    wait_for(lambda: data not in shared_busybox.mounts())
    assert sh("ls /d", "-v", "ram:/d") == ""  # what was in memory is gone

    (tmp_path / "kept").write_text("host\n")
    options = ["--opt", "type=none", "--opt", "o=bind", "--opt", f"device={tmp_path}"]
    docker("volume", "create", *options, "bound")
    assert sh("cat /d/kept", "-v", "bound:/d") == "host\n"
    docker("volume", "rm", "bound")
    assert (tmp_path / "kept").exists()


def test_what_a_volumes_options_can_not_mount_fails_the_start_with_the_systems_reason(docker):
    options = ["volume-opt=type=none", "volume-opt=o=bind", "volume-opt=device=/nowhere", "volume-label=a=b"]
    mount = ",".join(["type=volume", "source=lost", "target=/d", *options])
    done = docker("run", "--name", "failed", "--mount", mount, "busybox", check=False)
    assert "failed to mount local volume: mount /nowhere:" in refused(done)
    assert "flags: 0x1000: no such file or directory" in done.stderr
    assert docker("volume", "inspect", "-f", "{{json .Labels}} {{.Options.type}}", "lost").stdout == '{"a":"b"} none\n'


def test_a_part_of_a_volume_is_mounted_and_nothing_beside_it(docker, sh, shared_busybox):
    sh(
        "mkdir -p /d/part/deep; echo in >/d/part/deep/f; echo file >/d/file; ln -s /etc /d/link; ln -s part /d/inside",
        "-v",
        "big:/d",
    )

    def part(subpath, more=""):
        return ["--mount", f"type=volume,source=big,target=/d,volume-subpath={subpath}{more}"]

    assert sh("cat /d/f; ls /d", *part("part/deep")) == "in\nf\n"
    assert sh("cat /d/deep/f", *part("inside", ",readonly")) == "in\n"
    assert sh("cat /d", *part("file")) == "file\n"
    assert "path concatenation escapes the base directory" in refused(sh("ls /d", *part("link"), check=False))
    assert "cannot access path" in refused(sh("ls /d", *part("missing"), check=False))
    for subpath in ("../../etc", "/etc", "part/../../x"):
        done = docker("create", *part(subpath), "busybox", check=False)
        assert "subpath must be a relative path within the volume" in refused(done)
    wait_for(lambda: os.listdir(shared_busybox.exec_root / "subpaths") == [])


def test_links_of_an_image_or_a_volume_lead_no_mount_out_of_the_containers_root(docker, sh, busybox_tar, tmp_path):
    """Destinations below links: the runtime follows them inside the root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    with tarfile.open(fileobj=io.BytesIO(busybox_tar)) as base, io.BytesIO() as changed:
        with tarfile.open(fileobj=changed, mode="w") as image:
            for entry in base:
                image.addfile(entry, base.extractfile(entry) if entry.isreg() else None)
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, str(outside)
            image.addfile(link)
        docker("import", "-", "linked:latest", stdin=changed.getvalue(), text=False)
    options = ["-v", "below:/link/made", "-v", f"{tmp_path}:/link/bound:ro"]
    assert sh("touch /link/made/here && ls /link", *options, image="linked") == "bound\nmade\n"
    up = "../" * 12
    sh(f"ln -s {up}{outside} /o/up; ln -s {outside} /o/away", "-v", "outer:/o")
    options = ["-v", "outer:/o", "-v", "below:/o/up/made", "-v", "below:/o/away/made2"]
    assert sh(f"ls {outside}", *options) == "made\nmade2\n"
    assert os.listdir(outside) == []
    docker("rmi", "linked:latest")


def test_a_propagation_that_the_hosts_mount_can_not_give_is_refused_in_dockers_words(sh, tmp_path):
    point = tmp_path / "own"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], check=True)
    try:
        subprocess.run(["mount", "--make-private", point], check=True)
        done = sh("true", "-v", f"{point}:/x:rshared", check=False)
        assert f"path {point} is mounted on {point} but it is not a shared mount" in refused(done)
        mount = f"type=bind,source={point},target=/x,bind-propagation=slave"
        done = sh("true", "--mount", mount, check=False)
        assert f"path {point} is mounted on {point} but it is not a shared or slave mount" in refused(done)
    finally:
        subprocess.run(["umount", "--lazy", point], check=True)


def test_what_the_host_mounts_later_comes_into_a_container_that_follows(docker, tmp_path):
    point = tmp_path / "own"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], check=True)
    try:
        subprocess.run(["mount", "--make-shared", point], check=True)
        (point / "later").mkdir()
        wait = "until [ -e /x/later/seen ]; do sleep 0.05; done; grep -c ' /x/later ' /proc/mounts"
        docker("run", "-d", "--name", "slave", "-v", f"{point}:/x:rslave", "busybox", "sh", "-c", wait)
        assert mounts_of(docker, "slave")["/x"]["Propagation"] == "rslave"
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point / "later"], check=True)
        (point / "later" / "seen").touch()
        assert docker("wait", "slave").stdout == "0\n"
        assert docker("logs", "slave").stdout == "1\n"
    finally:
        subprocess.run(["umount", "--lazy", "--recursive", point], check=True)


def test_a_container_that_sees_the_data_root_does_not_keep_what_is_unmounted_there(docker, shared_busybox):
    folder = shared_busybox.folder
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "--make-shared", folder], check=True)
        docker("run", "-d", "--name", "seen", "busybox", "sleep", "600")
        rootfs = docker("inspect", "-f", "{{.GraphDriver.Data.MergedDir}}", "seen").stdout.strip()
        options = ["-v", f"{folder}:/host:ro", "-v", f"{folder}:/own:ro,rprivate"]
        docker("run", "-d", "--name", "watcher", *options, "busybox", "sleep", "600")
        mounts = mounts_of(docker, "watcher")
        assert (mounts["/host"]["Propagation"], mounts["/own"]["Propagation"]) == ("rslave", "rprivate")
        pid = docker("inspect", "-f", "{{.State.Pid}}", "watcher").stdout.strip()
        below = os.path.relpath(rootfs, folder)

        def is_seen(place):
            with open(f"/proc/{pid}/mountinfo") as file:
                return f" /{place}/{below} " in file.read()

        assert is_seen("host")
        docker("rm", "-f", "seen")
        wait_for(lambda: not is_seen("host"))
        docker("rm", "-f", "watcher")
    finally:
        subprocess.run(["umount", "--lazy", "--recursive", folder], check=True)


def test_prune_removes_volumes_without_a_name_and_all_if_asked(docker, sh, client):
    docker("volume", "create", "--label", "keep", "kept")
    docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "ram")
    sh("echo 123456 >/d/f", "-v", "named:/d")
    unnamed = docker("volume", "create").stdout.strip()
    docker("create", "-v", "/used", "busybox")
    assert docker("volume", "prune", "-f").stdout.split()[2] == unnamed
    report = client.volumes.prune(filters={"all": ["true"], "label!": ["keep"]})
    assert report == {"VolumesDeleted": ["named"], "SpaceReclaimed": 7}
    docker("volume", "prune", "-af")
    assert docker("volume", "ls", "-q", "-f", "dangling=true").stdout == "ram\n"
    assert len(docker("volume", "ls", "-q").stdout.split()) == 2


def test_prune_of_an_older_client_takes_volumes_with_a_name_too(docker, shared_busybox):
    docker("volume", "create", "named")
    environment = {**shared_busybox.environment, "DOCKER_API_VERSION": "1.41"}
    done = subprocess.run(
        ["docker", "volume", "prune", "-f"], check=True, env=environment, capture_output=True, text=True, timeout=60
    )
    assert "named" in done.stdout


def test_the_sdk_makes_mounts_and_removes_volumes(client):
    volume = client.volumes.create("sdk", driver_opts={"type": "tmpfs", "device": "tmpfs"}, labels={"a": "b"})
    assert (volume.attrs["Labels"], volume.attrs["Options"]["type"]) == ({"a": "b"}, "tmpfs")
    assert [one.name for one in client.volumes.list(filters={"label": "a=b"})] == ["sdk"]
    mounts = [
        Mount("/d", "sdk", read_only=True),
        Mount("/m", "made", labels={"c": "d"}, driver_config=DriverConfig("local"), no_copy=True),
        Mount("/t", None, type="tmpfs", tmpfs_size=1 << 20, tmpfs_mode=0o700),
    ]
    script = "awk '$2 ~ /^.[dmt]$/ {print $2, $3, substr($4, 1, 2)}' /proc/mounts | sort; touch /m/x"
    output = client.containers.run("busybox", ["sh", "-c", script], mounts=mounts, log_config={"type": "json-file"})
    lines = [line.split() for line in output.decode().splitlines()]
    assert [(place, mode) for place, _, mode in lines] == [("/d", "ro"), ("/m", "rw"), ("/t", "rw")]
    assert [kind for place, kind, _ in lines if place != "/m"] == ["tmpfs", "tmpfs"]
    assert client.volumes.get("made").attrs["Labels"] == {"c": "d"}
    with pytest.raises(sdk.errors.APIError, match="volume is in use") as caught:
        volume.remove()
    assert caught.value.status_code == 409
    with pytest.raises(sdk.errors.NotFound):
        client.volumes.get("nosuch")


def test_events_tell_the_life_of_a_named_volume(docker, sh):
    since = f"{time.time():.9f}"
    sh("true", "-v", "told:/d:ro")
    docker("volume", "rm", "told")
    window = ("--since", since, "--until", f"{time.time():.9f}", "--filter", "volume=told")
    events = [json.loads(line) for line in docker("events", *window, "--format", "json").stdout.splitlines()]
    assert [event["Action"] for event in events] == ["create", "mount", "unmount", "destroy"]
    attributes = events[1]["Actor"]["Attributes"]
    assert len(attributes.pop("container")) == 64
    assert attributes == {"driver": "local", "destination": "/d", "read/write": "false", "propagation": ""}


def test_the_disk_usage_counts_volumes_and_their_users(docker, client):
    docker("run", "-v", "sized:/d", "busybox", "sh", "-c", "head -c 100000 /dev/zero >/d/f")
    docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "ram")
    (volume,) = client.df()["Volumes"]
    assert (volume["Name"], volume["UsageData"]) == ("sized", {"Size": 100_000, "RefCount": 1})


def test_volumes_and_what_they_mount_survive_the_daemon_and_go_after_their_containers(make_daemon, busybox_tar):
    daemon = make_daemon().start()
    docker = daemon.docker
    docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
    docker("volume", "create", "--label", "a=b", "named")
    docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "ram")
    docker("run", "-v", "named:/d", "busybox", "sh", "-c", "mkdir /d/part; echo kept >/d/part/f")
    docker("run", "-d", "--name", "ended", "-v", "ram:/r", "busybox", "sleep", "600")
    part = ["--mount", "type=volume,source=named,target=/p,volume-subpath=part"]
    script = "until [ -e /r/go ]; do sleep 0.05; done; cat /p/f"
    docker("run", "-d", "--name", "lives", "-v", "ram:/r", "-v", "/own", *part, "busybox", "sh", "-c", script)
    pid = int(docker("inspect", "-f", "{{.State.Pid}}", "ended").stdout)
    daemon.kill()
    os.kill(pid, 9)
    daemon.start()
    assert docker("volume", "ls", "-q", "-f", "name=^(named|ram)$").stdout == "named\nram\n"
    assert docker("volume", "inspect", "-f", "{{.Labels.a}}", "named").stdout == "b\n"
    assert str(daemon.data_root / "volumes" / "ram" / "_data") in daemon.mounts()  # for the one that lives
    assert "volume is in use" in refused(docker("volume", "rm", "ram", check=False))
    assert docker("run", "--rm", "-v", "ram:/r", "busybox", "touch", "/r/go").returncode == 0
    assert docker("wait", "lives").stdout == "0\n"
    assert docker("logs", "lives").stdout == "kept\n"
    docker("rm", "-v", *docker("ps", "-aq").stdout.split())
    wait_for(lambda: daemon.mounts() == [])
    assert docker("volume", "ls", "-q").stdout == "named\nram\n"
    assert sorted(os.listdir(daemon.data_root / "volumes")) == ["named", "ram"]


def test_a_start_finds_what_an_older_logd_left_and_clears_away_what_was_cut_off(make_daemon, busybox_tar):
    daemon = make_daemon().start()
    docker, volumes, name = daemon.docker, daemon.data_root / "volumes", "ab" * 32
    docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
    identifier = docker("create", "-v", "/own", "-v", "named:/d", "busybox").stdout.strip()
    daemon.kill()
    (daemon.data_root / "containers" / identifier / "container.json").unlink()
    for folder in (f"{name}/_data", "byhand/_data", "nothing", "later/_data", ".new-half"):
        (volumes / folder).mkdir(parents=True)
    part, leftover = daemon.exec_root / "subpaths" / ("e" * 64) / "0", volumes / "byhand" / "_data"
    part.mkdir(parents=True)
    (leftover / "kept").touch()
    subprocess.run(["mount", "--bind", leftover, part], check=True)
    (volumes / "named" / "_filling").mkdir()
    (volumes / "later" / "volume.json").write_text('{"version": 9, "name": "later", "created_ns": 1}')
    daemon.start()
    assert docker("volume", "ls", "-q").stdout.split() == [name, "byhand", "named"]
    assert docker("volume", "ls", "-q", "-f", "label=com.docker.volume.anonymous").stdout.split() == [name]
    assert sorted(os.listdir(volumes)) == [name, "byhand", "later", "named", "nothing"]
    assert sorted(os.listdir(volumes / "named")) == ["_data", "volume.json"]
    assert os.listdir(daemon.exec_root / "subpaths") == []
    assert (leftover / "kept").exists()
    assert "a volume is left out" in daemon.log()
    assert refused(docker("volume", "create", "later", check=False))
    assert (volumes / "later" / "volume.json").exists()
    assert name in docker("volume", "prune", "-f").stdout


def test_a_volume_that_is_used_all_the_time_can_not_be_removed_under_its_users(docker, client):
    """Removals race against containers that are made with the volume: each finds it whole, or makes it anew."""
    done = threading.Event()
    wrong = []

    def remove():
        while not done.is_set():
            try:
                client.api.remove_volume("raced")
            except sdk.errors.NotFound:
                pass
            except sdk.errors.APIError as error:
                if error.status_code != 409:
                    wrong.append(error)

    removing = threading.Thread(target=remove)
    removing.start()
    try:
        for _ in range(8):
            assert (
                docker("run", "--rm", "-v", "raced:/etc", "busybox", "grep", "-c", "^root:", "/etc/passwd").stdout
                == "1\n"
            )
    finally:
        done.set()
        removing.join()
    assert wrong == []


def wait_for(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)

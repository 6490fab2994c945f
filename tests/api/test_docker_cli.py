"""The unmodified docker command line on a real daemon."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest


@pytest.fixture
def docker(shared_busybox):
    return shared_busybox.docker


@pytest.fixture
def container(docker):
    """Create with `docker run -d …` and return the id."""
    ids = []

    def start(*arguments, wait=True):
        ids.append(docker("run", "-d", *arguments).stdout.strip())
        if wait:
            docker("wait", ids[-1])
        return ids[-1]

    yield start
    for identifier in ids:
        docker("rm", "-f", identifier, check=False)


def told(done):
    """Return the daemon's message: the client of Debian 12 leaves out who said it."""
    return done.stderr.removeprefix("Error response from daemon: ").removeprefix("Error: ")


def test_version_and_info_are_shown(docker):
    assert docker("version", "--format", "{{.Server.APIVersion}} {{.Server.Os}}").stdout == "1.47 linux\n"
    text = docker("info").stdout
    assert " Logging Driver: local\n" in text
    assert " Cgroup Driver: cgroupfs\n" in text
    assert docker("info", "--format", "{{.ServerVersion}}").stdout.strip()


@pytest.mark.parametrize("version", ["1.24", "1.40", "1.44", "1.47"])
def test_older_versions_of_the_api_work_too(shared_busybox, version):
    environment = {**shared_busybox.environment, "DOCKER_API_VERSION": version}
    command = ["docker", "run", "--rm", "busybox", "echo", version]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"{version}\n"), done.stderr


def test_run_gives_both_streams_and_the_exit_code(docker):
    done = docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 42", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (42, "out\n", "err\n")


def test_run_with_input_returns_it_byte_for_byte(docker):
    data = os.urandom(10_000_000)
    assert docker("run", "--rm", "-i", "busybox", "cat", stdin=data, text=False).stdout == data


def test_run_does_not_wait_for_input_that_nobody_reads(docker):
    done = docker("run", "--rm", "-i", "busybox", "head", "-c", "3", stdin=b"abc" * 1_000_000, text=False)
    assert done.stdout == b"abc"


def test_a_slow_reader_of_run_gets_everything(shared_busybox):
    run = shared_busybox.docker_popen(
        *("run", "--rm", "--log-opt", "max-size=1m", "busybox", "seq", "1", "2000000"), stdout=subprocess.PIPE
    )
    time.sleep(1.5)
    data, _ = run.communicate(timeout=60)
    assert run.returncode == 0
    assert data == b"".join(b"%d\n" % number for number in range(1, 2_000_001))


def test_a_prompt_without_a_newline_is_shown_at_once(shared_busybox):
    run = shared_busybox.docker_popen(
        *("run", "--rm", "-i", "busybox", "sh", "-c", "printf 'name? '; read name; echo hello $name"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert run.stdout.read(6) == b"name? "
    out, _ = run.communicate(b"you\n", timeout=30)
    assert (out, run.returncode) == (b"hello you\n", 0)


def test_an_unknown_image_or_command_ends_with_dockers_codes(docker):
    missing = docker("run", "--rm", "127.0.0.1:9/such:image", check=False)
    assert missing.returncode == 125
    assert "Unable to find image '127.0.0.1:9/such:image' locally" in missing.stderr
    assert 'Get "http://127.0.0.1:9/v2/": connection refused' in missing.stderr
    unknown = docker("run", "--rm", "busybox", "nothing-of-the-kind", check=False)
    assert unknown.returncode == 127, unknown.stderr


def test_logs_has_every_flag(docker, container):
    identifier = container("--log-opt", "labels=who", "-l", "who=me", "busybox", "sh", "-c", "seq 1 5; echo err >&2")
    done = docker("logs", identifier)
    assert (done.stdout, done.stderr) == ("1\n2\n3\n4\n5\n", "err\n")
    assert docker("logs", "-n", "2", identifier).stdout.split() in (["4", "5"], ["5"])
    assert docker("logs", "--details", identifier).stdout.splitlines()[0] == "who=me 1"
    stamped = docker("logs", "-t", identifier).stdout.splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z \d", line) for line in stamped)
    assert docker("logs", "--since", "1h", identifier).stdout == done.stdout
    assert docker("logs", "--until", "1h", identifier).stdout == ""
    assert docker("logs", "--tail", "0", identifier).stdout == ""
    assert docker("logs", "-f", identifier).stdout == done.stdout


def test_logs_of_nobody_and_of_the_driver_none_fail_in_dockers_words(docker, container):
    missing = docker("logs", "nobody", check=False)
    assert (missing.returncode, told(missing)) == (1, "No such container: nobody\n")
    silent = docker("logs", container("--log-driver", "none", "busybox", "echo", "x"), check=False)
    assert "configured logging driver does not support reading" in silent.stderr


def test_follow_until_stops_by_itself(docker, container):
    identifier = container("busybox", "sh", "-c", "while :; do echo x; sleep 0.2; done", wait=False)
    began = time.monotonic()
    done = docker("logs", "-f", "--until", "2s", identifier)  # two seconds ago: what was before
    assert time.monotonic() - began < 10
    assert set(done.stdout.split()) <= {"x"}


def test_ps_filters_and_formats(docker, container):
    first = container("--name", "cli-first", "-l", "a=1", "busybox", "sh", "-c", "exit 3")
    second = container("--name", "cli-second", "-l", "a=2", "busybox", "sleep", "600", wait=False)

    def names(*flags):
        return docker("ps", "--format", "{{.Names}}", *flags).stdout.split()

    assert names("-f", "name=cli-") == ["cli-second"]
    assert names("-a", "-f", "name=cli-") == ["cli-second", "cli-first"]
    assert names("-a", "-f", "label=a=1") == ["cli-first"]
    assert names("-a", "-f", "label=a", "-f", "status=running") == ["cli-second"]
    assert names("-f", "status=exited", "-f", "label=a") == ["cli-first"]
    assert names("-a", "-f", "exited=3", "-f", "label=a") == ["cli-first"]
    assert names("-a", "-f", f"id={second[:5]}") == ["cli-second"]
    assert names("-a", "-f", "ancestor=busybox", "-f", "label=a=2") == ["cli-second"]
    assert names("-a", "-f", "since=cli-first", "-f", "label=a") == ["cli-second"]
    assert names("-a", "-f", "before=cli-second", "-f", "label=a") == ["cli-first"]
    assert names("-n", "1") == ["cli-second"]
    assert names("-a", "-f", "health=none", "-f", "label=a") == ["cli-second", "cli-first"]
    assert names("-a", "-f", "is-task=true") == []
    assert names("-a", "-f", "publish=80", "-f", "label=a") == []
    assert names("-a", "-f", "volume=/nowhere") == []
    assert docker("ps", "-aq", "-f", "label=a", "--no-trunc").stdout.split() == [second, first]
    assert "Exited (3)" in docker("ps", "-a", "-f", "name=cli-first").stdout
    assert re.search(r"\(virtual [\d.]+MB\)", docker("ps", "-as", "-f", "name=cli-first").stdout)


@pytest.mark.parametrize(
    ("filter_", "words"),
    [
        ("colour=red", "invalid filter 'colour'"),
        ("status=lazy", "invalid filter 'status=lazy'"),
        ("exited=x", "invalid filter 'exited=x'"),
        ("health=ill", "unrecognized filter value for health: ill"),
        ("since=nobody", "No such container: nobody"),
        ("is-task=perhaps", "invalid filter 'is-task=[perhaps]'"),
        ("publish=80:80", "filter for 'publish' should not contain ':': 80:80"),
    ],
)
def test_a_wrong_filter_of_ps_is_refused(docker, filter_, words):
    done = docker("ps", "-f", filter_, check=False)
    assert done.returncode == 1
    assert words in done.stderr


def test_inspect_prints_fields_by_template(docker, container):
    identifier = container("--name", "cli-inspect", "busybox", "sh", "-c", "exit 3")
    template = "{{.Id}} {{.State.ExitCode}} {{.Name}} {{.HostConfig.LogConfig.Type}} {{len .Mounts}}"
    assert docker("inspect", "-f", template, "cli-inspect").stdout == f"{identifier} 3 /cli-inspect local 0\n"
    (shown,) = json.loads(docker("inspect", "-s", "cli-inspect").stdout)
    assert shown["SizeRootFs"] > shown["SizeRw"] >= 0


def test_attach_stop_kill_top_and_wait(docker, container, shared_busybox):
    identifier = container("-i", "busybox", "sh", "-c", "cat; exit 6", wait=False)
    assert "cat" in docker("top", identifier).stdout
    docker("exec", identifier, "true", check=False)
    attach = shared_busybox.docker_popen("attach", identifier, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    attach.stdin.write(b"typed\n")
    attach.stdin.flush()
    assert attach.stdout.readline() == b"typed\n"
    docker("kill", "-s", "KILL", identifier)
    attach.communicate(timeout=30)
    assert attach.returncode == 137
    assert docker("wait", identifier).stdout == "137\n"


def test_an_attached_client_that_dies_leaves_the_container_alone(docker, container, shared_busybox):
    identifier = container("busybox", "sh", "-c", "while :; do echo x; sleep 0.1; done", wait=False)
    attach = shared_busybox.docker_popen("attach", "--no-stdin", identifier, stdout=subprocess.PIPE)
    assert attach.stdout.readline() == b"x\n"
    attach.kill()
    attach.communicate()
    time.sleep(0.5)
    assert docker("inspect", "-f", "{{.State.Running}}", identifier).stdout == "true\n"
    count = len(docker("logs", identifier).stdout.split())
    time.sleep(0.5)
    assert len(docker("logs", identifier).stdout.split()) > count


def test_events_are_streamed_as_they_happen(docker, shared_busybox):
    events = shared_busybox.docker_popen(
        *("events", "--filter", "label=ev=1", "--format", "{{.Action}}"), stdout=subprocess.PIPE, text=True
    )
    try:
        time.sleep(0.5)
        docker("run", "--rm", "-l", "ev=1", "busybox", "true")
        seen = [events.stdout.readline().strip() for _ in range(5)]
    finally:
        events.kill()
        events.wait()
        events.stdout.close()
    assert [action for action in seen if action != "attach"][:2] == ["create", "start"]
    assert "die" in seen


def test_a_long_request_is_taken(docker, busybox_tar):
    message = "x" * 100_000
    docker("import", "--message", message, "-", "cli/long", stdin=busybox_tar, text=False)
    assert docker("image", "inspect", "-f", "{{.Comment}}", "cli/long").stdout == f"{message}\n"
    docker("rmi", "cli/long")


def test_images_are_listed_tagged_and_removed(docker):
    identifier = docker("images", "-q", "--no-trunc", "busybox").stdout.strip()
    docker("tag", "busybox", "cli/tagged:1")
    assert docker("images", "--format", "{{.Repository}}:{{.Tag}}", "cli/tagged").stdout == "cli/tagged:1\n"
    assert docker("image", "inspect", "-f", "{{.Id}}", "cli/tagged:1").stdout.strip() == identifier
    assert "Imported from -" in docker("history", "cli/tagged:1").stdout
    assert docker("rmi", "cli/tagged:1").stdout == "Untagged: cli/tagged:1\n"
    missing = docker("rmi", "cli/tagged:1", check=False)
    assert told(missing) == "No such image: cli/tagged:1\n"


def happened(docker, kind):
    """Return the events of a type that are kept, the oldest first."""
    window = ("--since", "1h", "--until", f"{time.time():.9f}")
    events = docker("events", *window, "--filter", f"type={kind}", "--format", "{{json .}}").stdout
    return [json.loads(line) for line in events.splitlines()]


def test_events_name_a_tag_as_people_write_it(docker, busybox_tar):
    docker("tag", "busybox", "cli/events:1")
    docker("import", "-", "cli/imported", stdin=busybox_tar, text=False)
    identifier = docker("images", "-q", "--no-trunc", "cli/imported").stdout.strip()
    last = [(event["Action"], event["Actor"]["Attributes"]["name"]) for event in happened(docker, "image")[-3:]]
    assert last == [("tag", "cli/events:1"), ("tag", "cli/imported:latest"), ("import", identifier)]
    docker("rmi", "cli/events:1", "cli/imported")


def test_events_of_images_have_their_labels_until_they_are_gone(docker, busybox_tar):
    docker("import", "--change", "LABEL kind=event", "-", "cli/labelled:1", stdin=busybox_tar, text=False)
    identifier = docker("images", "-q", "--no-trunc", "cli/labelled").stdout.strip()
    docker("tag", "cli/labelled:1", "cli/labelled:2")
    docker("rmi", "cli/labelled:2")
    assert docker("image", "prune", "-af", "--filter", "label=kind=event").returncode == 0
    last = happened(docker, "image")[-7:]
    assert [event["Action"] for event in last] == ["tag", "import", "tag", "untag", "untag", "delete", "prune"]
    assert {event["Actor"]["ID"] for event in last[:-1]} == {identifier}
    assert [event["Actor"]["Attributes"].get("kind") for event in last] == [*["event"] * 5, None, None]


def test_a_containers_volumes_go_before_it(docker):
    docker("run", "--name", "cli-volume-order", "-v", "/own", "busybox", "true")
    docker("rm", "-v", "cli-volume-order")
    window = ("--since", "1h", "--until", f"{time.time():.9f}")
    events = docker("events", *window, "--filter", "event=destroy", "--format", "{{.Type}}").stdout.split()
    assert events[-2:] == ["volume", "container"]


def test_events_tell_of_a_containers_own_volumes(docker):
    docker("run", "--name", "cli-volume-events", "-v", "/tmp:/x", "-v", "/own", "busybox", "true")
    docker("rm", "-v", "cli-volume-events")
    last = happened(docker, "volume")[-4:]
    assert [event["Action"] for event in last] == ["create", "mount", "unmount", "destroy"]
    assert len({event["Actor"]["ID"] for event in last}) == 1
    mounted = last[1]["Actor"]["Attributes"]
    assert (mounted["destination"], mounted["read/write"], mounted["driver"]) == ("/own", "true", "local")
    assert len(mounted["container"]) == 64


def test_system_df_counts_what_containers_and_their_volumes_take(docker):
    fill = "head -c 1000000 /dev/zero >/own/f; head -c 500000 /dev/zero >/g"
    docker("run", "--name", "cli-df", "-v", "/own", "busybox", "sh", "-c", fill)
    shown = json.loads(docker("system", "df", "-v", "--format", "json").stdout)
    (container,) = (one for one in shown["Containers"] if one["Names"] == "cli-df")
    assert (container["Size"], container["LocalVolumes"]) == ("500kB", "1")
    (volume,) = (one for one in shown["Volumes"] if one["Name"] == container["Mounts"])
    assert (volume["Links"], volume["Size"]) == ("1", "1MB")
    rows = {row["Type"]: row for row in map(json.loads, docker("system", "df", "--format", "json").stdout.splitlines())}
    assert list(rows) == ["Images", "Containers", "Local Volumes", "Build Cache"]
    assert int(rows["Local Volumes"]["Active"]) >= 1
    docker("rm", "-v", "cli-df")


def test_system_df_networks_and_volumes_are_shown(docker):
    assert "Images" in docker("system", "df").stdout
    assert docker("network", "ls", "--format", "{{.Name}}").stdout.split() == ["bridge", "host", "none"]
    refused = docker("network", "rm", "none", "nosuch", check=False)
    assert refused.returncode == 1
    assert "none is a pre-defined network and cannot be removed" in refused.stderr
    assert re.search(r"network nosuch not found|No such network: nosuch", refused.stderr)  # as the client puts it
    assert docker("volume", "ls", "-q").stdout == ""
    assert "node is not a swarm manager" in docker("service", "ls", check=False).stderr


def test_a_name_or_signal_that_can_not_be_is_refused_in_dockers_words(docker, container):
    identifier = container("--name", "cli-names", "busybox", "sleep", "600", wait=False)
    renamed = docker("rename", "cli-names", "bad name", check=False)
    assert "Error when allocating new name: Invalid container name (bad name), only [a-zA-Z0-9]" in renamed.stderr
    killed = docker("kill", "-s", "NOPE", "cli-names", "nobody", check=False)
    assert "cannot kill container: cli-names: invalid signal: NOPE\n" in killed.stderr
    assert docker("inspect", "-f", "{{.State.Running}}", identifier).stdout == "true\n"
    gone = docker("kill", "nobody", check=False)
    assert "cannot kill container: nobody: No such container: nobody\n" in gone.stderr
    linked = docker("rm", "--link", "cli-names", check=False)
    assert told(linked) == "Conflict, cannot remove the default link name of the container\n"
    assert told(docker("rm", "--link", "nobody", check=False)) == "No such container: nobody\n"


def test_rm_and_prune_act_and_refuse_as_docker_does(docker, container):
    running = container("busybox", "sleep", "600", wait=False)
    refused = docker("rm", running, check=False)
    assert "container is running: stop the container before removing or force remove" in refused.stderr
    docker("stop", "-t", "0", running)
    assert docker("rm", running).stdout == f"{running}\n"
    gone = docker("rm", running, check=False)
    assert told(gone) == f"No such container: {running}\n"


def test_a_volume_outlives_its_container_until_it_is_removed(docker, shared_busybox):
    docker("run", "--name", "cli-volume", "-v", "/data", "busybox", "touch", "/data/kept")
    (name,) = docker("volume", "ls", "-q").stdout.split()
    assert docker("volume", "inspect", "-f", "{{.Mountpoint}}", name).stdout.endswith(f"/{name}/_data\n")
    assert docker("ps", "-aq", "-f", f"volume={name}").stdout
    used = docker("volume", "rm", name, check=False)
    assert f"remove {name}: volume is in use - [" in used.stderr
    docker("rm", "cli-volume")
    assert docker("volume", "ls", "-q", "-f", "dangling=true").stdout == f"{name}\n"
    assert (shared_busybox.data_root / "volumes" / name / "_data" / "kept").exists()
    assert name in docker("volume", "prune", "-f").stdout
    assert docker("volume", "ls", "-q").stdout == ""
    gone = docker("volume", "rm", name, check=False)
    assert f"no such volume: {name}" in told(gone).lower() or f"get {name}: no such volume" in told(gone)


def test_a_system_prune_goes_through(docker, container):
    container("busybox", "true")
    assert "Total reclaimed space" in docker("system", "prune", "-f").stdout


def test_limits_and_settings_of_a_run_are_those_of_its_process(docker):
    options = ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--shm-size", "1m", "--oom-score-adj", "300"]
    options += ["--sysctl", "kernel.msgmax=9000", "--sysctl", "net.core.somaxconn=99", "-u", "1000:1000"]
    options += ["--group-add", "77", "--group-add", "root", "--tmpfs", "/t:size=64k,uid=5,gid=6,mode=0711,exec"]
    script = """
        grep -E '^Max (open|core)' /proc/self/limits | tr -s ' '
        grep ' /dev/shm ' /proc/mounts
        cat /proc/self/oom_score_adj /proc/sys/kernel/msgmax /proc/sys/net/core/somaxconn
        id -G
        grep ' /t ' /proc/mounts
        stat -c '%u %g %a' /t
    """
    assert docker("run", "--rm", *options, "busybox", "sh", "-c", script).stdout.splitlines() == [
        "Max core file size 0 0 bytes ",
        "Max open files 100 200 files ",
        "shm /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k 0 0",
        *("300", "9000", "99"),
        "1000 0 77",
        "tmpfs /t tmpfs rw,nosuid,nodev,relatime,size=64k,mode=711,uid=5,gid=6 0 0",
        "5 6 711",
    ]


def test_a_device_cgroup_rule_opens_what_is_closed_without_it(docker):
    """Devices of a kind that nobody has: allowed, the kernel knows none; else it is not permitted."""
    script = "mknod /x c 42 1 && cat /x"
    told = docker("run", "--rm", "busybox", "sh", "-c", script, check=False).stderr
    assert "Operation not permitted" in told
    told = docker("run", "--rm", "--device-cgroup-rule", "c 42:* rw", "busybox", "sh", "-c", script, check=False).stderr
    assert "No such device or address" in told


def test_a_cgroup_parent_is_where_the_container_runs(docker):
    parent = f"logd-test-{os.getpid()}"
    identifier = docker("run", "-d", "--cgroup-parent", f"/{parent}", "busybox", "sleep", "600").stdout.strip()
    pid = docker("inspect", "-f", "{{.State.Pid}}", identifier).stdout.strip()
    places = {line.split(":")[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}
    docker("rm", "-f", identifier)
    for folder in (*Path("/sys/fs/cgroup").glob(parent), *Path("/sys/fs/cgroup").glob(f"*/{parent}")):
        deadline = time.monotonic() + 20
        while any(one.is_dir() for one in folder.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)  # the container's own goes in the background
        folder.rmdir()
    assert any(place.endswith(f"/{parent}/{identifier}") for place in places)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--oom-score-adj", "3000"], "Invalid value 3000, range for oom score adj is [-1000, 1000]"),
        (["--network", "host", "--sysctl", "net.core.somaxconn=9"], "sysctl 'net.core.somaxconn' not allowed"),
        (["--ipc", "host", "--sysctl", "kernel.msgmax=9000"], "sysctl 'kernel.msgmax' not allowed"),
        (["--group-add", "nosuchgroup"], "Unable to find group nosuchgroup: no matching entries in group file"),
        (["--cgroup-parent", "../x"], "cgroup-parent: '../x' must not contain '..'"),
        (["--tmpfs", "/t:bogus"], 'invalid tmpfs option ["bogus"]'),
        (["--device", "/dev/nosuch"], 'error gathering device information while adding custom device "/dev/nosuch"'),
    ],
)
def test_a_setting_that_can_not_be_is_refused_with_its_name(docker, options, words):
    done = docker("run", "--rm", *options, "busybox", "true", check=False)
    assert done.returncode != 0
    assert words in done.stderr

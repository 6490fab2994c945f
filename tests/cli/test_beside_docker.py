"""`logd` beside the docker command line on one daemon: the same rows, the same containers, the same exit codes."""

import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from logd.cli.main import cli

AGREE_S = 60.0
"""How long two commands may take to come to the same answer: `2 seconds ago` is not the same a moment later."""


@pytest.fixture(scope="module")
def world(shared_busybox: Any) -> Iterator[Any]:
    """A daemon with a container that runs and one that does not, a network, a volume and a name for an image."""
    daemon = shared_busybox
    daemon.logd("tag", "busybox", "shop:1.2")
    daemon.logd("network", "create", "--label", "team=shop", "shop")
    daemon.logd("volume", "create", "--label", "team=shop", "data")
    daemon.logd(
        "run", "-d", "--name", "web", "--network", "shop", "--expose", "1000-1002", "-v", "data:/data",
        "-l", "app=web", "-l", "bare", "busybox", "sleep", "1000",
    )  # fmt: skip
    daemon.logd("create", "--name", "job", "-m", "64m", "busybox", "sh", "-c", "echo a long line; exit 3")
    yield daemon
    daemon.logd("rm", "-fv", "web", "job")
    daemon.logd("network", "rm", "shop")
    daemon.logd("volume", "rm", "data")


def logd(daemon: Any, *arguments: str) -> str:
    """Return what `logd` prints; it runs in this process, which costs a tenth of starting another."""
    done = CliRunner(env={"NO_COLOR": "1"}).invoke(cli, ["-H", daemon.host, *arguments], standalone_mode=False)
    assert done.exception is None, done.exception
    return done.stdout


def agree(daemon: Any, *arguments: str) -> str:
    """Return what both print. A difference that does not pass fails."""
    deadline = time.monotonic() + AGREE_S
    while True:
        ours, docker = logd(daemon, *arguments), daemon.docker(*arguments).stdout
        if ours == docker:
            return str(ours)
        assert time.monotonic() < deadline, f"{arguments}\n{ours}{docker}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("ps", "-as"),
        ("ps", "-aq", "--no-trunc"),
        ("ps", "-l", "--no-trunc"),
        ("ps", "--format", '{{.ID}} {{.Names}} {{.Label "app"}} {{.Mounts}} {{.Networks}} {{.Ports}} {{.CreatedAt}}'),
        ("ps", "-a", "--format", 'table {{.Names}}\\t{{.State}}\\t{{.Label "app"}}\\t{{.LocalVolumes}}'),
        ("images", "--digests"),
        ("images", "--no-trunc"),
        ("images", "--format", "{{range $i, $x := split .Tag \".\"}}{{$i}}={{$x}} {{end}}{{.Repository | upper}}"),
        ("history", "busybox"),
        ("network", "ls"),
        ("network", "ls", "--format", '{{.Name}} {{.Label "team"}}'),
        ("volume", "ls"),
        ("system", "df"),
        ("system", "df", "-v"),
        ("inspect", "web"),
        ("container", "inspect", "-s", "job"),
        ("inspect", "-f", "{{.Name}} {{json .State}} {{.Config.Labels}} {{len .Mounts}}", "web", "job"),
        ("inspect", "-f", "{{range $n, $one := .NetworkSettings.Networks}}{{$n}} {{$one.IPAddress}}{{end}}", "web"),
        ("inspect", "-f", "{{with .State.Health}}{{.Status}}{{else}}none{{end}}", "web"),
        ("network", "inspect", "-f", "{{.Name}} {{.Driver}} {{json .IPAM}} {{json .Containers}} {{.Labels}}", "shop"),
        ("volume", "inspect", "data"),
        ("port", "web"),
    ],
)  # fmt: skip
def test_the_same_text_byte_for_byte(world: Any, arguments: tuple[str, ...]) -> None:
    agree(world, *arguments)


@pytest.mark.parametrize(
    "command", [("ps", "-a"), ("images",), ("volume", "ls"), ("system", "df"), ("system", "df", "-v")]
)
def test_the_same_json_but_for_its_spaces(world: Any, command: tuple[str, ...]) -> None:
    deadline = time.monotonic() + AGREE_S
    while True:
        texts = logd(world, *command, "--format", "json"), world.docker(*command, "--format", "json").stdout
        ours, docker = ([json.loads(line) for line in text.splitlines()] for text in texts)
        for row in [
            *docker,
            *(one for each in docker for part in each.values() if isinstance(part, list) for one in part),
        ]:
            row.pop("Platform", None)  # of images for several platforms, of which there are none
        if ours == docker:
            return
        assert time.monotonic() < deadline, f"{ours}\n{docker}"


def test_the_same_events_in_the_same_words(world: Any) -> None:
    since = str(time.time())
    for verb in (["pause"], ["unpause"], ["stop", "-t", "0"], ["start"]):
        assert logd(world, *verb, "web") == "web\n"
    window = ["--since", since, "--until", str(time.time()), "--filter", "container=web"]
    lines = agree(world, "events", *window).splitlines()
    actions = agree(world, "events", *window, "--format", "{{.Action}} {{.Actor.Attributes.name}}").splitlines()
    assert len(lines) == len(actions)
    assert [line.split()[0] for line in actions if "kill" not in line] == ["pause", "unpause", "die", "stop", "start"]
    shown = logd(world, "events", *window, "--format", "json").splitlines()
    assert [json.loads(line)["Action"] for line in shown] == [line.split()[0] for line in actions]


def test_the_same_container_for_the_same_options(world: Any, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("# comment\nfrom=file\n")
    (tmp_path / "env").write_text("FROM=file\n")
    options = [
        "-p", "8080:80", "-p", "127.0.0.1::81", "-p", "9000-9001:90-91/udp", "-p", "7000-7010:70", "-p", "[::1]:82:82",
        "--expose", "1000-1001", "--network", "shop", "--network-alias", "one", "--network-alias", "two",
        "-v", "/anonymous", "-v", "data:/data:ro", "-v", "/tmp:/host",
        "--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700",
        "--mount", "type=volume,src=data,target=/more,volume-nocopy,readonly", "--tmpfs", "/tmp2:size=1m",
        "--dns", "10.0.0.1", "--dns-search", "example.org", "--dns-option", "ndots:2", "--add-host", "a=10.0.0.2",
        "-e", "A=1", "--env-file", str(tmp_path / "env"), "-l", "x=y", "--label-file", str(tmp_path / "labels"),
        "-w", "/tmp", "-u", "nobody", "-h", "host", "--domainname", "example.org", "--entrypoint", "sh",
        "-m", "64m", "--memory-reservation", "32m", "--memory-swap", "-1", "--cpus", "0.5", "-c", "512",
        "--cpuset-cpus", "0", "--pids-limit", "50", "--shm-size", "8m", "--ulimit", "nofile=100:200",
        "--sysctl", "net.ipv4.ip_forward=0", "--device", "/dev/null:/dev/nothing:r", "--cap-add", "NET_ADMIN",
        "--cap-drop", "CHOWN", "--security-opt", "no-new-privileges", "--group-add", "5", "--ipc", "none",
        "--oom-score-adj", "100", "--read-only", "--init", "--restart", "on-failure:3", "--stop-signal", "INT",
        "--stop-timeout", "5", "--health-cmd", "true", "--health-interval", "1m30s", "--health-retries", "2",
        "--log-opt", "max-size=1m",
    ]  # fmt: skip
    world.logd("create", "--name", "by-logd", *options, "busybox", "-c", "true")
    world.docker("create", "--name", "by-docker", *options, "busybox", "-c", "true")
    ours, docker = json.loads(world.docker("inspect", "by-logd", "by-docker").stdout)
    world.logd("rm", "-v", "by-logd", "by-docker")
    for one in (ours, docker):
        one["HostConfig"]["Binds"].sort()  # docker's are in the order of a map of Go: none
        for kind in ("CapAdd", "CapDrop"):  # newer clients put CAP_ before the names
            one["HostConfig"][kind] = [name.removeprefix("CAP_") for name in one["HostConfig"][kind]]
    assert ours["HostConfig"] == docker["HostConfig"]
    assert ours["Config"] == docker["Config"]
    assert _given(ours) == _given(docker) == ["one", "two"]


def _given(shown: dict[str, Any]) -> list[str]:
    """Return the aliases that were asked for; a container's id is one too."""
    aliases = shown["NetworkSettings"]["Networks"]["shop"]["Aliases"] or []
    return [alias for alias in aliases if alias not in {shown["Id"][:12], shown["Name"][1:]}]


def test_a_container_ends_and_goes_with_dockers_words_and_codes(world: Any) -> None:
    assert logd(world, "start", "job") == "job\n"
    assert logd(world, "wait", "job") == "3\n"
    assert logd(world, "rename", "job", "done") == ""
    assert logd(world, "restart", "-t", "0", "done") == "done\n"
    assert logd(world, "wait", "done") == "3\n"
    for failing in (("rename", "nothing", "x"), ("port", "web", "81"), ("inspect", "nothing"), ("rmi", "nothing")):
        ours, docker = world.logd(*failing, check=False), world.docker(*failing, check=False)
        assert (ours.returncode, bool(ours.stderr)) == (docker.returncode, True) == (1, True)
    logd(world, "rename", "done", "job")


def test_limits_are_changed_as_docker_changes_them(world: Any) -> None:
    changes = [
        "-m",
        "128m",
        "--memory-swap",
        "256m",
        "--cpus",
        "0.7",
        "--pids-limit",
        "77",
        "--restart",
        "on-failure:2",
    ]
    shown = []
    for name, command in (("one", logd), ("two", world.docker)):
        logd(world, "create", "--name", name, "-m", "64m", "busybox")
        told = command(*([world] if command is logd else []), "update", *changes, name)
        assert (told if command is logd else told.stdout) == f"{name}\n"
        shown += [one["HostConfig"] for one in json.loads(logd(world, "inspect", name))]
    assert shown[0] == shown[1]
    assert (shown[0]["Memory"], shown[0]["NanoCpus"]) == (128 << 20, 700_000_000)
    assert world.logd("update", "one", check=False).returncode == 125
    logd(world, "rm", "one", "two")


def test_an_exec_has_the_variables_of_a_file(world: Any, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nFROM=file\n")
    done = world.logd("exec", "--env-file", str(tmp_path / "env"), "-e", "A=b", "web", "env")
    assert {"FROM=file", "A=b"} <= set(done.stdout.splitlines())


def test_networks_are_joined_and_left(world: Any) -> None:
    place = f"10.212.{os.getpid() % 256}"  # another run of the tests has another one
    pool = ["--subnet", f"{place}.0/28", "--gateway", f"{place}.1", "--ip-range", f"{place}.8/29"]
    assert len(logd(world, "network", "create", *pool, "--internal", "back").strip()) == 64
    logd(world, "network", "connect", "--ip", f"{place}.9", "--alias", "db", "back", "web")
    shown = json.loads(world.docker("inspect", "-f", "{{json .NetworkSettings.Networks.back}}", "web").stdout)
    assert (shown["IPAddress"], "db" in shown["Aliases"]) == (f"{place}.9", True)
    assert world.logd("network", "rm", "back", check=False).returncode == 1
    logd(world, "network", "disconnect", "back", "web")
    assert logd(world, "network", "prune", "-f") == "Deleted Networks:\nback\n\n"
    assert logd(world, "network", "rm", "-f", "back") == "back\n"


def test_prune_asks_first_and_takes_what_nobody_needs(world: Any) -> None:
    logd(world, "create", "--name", "old", "--label", "old", "busybox")
    chosen = ["--filter", "label=old"]
    refused = world.logd("container", "prune", *chosen, check=False, input="n\n")
    assert (refused.returncode, "all stopped containers" in refused.stdout) == (1, True)
    assert world.logd("container", "prune", *chosen, check=False, stdin=subprocess.DEVNULL).returncode == 1
    assert logd(world, "ps", "-aq", *chosen) != ""
    pruned = world.logd("container", "prune", *chosen, input="y\n")
    assert "Deleted Containers:" in pruned.stdout
    assert "Total reclaimed space: 0B" in pruned.stdout
    assert logd(world, "ps", "-aq", *chosen) == ""
    name = logd(world, "volume", "create", "--label", "old").strip()
    assert name in logd(world, "volume", "prune", "-f", *chosen)
    logd(world, "tag", "busybox", "old:1")
    assert logd(world, "rmi", "old:1") == "Untagged: old:1\n"
    assert "Total reclaimed space: 0B" in logd(world, "image", "prune", "-f")


def test_a_container_tells_its_processes(world: Any) -> None:
    titles, process = logd(world, "container", "top", "web", "-o", "pid,args").splitlines()
    assert titles.split() == ["PID", "COMMAND"]
    assert process.split()[1:] == ["sleep", "1000"]


def test_an_id_file_has_the_id_and_is_never_written_over(world: Any, tmp_path: Path) -> None:
    place = tmp_path / "id"
    identity = logd(world, "create", "--cidfile", str(place), "busybox").strip()
    assert place.read_text() == identity
    again = world.logd("create", "--cidfile", str(place), "busybox", check=False)
    assert (again.returncode, "is there already" in again.stderr) == (125, True)
    logd(world, "rm", identity)
    assert world.logd("create", "--cidfile", str(tmp_path / "other"), "nix:1", check=False).returncode == 125
    assert not (tmp_path / "other").exists()


def test_what_changed_in_a_root_is_shown_exported_and_made_an_image(world: Any, tmp_path: Path) -> None:
    logd(world, "exec", "web", "sh", "-c", "echo new > /new; rm /etc/passwd")
    assert "A /new\n" in agree(world, "diff", "web")
    logd(world, "export", "-o", str(tmp_path / "root.tar"), "web")
    with tarfile.open(tmp_path / "root.tar") as archive:
        assert archive.extractfile("new").read() == b"new\n"
    identity = logd(world, "commit", "-m", "note", "-c", "CMD cat /new", "web", "shop:made").strip()
    assert world.docker("image", "inspect", "-f", "{{.Id}} {{.Comment}}", "shop:made").stdout == f"{identity} note\n"
    assert world.docker("run", "--rm", "shop:made").stdout == "new\n"
    assert f"Deleted: {identity}" in logd(world, "rmi", "shop:made")

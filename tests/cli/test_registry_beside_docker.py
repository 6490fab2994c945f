"""`logd pull`, `push`, `login`, `save`, `build` beside the docker command, at a real registry that wants a password."""

import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from real_registry import RealRegistry, Relay, run
from screen import Screen, plain

from logd.cli.main import main

USER, PASSWORD = "ann", "sec ret"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """docker-registry for one user."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "users").write_text(run("htpasswd", "-Bbn", USER, PASSWORD))
    registry = RealRegistry(folder / "of", auth={"htpasswd": {"realm": "tests", "path": str(folder / "users")}})
    yield registry
    registry.close()


@pytest.fixture(scope="module")
def world(shared_busybox: Any, registry: RealRegistry) -> Any:
    """A daemon of which both commands are logged in, with an image of two layers in the registry."""
    daemon = shared_busybox
    daemon.app = f"{registry.host}/app"
    daemon.logd("login", "-u", USER, "--password-stdin", registry.host, input=f"{PASSWORD}\n")
    daemon.logd("build", "-t", daemon.app, "-", input="FROM busybox\nRUN head -c 3000000 /dev/urandom > /big\n")
    daemon.docker("push", "-q", daemon.app)
    return daemon


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def logd(
    world: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Done]]:
    """The command line in this process, which costs a tenth of starting another."""
    monkeypatch.setenv("LOGD_HOST", world.host)
    monkeypatch.setenv("DOCKER_CONFIG", world.environment["DOCKER_CONFIG"])
    before = signal.getsignal(signal.SIGPIPE)

    def call(*arguments: str, check: bool = True, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        done = Done(int(str(ended.value.code)), *capfd.readouterr())
        assert not check or done.returncode == 0, done
        return done

    yield call
    signal.signal(signal.SIGPIPE, before)


def settled(done: Any) -> list[str]:
    """Return the lines of a command, those of layers in one order."""
    lines = done.stdout.splitlines()
    places = [at for at, line in enumerate(lines) if line[:12].isalnum() and line[12:14] == ": "]
    for at, line in zip(places, sorted(lines[at] for at in places), strict=True):
        lines[at] = line
    return lines


def test_a_pull_says_what_docker_says(world: Any, logd: Callable[..., Done]) -> None:
    shown = []
    for command in (logd, world.docker):
        logd("rmi", world.app)
        shown.append(settled(command("pull", world.app)))
    assert shown[0] == shown[1]
    assert shown[0][0] == "Using default tag: latest"
    assert shown[0][-1] == f"{world.app}:latest"
    for arguments in (("pull", "-q", world.app), ("pull", "-a", world.app)):
        assert logd(*arguments).stdout == world.docker(*arguments).stdout


def test_a_push_says_what_docker_says(world: Any, logd: Callable[..., Done], registry: RealRegistry) -> None:
    name = f"{registry.host}/one"
    for tag in ("1", "2"):
        logd("tag", "busybox", f"{name}:{tag}")
    assert f"The push refers to repository [{name}]" in logd("push", f"{name}:1").stdout
    for arguments in (("push", "-a", name), ("push", "-q", f"{name}:1")):
        assert settled(logd(*arguments)) == settled(world.docker(*arguments))
    digests = [logd("inspect", "-f", "{{json .RepoDigests}}", f"{name}:{tag}").stdout for tag in (1, 2)]
    assert digests[0] == digests[1] != "null\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("pull", "{host}/nothing"),
        ("pull", "-a", "{host}/app:1"),
        ("push", "{host}/nothing"),
        ("push", "{host}/app:nothing"),
        ("run", "{host}/nothing"),
        ("run", "--pull", "never", "{host}/nothing"),
        ("save", "-o", "{folder}/x.tar", "nothing"),
        ("search", "nothing"),
        ("pull", "UPPER"),
    ],
)
def test_the_same_reason_is_given_as_by_docker(
    world: Any, logd: Callable[..., Done], registry: RealRegistry, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    words = [word.format(host=registry.host, folder=tmp_path) for word in arguments]
    ours, docker = logd(*words, check=False), world.docker(*words, check=False)
    assert ours.returncode in {docker.returncode, 125}
    assert ours.returncode > 0
    last = ours.stderr.strip().splitlines()[-1].removeprefix("logd: ")
    assert last in docker.stderr
    assert os.listdir(tmp_path) == []


def test_run_takes_a_missing_image_first_and_keeps_it_out_of_the_output(world: Any, logd: Callable[..., Done]) -> None:
    told = []
    for command in (world.logd, world.docker):
        logd("rmi", "-f", world.app)
        done = command("run", "--rm", world.app, "echo", "hi")
        assert done.stdout == "hi\n"
        told.append(done.stderr.splitlines())
    assert told[0][0] == told[1][0] == f"Unable to find image '{world.app}:latest' locally"
    assert sorted(told[0]) == sorted(told[1])
    done = world.logd("run", "--rm", "-q", "--pull", "always", world.app, "echo", "hi")
    assert (done.stdout, done.stderr) == ("hi\n", "")
    created = logd("create", "--pull", "always", world.app)
    assert f"Image is up to date for {world.app}:latest" in created.stderr
    logd("rm", created.stdout.strip())


def test_layers_have_bars_on_a_terminal(
    world: Any, logd: Callable[..., Done], registry: RealRegistry, screen: Screen
) -> None:
    relay = Relay(registry.port)
    host = f"127.0.0.1:{relay.port}"
    try:
        logd("login", "-u", USER, "--password-stdin", host, stdin=PASSWORD)
        logd("rmi", "-f", world.app)
        screen.resize(120, 40)
        relay.hold_at(2_000_000)
        process = started(world, screen, "pull", f"{host}/app")
        screen.read_until(b"Downloading", 60)
        screen.read_until(b"/3.", 60)  # MB of the upper layer
        assert "━" in plain(screen.text)
        relay.release()
        text = plain(screen.read_all(process))
    finally:
        relay.close()
        logd("logout", host)
    rows = [line for line in text.split("\r")[-1].splitlines() if "Pull complete" in line or "Already exists" in line]
    assert len(rows) == 2
    assert text.rstrip().endswith(f"Status: Downloaded newer image for {host}/app:latest\n{host}/app:latest")


def on_terminal(world: Any, screen: Screen, *arguments: str) -> bytes:
    return screen.read_all(started(world, screen, *arguments))


def started(world: Any, screen: Screen, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "logd.cli.main", *arguments],
        env={**world.environment, "LOGD_HOST": world.host, "TERM": "xterm"},
        stdin=screen.slave, stdout=screen.slave, stderr=screen.slave, start_new_session=True,
    )  # fmt: skip


def test_a_login_is_asked_for_without_echo_and_docker_has_it_too(
    world: Any, logd: Callable[..., Done], registry: RealRegistry, screen: Screen
) -> None:
    config = Path(world.environment["DOCKER_CONFIG"]) / "config.json"
    kept = config.read_text()
    assert logd("logout", registry.host).stdout == world.docker("logout", registry.host).stdout
    refused = logd("pull", world.app, check=False)
    assert (refused.returncode, "no basic auth credentials" in refused.stderr) == (1, True)
    wrong = logd("login", "-u", USER, "--password-stdin", registry.host, stdin="wr0ng", check=False)
    assert (wrong.returncode, "unauthorized" in wrong.stderr, "wr0ng" in wrong.stderr) == (1, True, False)
    assert "auth" not in json.loads(config.read_text())["auths"].get(registry.host, {})
    process = started(world, screen, "login", registry.host)
    screen.read_until(b"Username")
    screen.type(f"{USER}\n".encode())
    screen.read_until(b"Password")
    screen.type(f"{PASSWORD}\n".encode())
    shown = screen.read_all(process).decode()
    assert (process.returncode, "Login Succeeded" in shown, PASSWORD in shown) == (0, True, False)
    assert json.loads(config.read_text()) == json.loads(kept)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert world.docker("pull", "-q", world.app).stdout == f"{world.app}:latest\n"
    assert logd("login", registry.host).stdout == "Login Succeeded\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("login", "HOST"),
        ("login", "--password-stdin", "HOST"),
        ("login", "-u", "ann", "-p", "x", "--password-stdin", "HOST"),
        ("login", "-u", "ann", "--password-stdin", "HOST"),
        ("login", "-u", "ann", "--password-stdin", "ho st"),
    ],
)
def test_a_login_without_what_it_needs_is_wrong_usage(
    world: Any, logd: Callable[..., Done], arguments: tuple[str, ...]
) -> None:
    done = logd(*arguments, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(("logd: ", "WARNING! Using --password"))


def test_an_archive_of_images_is_whole_or_not_there(
    world: Any, logd: Callable[..., Done], screen: Screen, tmp_path: Path
) -> None:
    place = tmp_path / "images.tar"
    place.write_text("old")
    logd("save", "-o", str(place), "busybox", world.app)
    with tarfile.open(place) as archive:
        tags = [one["RepoTags"] for one in json.load(archive.extractfile("manifest.json"))]
    assert tags == [["busybox:latest"], [f"{world.app}:latest"]]
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert world.docker("load", "-qi", str(place)).stdout.count("Loaded image") == 2
    piped = subprocess.run(
        [sys.executable, "-m", "logd.cli.main", "image", "save", "busybox"],
        env={**os.environ, "LOGD_HOST": world.host}, check=True, capture_output=True,
    )  # fmt: skip
    assert piped.stdout[257:262] == b"ustar"
    assert logd("save", "-o", str(place), "nothing", check=False).returncode == 1
    assert os.listdir(tmp_path) == ["images.tar"]
    assert b"refusing to save to a terminal" in on_terminal(world, screen, "save", "busybox")


def test_a_build_takes_its_base_with_the_login_and_says_what_docker_says(
    world: Any, logd: Callable[..., Done], tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {world.app}\nARG V\nCOPY . /x\nRUN echo v=$V; ls -A /x\n")
    (tmp_path / ".dockerignore").write_text("*.log\n")
    for name in ("a.log", "b"):
        (tmp_path / name).write_text(name)
    logd("rmi", "-f", world.app)
    identity = tmp_path.parent / "identity"
    first = logd("build", "--iidfile", str(identity), "-t", "made:1", "--build-arg", "V=7", str(tmp_path))
    assert "v=7\n.dockerignore\nDockerfile\nb\n" in first.stdout
    assert f"Status: Downloaded newer image for {world.app}:latest" in first.stdout
    world.environment["DOCKER_BUILDKIT"] = "0"
    same = ["build", "-t", "made:1", "--build-arg", "V=7", str(tmp_path)]
    ours, docker = logd(*same).stdout, world.docker(*same).stdout
    assert ours.splitlines() == [line for line in docker.replace("\r", "").splitlines() if line]
    assert "Using cache" in ours
    shown = logd("inspect", "-f", "{{.Id}}", "made:1").stdout.strip()
    assert identity.read_text() == shown == logd(same[0], "-q", *same[1:]).stdout.strip()


def test_a_build_that_fails_has_the_code_of_its_command(world: Any, logd: Callable[..., Done], tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    identity.write_text("old")
    failing = "FROM busybox\nRUN echo gone wrong; exit 7\n"
    ours = logd("build", "--iidfile", str(identity), "-", stdin=failing, check=False)
    docker = world.docker("build", "-", stdin=failing, check=False)
    assert (ours.returncode, docker.returncode) == (7, 7)
    assert "gone wrong\n" in ours.stdout
    assert ours.stderr == "logd: The command '/bin/sh -c echo gone wrong; exit 7' returned a non-zero code: 7\n"
    assert not identity.exists()
    assert logd("build", "-", stdin="FROM busybox\nNIX\n", check=False).returncode == 1

"""The context that `logd build` sends, beside the docker command's."""

import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from cli_peer import Peer, Request
from click.testing import CliRunner

from logd.cli.main import cli
from logd.cli.registry.build_context import context_of
from logd.errors import InvalidParameter, LogdError

DOCKER = shutil.which("docker")
IGNORED = """\
# comment
*.log
!keep.log
node_modules
!node_modules/one/wanted
**/*.tmp
/rooted
Dockerfile
.dockerignore
secret?
dir/
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what can be in one."""
    folder = tmp_path / "context"
    for name in (
        "Dockerfile", "a.log", "keep.log", "sub/deep.log", "sub/x.tmp", "sub/rooted", "rooted", "secret1", "secret12",
        "node_modules/one/wanted", "node_modules/one/other", "node_modules/two/other", "dir/file", "sub/ünicode", "run",
        "sub/" + "long" * 40,
    ):  # fmt: skip
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(name)
    (folder / "Dockerfile").write_text("FROM busybox\n")
    (folder / ".dockerignore").write_text(IGNORED)
    (folder / "run").chmod(0o4711)
    (folder / "empty").mkdir(mode=0o700)
    (folder / "sub/link").symlink_to("../run")
    (folder / "outside").symlink_to("/etc/passwd")
    (folder / "hard").hardlink_to(folder / "run")
    os.chown(folder / "run", 1234, 1234)
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "sock"))
    return folder


def members(data: bytes) -> dict[str, tuple[Any, ...]]:
    """Return what a tar has, by name. Docker does not fill up one into which it has put a Dockerfile."""
    with tarfile.open(fileobj=io.BytesIO(data + bytes(tarfile.RECORDSIZE))) as archive:
        return {
            one.name: (one.type, oct(one.mode), one.uid, one.gid, one.linkname)
            + ((archive.extractfile(one).read(),) if one.isreg() else ())
            for one in archive
        }


def parsed(text: str) -> Any:
    """Return a parameter's value, of one that is JSON too."""
    try:
        return json.loads(text)
    except ValueError:
        return text


class Builds:
    """A daemon that keeps contexts, and both command lines on it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._sent: list[Request] = []
        peer.routes["HEAD /_ping"] = self._greet
        for path in ("/build", "/v1.47/build"):
            peer.routes[f"POST {path}"] = self._take

    def _greet(self, request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    def _take(self, request: Request) -> list[bytes]:
        self._sent.append(request)
        return [b'{"stream":"done\\n"}\r\n']

    def both(self, *arguments: str, stdin: bytes = b"") -> tuple[Request, Request]:
        """Return what logd sends, and what docker does."""
        assert DOCKER is not None, "the tests need the docker command line (make test fetches it)"
        done = CliRunner().invoke(cli, ["-H", self._peer.host, "build", *arguments], input=stdin)
        assert (done.exit_code, done.exception) == (0, None), done.output
        environment = {
            **os.environ,
            "DOCKER_HOST": self._peer.host,
            "DOCKER_API_VERSION": "1.47",
            "DOCKER_BUILDKIT": "0",
        }
        told = subprocess.run(
            [DOCKER, "build", *arguments], env=environment, input=stdin, check=False, capture_output=True
        )
        assert told.returncode == 0, told.stderr
        ours, docker = self._sent
        self._sent.clear()
        return ours, docker


@pytest.fixture
def builds(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builds:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return Builds(peer)


def test_the_same_files_are_sent_as_by_docker(builds: Builds, folder: Path) -> None:
    ours, docker = (members(request.body) for request in builds.both(str(folder)))
    assert ours == docker
    assert "Dockerfile" in ours
    assert not {"a.log", "rooted", "secret1", "sock", "dir", "node_modules/one/other"} & set(ours)
    assert {"keep.log", "sub/deep.log", "sub/rooted", "secret12", "node_modules/one/wanted", "empty"} <= set(ours)


def test_the_same_is_asked_for_as_by_docker(builds: Builds, folder: Path) -> None:
    options = [
        "-t", "x:1", "--build-arg", "A=1", "--build-arg", "NOT_SET_HERE", "--label", "k=v", "--no-cache", "--pull",
        "--target", "t", "--network", "none", "--platform", "linux/amd64", "--force-rm", "--rm=false", "-q",
        "--add-host", "a:10.0.0.1", "-m", "64m", "--memory-swap", "-1", "-c", "5", "--cpu-period", "1000",
        "--cpu-quota", "2000", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--cgroup-parent", "p", "--shm-size", "8m",
        "--ulimit", "nofile=1:2", "--security-opt", "no-new-privileges",
    ]  # fmt: skip
    ours, docker = builds.both(*options, str(folder))
    asked, wanted = ({name: parsed(value) for name, value in one.query.items()} for one in (ours, docker))
    assert {name: value for name, value in asked.items() if wanted.get(name) != value} == {}
    assert [value for name, value in wanted.items() if name not in asked and value not in (None, [], 0, "")] == []


@pytest.mark.parametrize("as_file", [True, False])
def test_a_dockerfile_from_elsewhere_goes_along_and_no_copy_finds_it(
    builds: Builds, folder: Path, tmp_path: Path, as_file: bool
) -> None:
    text = b"FROM busybox\nCOPY . /\n"
    (tmp_path / "Other").write_bytes(text)
    arguments = ["-f", str(tmp_path / "Other")] if as_file else ["-f", "-"]
    found = []
    for request in builds.both(*arguments, str(folder), stdin=text):
        files, name = members(request.body), request.query["dockerfile"]
        assert files[name][-1] == text
        ignored = files[".dockerignore"][-1].decode().split()
        assert name in ignored
        found.append({path for path in files if path != name})
    assert found[0] == found[1] | {".dockerignore"}


def test_a_dockerfile_inside_is_named_from_the_context_on(builds: Builds, folder: Path, tmp_path: Path) -> None:
    (folder / "dir/Other").write_text("FROM busybox\n")
    (tmp_path / "way").symlink_to(folder)
    (folder / "link").symlink_to("dir/Other")
    for name in (tmp_path / "way/dir/Other", folder / "link"):
        ours, docker = builds.both("-f", str(name), str(folder))
        assert ours.query["dockerfile"] == docker.query["dockerfile"] == "dir/Other"
        assert members(ours.body).keys() >= {"dir/Other"}


def test_standard_input_is_an_archive_as_it_is_or_a_dockerfile(builds: Builds, folder: Path) -> None:
    for mode in ("c", "cz"):
        archive = subprocess.run(["tar", mode, "-C", folder, "run"], check=True, capture_output=True).stdout
        ours, docker = builds.both("-f", "x/Other", "-", stdin=archive)
        assert ours.body == docker.body == archive
        assert ours.query["dockerfile"] == docker.query["dockerfile"] == "x/Other"
    ours, docker = builds.both("-", stdin=b"FROM busybox\n")
    assert [*members(ours.body)] == [*members(docker.body)] == [ours.query["dockerfile"]]
    assert members(ours.body)["Dockerfile"][-1] == b"FROM busybox\n"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("https://example.org/x.git", "contexts from elsewhere are not supported"),
        ("git@github.com:a/b", "contexts from elsewhere are not supported"),
        ("/nowhere/at/all", "not found"),
        ("/proc/self", "no Dockerfile in /proc/self"),
    ],
)
def test_what_is_no_context_is_refused(place: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        context_of(place, None)


def test_a_pattern_that_is_none_is_refused(folder: Path) -> None:
    (folder / ".dockerignore").write_text("[x\n")
    with pytest.raises(InvalidParameter, match="pattern"):
        context_of(str(folder), None)


def test_a_file_that_shrinks_meanwhile_ends_the_build_by_name(folder: Path) -> None:
    (folder / "big").write_bytes(bytes(3 << 20))
    pieces = context_of(str(folder), None).pieces
    next(piece for piece in pieces if len(piece) >= 1 << 18)
    os.truncate(folder / "big", 1 << 19)
    with pytest.raises(LogdError, match="big: the file became shorter"):
        list(pieces)


def test_a_big_context_takes_no_memory(folder: Path) -> None:
    with (folder / "big").open("wb") as file:
        file.truncate(200 << 20)
    context = context_of(str(folder), None)
    tracemalloc.start()
    try:
        assert sum(map(len, context.pieces)) > 200 << 20
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()

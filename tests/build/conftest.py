"""Builds through the docker command line, without BuildKit, on a daemon that the tests of a module share."""

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ANCIENT = 1_577_836_800  # of files in contexts, so that a time that was kept can be told from now


class Builds:
    """A context on disk and the daemon that builds it."""

    def __init__(self, daemon, folder: Path) -> None:
        self.daemon = daemon
        self.folder = folder
        daemon.environment["DOCKER_BUILDKIT"] = "0"

    def write(self, files: dict) -> None:
        """Write files into the context: text, bytes, (content, mode), a Path for a link, None for a folder."""
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data, mode = content if isinstance(content, tuple) else (content, None)
            if data is None:
                path.mkdir(exist_ok=True)
            elif isinstance(data, Path):
                path.symlink_to(data)
            else:
                path.write_bytes(data if isinstance(data, bytes) else data.encode())
            if mode is not None:
                path.chmod(mode)
        for path in self.folder.rglob("*"):
            os.utime(path, (ANCIENT, ANCIENT), follow_symlinks=False)

    def build(self, dockerfile, *options, files=None, stdin=None, check=True) -> "subprocess.CompletedProcess[str]":
        """Build the context with this Dockerfile, or `stdin` if there is one, as the image `built`."""
        self.write({**({} if dockerfile is None else {"Dockerfile": dockerfile}), **(files or {})})
        source = "-" if stdin is not None and "-f" not in options else str(self.folder)
        options = ("-t", "built", *options)
        return self.daemon.docker(
            "build", *options, source, stdin=stdin, check=check, text=not isinstance(stdin, bytes)
        )

    def fails(self, dockerfile, *options, files=None) -> str:
        """Return why a build fails."""
        done = self.build(dockerfile, *options, files=files, check=False)
        assert done.returncode != 0, done
        return done.stderr.removeprefix("DEPRECATED:").rpartition("\n\n")[2].strip()

    def config(self, name="built") -> dict:
        return json.loads(self.daemon.docker("image", "inspect", name).stdout)[0]["Config"]

    def history(self, name="built") -> list:
        """What made each layer, the newest first."""
        listing = self.daemon.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", name).stdout
        return listing.splitlines()

    def post(self, query: str, body: bytes) -> tuple[int, bytes]:
        """Ask the API itself for what the command line would not send; return status and answer."""
        connection = http.client.HTTPConnection("logd")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.daemon.socket))
        try:
            connection.request("POST", f"/build?{query}", body, {"Content-Type": "application/x-tar"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def containers(self) -> list:
        return self.daemon.docker("ps", "-aq").stdout.split()

    def left(self) -> list:
        """What builds have left below the data root."""
        return list((self.daemon.data_root / "builds").glob("*"))


def steps(done) -> list:
    """The output, without the ids of containers and images."""
    return [line for line in done.stdout.splitlines() if not line.startswith((" ---> ", "Sending", "Success"))]


@pytest.fixture(name="steps")
def steps_fixture() -> Callable:
    return steps


@pytest.fixture
def builds(shared_busybox, tmp_path) -> Builds:
    """What builds in a context of the test's own."""
    folder = tmp_path / "context"
    folder.mkdir()
    return Builds(shared_busybox, folder)

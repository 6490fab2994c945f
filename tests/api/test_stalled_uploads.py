"""A client that stalls in the middle of an archive holds up nobody: who waits for its container gets it."""

import contextlib
import io
import socket
import tarfile
import time

import pytest

STALLED_S = 20.0
"""Far more than the daemon grants to a client that others wait for, far less than for ever."""


@pytest.fixture
def stalled(shared_busybox):
    """Begin to put an archive into a container, and send no more of it."""
    with contextlib.ExitStack() as stack:

        def begin(name: str) -> socket.socket:
            with io.BytesIO() as buffer:
                with tarfile.open(fileobj=buffer, mode="w") as tar:
                    member = tarfile.TarInfo("large")
                    member.size = 1 << 20
                    tar.addfile(member, io.BytesIO(bytes(member.size)))
                archive = buffer.getvalue()
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(STALLED_S)
            client.connect(str(shared_busybox.socket))
            head = (
                f"PUT /containers/{name}/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: {len(archive)}\r\n\r\n"
            )
            client.sendall(head.encode() + archive[: len(archive) // 2])
            return client

        yield begin


def test_an_upload_that_stalls_gives_way_to_a_start(shared_busybox, stalled):
    name = "stalled"
    shared_busybox.docker("create", "--name", name, "busybox", "sleep", "1000")
    client = stalled(name)
    client.settimeout(0.5)
    with pytest.raises(TimeoutError):  # while nobody waits it may take its time
        client.recv(1)
    client.settimeout(STALLED_S)
    began = time.monotonic()
    shared_busybox.docker("start", name)
    assert time.monotonic() - began < STALLED_S
    answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408"), answer
    shared_busybox.docker("rm", "-f", name)

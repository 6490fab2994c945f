"""`logd system dial-stdio`: the daemon's socket on stdin and stdout, which is how `docker -H ssh://…` gets to it.

The end of stdin becomes the end of what is sent, and what the daemon sends goes on until it ends (as for an attach).
"""

import contextlib
import os
import socket
import threading
from typing import Final

import click

from logd.cli.client import Client
from logd.cli.command import Command, Group
from logd.cli.output import write_all

PIECE_BYTES: Final = 1 << 16
STDIN_FD: Final = 0
STDOUT_FD: Final = 1


@click.group(cls=Group)
def system() -> None:
    """What concerns the daemon as a whole."""


@system.command("dial-stdio", cls=Command, examples=("docker -H ssh://root@host ps  # runs it there",))
@click.pass_obj
def dial_stdio(client: Client) -> None:
    """Pass stdin and stdout through to the daemon's socket."""
    with client.dial() as connection:
        threading.Thread(target=_send_stdin, args=(connection,), daemon=True).start()  # which may never end
        while data := connection.recv(PIECE_BYTES):
            write_all(STDOUT_FD, data)


def _send_stdin(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the daemon has gone, and so do we
        while data := os.read(STDIN_FD, PIECE_BYTES):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

"""An attached container's streams and ours: its stdout and stderr to ours, our stdin to it."""

import os
import socket
import threading

from logd.cli.client import Broken, Response
from logd.cli.interrupts import Waiter
from logd.cli.output import STDERR_FD, STDOUT_FD, write_all
from logd.errors import LogdError
from logd.stdcopy import STDERR, STDOUT, SYSTEM_ERROR, Decoder

STDIN_FD = 0
READ_BYTES = 64 * 1024


def carry(attached: Response, waiter: Waiter, *, interactive: bool, multiplexed: bool = True) -> None:
    """Carry the streams until the output has ended; that of a terminal is not multiplexed.

    Raises LogdError with what the daemon says of it.
    """
    if interactive:
        connection = attached.connection
        threading.Thread(target=_send_stdin, args=(connection,), name="stdin", daemon=True).start()
    decoder = Decoder()
    while not attached.ended:
        waiter.wait(attached)
        try:
            data = attached.receive()
        except Broken:
            return  # whether the container has ended, the answer to `wait` tells
        for stream, payload in decoder.feed(data) if multiplexed else [(STDOUT, data)]:
            if stream == SYSTEM_ERROR:
                raise LogdError(payload.decode("utf-8", "replace"))
            if stream in {STDOUT, STDERR}:
                write_all(STDOUT_FD if stream == STDOUT else STDERR_FD, payload)


def _send_stdin(connection: socket.socket) -> None:
    """Send our standard input; its end closes our half of the connection, which closes the container's stdin."""
    try:
        while data := os.read(STDIN_FD, READ_BYTES):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the container has ended, or does not read any more

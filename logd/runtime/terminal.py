"""A container's terminal: a pseudo-terminal (pty) that the OCI runtime makes, and whose master it sends to us.

Sources: runc, docs/terminals.md (`--console-socket`: one message with the master beside it); pty(7); ioctl_tty(2).
"""

import fcntl
import os
import socket
import struct
import termios
from contextlib import suppress
from typing import Final

from logd.runtime.packets import receive

SOCKET_NAME: Final = "console.sock"
READ_BYTES: Final = 4 << 10
"""What a master has to be read at a time (the kernel's N_TTY_BUF_SIZE)."""
TIOCGPTPEER: Final = 0x5441
"""_IO('T', 0x41): open the other end of a master, wherever it is mounted (Linux 4.13). Not in `termios` yet."""


class ConsoleSocket:
    """Where a runtime sends the master of a terminal that it makes; it is told `path`. Close it.

    The path goes through a descriptor of ours, since runtimes connect by the 107 bytes of sun_path (unix(7)).
    """

    def __init__(self, folder: str) -> None:
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = f"/proc/{os.getpid()}/fd/{self._folder}/{SOCKET_NAME}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._unlink()
            self._listener.bind(self.path)
            self._listener.listen(1)
        except OSError:
            self.close()
            raise

    def receive(self, timeout_s: float) -> int:
        """Return the master, which does not block. Raises TimeoutError, OSError if nothing or no terminal is sent.

        A runtime that has created its container has sent it: it waits in the socket.
        """
        self._listener.settimeout(timeout_s)
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(timeout_s)
            _, descriptors = receive(connection)
        if len(descriptors) != 1:
            for descriptor in descriptors:
                os.close(descriptor)
            raise OSError(f"the runtime sent {len(descriptors)} descriptors and not the master of a terminal")
        os.set_blocking(descriptors[0], False)
        return descriptors[0]

    def _unlink(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(SOCKET_NAME, dir_fd=self._folder)

    def close(self) -> None:
        """Take no more."""
        self._listener.close()
        self._unlink()
        os.close(self._folder)


def open_slave(master: int) -> int:
    """Return a descriptor of the end that the container has, without its becoming our controlling terminal."""
    return fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def set_size(master: int, rows: int, columns: int) -> None:
    """Tell the programs on a terminal its size, by SIGWINCH if it is another one."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

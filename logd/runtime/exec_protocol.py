"""What daemon and the shim of an exec say to each other and leave on disk.

An exec is a process that a person has run in a container beside its first one. It has a folder
`<exec-dir>/execs/<exec id>`, where the daemon leaves `process.json` (OCI) and what it has to remember itself, and the
shim `exec.sock`, the runtime's `pid` and `runtime.log`, and in the end `exit.json`. Who has taken note of the end
removes the folder.

Messages are JSON in packets, as between daemon and shims (protocol.py). Shim → daemon, at the beginning of each
connection but the first and whenever something has changed:
    {"event": "state", "version": …, "pid": 0 or the process's, "exit": null or the fields of ExecExit}
Daemon → shim, {"op": …, "seq": n}, answered with {"re": n} or {"re": n, "error": …, "exit_code": …}:
    start               once the process runs; the answer has the `names` of our ends of its streams, and the ends
                        (of a terminal that is logged: `tty` for its output, `stdin` for its input)
    drain               the daemon reads no more of the output: throw away what is left and what comes
    resize rows columns

The first connection comes with the fork. Output is the daemon's to read until it says `drain` or is gone.
"""

from typing import Any, Final, NamedTuple

from logd.runtime.protocol import read_json, write_json

VERSION: Final = 1
FOLDER_NAME: Final = "execs"
PROCESS_FILE: Final = "process.json"
PID_FILE: Final = "pid"
SOCKET_NAME: Final = "exec.sock"
EXIT_FILE: Final = "exit.json"
TTY: Final = "tty"
"""The name of the one stream of an exec on a terminal, the terminal's master side."""


class ExecLaunch(NamedTuple):
    """All that an exec's shim needs to know."""

    folder: str
    """The exec's own; holds process.json."""
    container_id: str
    runtime: tuple[str, ...]
    """Command line of the OCI runtime up to the verb."""
    streams: tuple[str, ...]
    """TTY; or those of stdin, stdout and stderr that a client is at: the others are /dev/null."""
    size: tuple[int, int] = (0, 0)
    """Rows and columns of the terminal, if they are known: process.json has them too, but crun takes no notice."""
    owner: tuple[int, int] = (0, 0)
    """The host's ids of the container's root, to whom the streams belong."""
    log: bool = False
    """Whether what it prints goes into the container's log too, also what no client is at."""


class ExecExit(NamedTuple):
    """How an exec ended."""

    code: int
    """Its exit code; 128 + signal when a signal ended it; Docker's 126 … 128 if it was never started."""
    finished_ns: int
    """Unix time."""
    error: str = ""
    """Why it was not started, or why its code is not known."""
    known: bool = True


def write_exit(folder: str, ended: ExecExit) -> None:
    """Leave the end of an exec in its folder. Raises OSError."""
    write_json(folder, EXIT_FILE, {"version": VERSION, **ended._asdict()})


def read_exit(folder: str) -> ExecExit | None:
    """Return the end of an exec, None where there is none yet."""
    value = read_json(folder, EXIT_FILE)
    return exit_from(value) if value else None


def exit_from(fields: dict[str, Any]) -> ExecExit:
    """Read the fields of an ExecExit; those of a newer version are left out."""
    return ExecExit(**{name: fields[name] for name in ExecExit._fields if name in fields})

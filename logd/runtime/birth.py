"""The beginnings of a shim: make a container, take over from a shim that died, find a container that all have left.

Each runs in an errand. The first two report to the shim what it needs to serve, see `Born`.
"""

import errno
import marshal
import os
from socket import SocketType
from typing import Any, Final

from logd.logstore.opening import open_store
from logd.logstore.segment import Kind
from logd.logstore.writer import StoreWriter
from logd.record import STDOUT
from logd.runtime import command, oom, packets, pidfd, pipes, terminal
from logd.runtime.null import open_null
from logd.runtime.protocol import (
    SOCKET_NAME,
    STATE_FILE,
    VERSION,
    Event,
    Launch,
    listen_in,
    read_exit_status,
    send,
    start_ticks,
    write_json,
)

TERMINAL_WAIT_S: Final = 5.0
"""How long a terminal is waited for once the runtime has created its container: it has been sent by then."""


class CreateFailed(Exception):
    """The container was not created: (message, exit code)."""


# -- a new container ---------------------------------------------------------------------------------------------


def create(launch: Launch, daemon: SocketType | None, keeper: SocketType, shim: SocketType) -> None:
    """Make the container; its PID 1 waits for `start`. The daemon is told, also of a failure."""
    try:
        held, writer, listener = _create(launch)
    except CreateFailed as failed:
        message, exit_code = failed.args
        tell(daemon, {"event": Event.FAILED, "message": message, "exit_code": exit_code})
        send(keeper, {"op": "release"})
        return
    pid = _read_pid(launch)
    held["pidfd"] = os.pidfd_open(pid)
    hand_over(keeper, held, pid)
    _save_state(launch, held, pid)
    writer.mark(Kind.BEGIN, launch.run)
    _report(shim, writer, listener, pid, held, exit_fields=None)
    tell(daemon, {"event": Event.CREATED, "pid": pid})


def _create(launch: Launch) -> tuple[dict[str, int], StoreWriter, SocketType]:
    """Return our ends of the pipes, the store's writer, the control socket. Raises CreateFailed."""
    held, theirs = _make_pipes(launch)
    console = terminal.ConsoleSocket(launch.exec_dir) if launch.terminal else None
    runtime = _spawn_create(launch, theirs, console)
    try:
        listener = listen_in(launch.exec_dir, SOCKET_NAME)
        writer = open_store(os.path.join(launch.container_dir, "log"), launch.store)  # while the runtime works
    except OSError as error:
        command.wait(runtime)
        command.run(launch, ["delete", "--force", launch.container_id])
        raise CreateFailed(f"log store of the container: {error}", command.RUNTIME_FAILED_EXIT) from error
    status = command.wait(runtime)
    if status:
        writer.close()
        os.unlink(os.path.join(launch.exec_dir, SOCKET_NAME))
        raise CreateFailed(*command.failure(launch.exec_dir, "create", status))
    if console is not None:
        held |= _take_terminal(launch, console)
    return held, writer, listener


def _take_terminal(launch: Launch, console: terminal.ConsoleSocket) -> dict[str, int]:
    """Return the master twice, which is to the container what its stdin and stdout are to another."""
    try:
        master = console.receive(TERMINAL_WAIT_S)
    except OSError as error:
        command.run(launch, ["delete", "--force", launch.container_id])
        raise CreateFailed(f"terminal of the container: {error}", command.RUNTIME_FAILED_EXIT) from error
    finally:
        console.close()
    return {"stdin": os.dup(master), "stdout": master}


def _make_pipes(launch: Launch) -> tuple[dict[str, int], tuple[int, int, int]]:
    """Return our ends by name, and the container's stdin, stdout and stderr (of a terminal: what it does not use)."""
    size = pipes.pipe_size(launch.memory_limit)
    held: dict[str, int] = {}
    if launch.terminal:
        held["stdout-stage-out"], held["stdout-stage-in"] = pipes.staging_pipe(size)
        unused, *others = (open_null() for _ in range(3))
        return held, (unused, others[0], others[1])
    if launch.open_stdin:
        stdin, held["stdin"] = pipes.stdin_pipe()
        os.fchown(stdin, *launch.owner)
    else:
        stdin = open_null()
    theirs = []
    for name in pipes.STREAM_OF:
        held[name], end = pipes.output_pipe(size)
        held[f"{name}-stage-out"], held[f"{name}-stage-in"] = pipes.staging_pipe(size)
        os.fchown(end, *launch.owner)
        theirs.append(end)
    return held, (stdin, theirs[0], theirs[1])


def _spawn_create(launch: Launch, stdio: tuple[int, int, int], console: terminal.ConsoleSocket | None) -> int:
    arguments = command.create_arguments(launch, console.path if console else "")
    try:
        runtime = command.spawn(launch, arguments, stdio)
    except OSError as error:
        text = f"OCI runtime {launch.runtime[0]}: {os.strerror(error.errno or errno.EIO)}"
        raise CreateFailed(text, command.RUNTIME_FAILED_EXIT) from error
    for descriptor in stdio:
        os.close(descriptor)
    return runtime


def _read_pid(launch: Launch) -> int:
    with open(os.path.join(launch.exec_dir, command.PID_FILE), encoding="ascii") as file:
        return int(file.read())


def _save_state(launch: Launch, held: dict[str, int], pid: int) -> None:
    piped = () if launch.terminal else ("stdin", "stdout", "stderr")
    inodes = {name: pipes.inode(held[name]) for name in piped if name in held}
    known = {"version": VERSION, "pid": pid, "ticks": start_ticks(pid), "shim": os.getppid()}
    write_json(launch.exec_dir, STATE_FILE, {**known, "inodes": inodes, "launch": launch.to_json()})


# -- a container that is there already ---------------------------------------------------------------------------


def take_over(launch: Launch, pid: int, shim: SocketType) -> None:
    """Find out where a shim that died has left off; waits for its lock on the store."""
    writer = open_store(os.path.join(launch.container_dir, "log"), launch.store)
    listener = listen_in(launch.exec_dir, SOCKET_NAME)
    status = read_exit_status(launch.exec_dir)
    fields = tuple(status) if status and status.run == launch.run else None
    _report(shim, writer, listener, pid, {}, exit_fields=fields)


def recover(launch: Launch, keeper: SocketType, pid: int, ticks: int, inodes: dict[str, int]) -> None:
    """Open the pipes of a container that every process of ours has left, and give them to the keeper.

    It then sees this process end, and has a shim take over as for any other that died. A terminal is lost: its master
    can't be opened anew.
    """
    opened = pidfd.open_process(pid, ticks)
    if opened is None:
        send(keeper, {"op": "release"})
        return
    held = {"pidfd": opened, **pipes.reopen(pid, inodes)}
    size = pipes.pipe_size(launch.memory_limit)
    writer = open_store(os.path.join(launch.container_dir, "log"), launch.store)
    for name, stream in pipes.STREAM_OF.items():
        if name in held:
            held[f"{name}-stage-out"], held[f"{name}-stage-in"] = pipes.staging_pipe(size)
        if launch.terminal and stream != STDOUT:
            continue
        writer.note_gap(stream, 0, "crash")  # what was staged, and all that followed where the pipe is gone too
    writer.close()
    hand_over(keeper, held, pid)


# -- what is said ------------------------------------------------------------------------------------------------


def hand_over(keeper: SocketType, held: dict[str, int], pid: int) -> None:
    """Give the keeper duplicates."""
    send(keeper, {"op": "hold", "names": list(held), "pid": pid}, tuple(held.values()))


def _report(
    shim: SocketType,
    writer: StoreWriter,
    listener: SocketType,
    pid: int,
    held: dict[str, int],
    exit_fields: tuple[Any, ...] | None,
) -> None:
    """Tell the shim: place in the store, exit status or None, file that counts out-of-memory kills or None, PID 1."""
    oom_file = oom.counter_file(pid) if exit_fields is None and start_ticks(pid) is not None else None
    descriptors = {"lock": writer.lock, "listener": listener.fileno(), **held}
    if writer.index >= 0:
        descriptors["index"] = writer.index
    places = {name: place for place, name in enumerate(descriptors)}
    born: Any = (tuple(writer.place), exit_fields, oom_file, pid, places)
    packets.send(shim, marshal.dumps(born), list(descriptors.values()))


def tell(daemon: SocketType | None, message: dict[str, Any]) -> None:
    """Tell the daemon; one that is gone needs no telling."""
    if daemon is not None:
        try:
            send(daemon, message)
        except OSError:
            return

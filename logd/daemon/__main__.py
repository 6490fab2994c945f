"""`python -m logd.daemon`, which is what `logd daemon` executes: from the command line to a serving process."""

import asyncio
import contextlib
import faulthandler
import functools
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import logd.daemon.lean  # noqa: F401 - before the modules that import aiohttp
from logd.daemon.config_file import Loaded, load
from logd.daemon.identity import ensure_identity
from logd.daemon.listeners import Listener, open_listeners
from logd.daemon.lock import lock_data_root, make_folder, remove_pidfile, write_pidfile
from logd.daemon.notify import Notifier, activated_sockets
from logd.daemon.ownlog import OwnLog, choose_destination
from logd.errors import LogdError

log = logging.getLogger("logd.daemon")
OOM_SCORE_ADJ: Final = -500
"""As dockerd's: the kernel should choose a container first."""
UMASK: Final = 0o022


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit status: 0 after a stop that was asked for, 1 when it could not start."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Containers start with the limit that the daemon was started with, not with the one that it gives itself.
    read_settings = functools.partial(load, arguments, {"nofile": resource.getrlimit(resource.RLIMIT_NOFILE)})
    try:
        loaded = read_settings()
        if loaded.validate:
            print("configuration OK")  # noqa: T201, RUF100 - dockerd's words, on standard output
            return 0
        if os.geteuid() != 0:
            raise LogdError("logd needs to be started with root privileges")
        return _start(loaded, read_settings)
    except LogdError as error:
        sys.stderr.write(f"logd: {error}\n")
        return 1


def _start(loaded: Loaded, read_settings: Callable[[], Loaded]) -> int:
    notifier, activated = Notifier(), activated_sockets()
    own_log = OwnLog(choose_destination(loaded.config.log_to), loaded.config.log_format)
    own_log.set_level("debug" if loaded.config.debug else loaded.config.log_level)
    try:
        with _sole_daemon(loaded):
            _prepare_process()
            listeners = open_listeners(loaded.config, activated)
            _tell(loaded)
            asyncio.run(_serve(loaded, read_settings, own_log, notifier, listeners))
    except LogdError as error:
        log.critical("%s", error)
        if own_log.destination == "stderr":
            return 1
        raise
    except Exception:
        log.critical("the daemon ends because of a mistake of its own", exc_info=True)
        return 1
    else:
        log.info("stopped")
        return 0
    finally:
        own_log.close()


async def _serve(
    loaded: Loaded, read_settings: Callable[[], Loaded], own_log: OwnLog, notifier: Notifier, listeners: list[Listener]
) -> None:
    from logd.daemon.service import Service  # noqa: PLC0415 - a quarter of a second that a refusal need not wait for

    await Service(loaded.config, read_settings, own_log, notifier).run(listeners)


@contextlib.contextmanager
def _sole_daemon(loaded: Loaded) -> Iterator[None]:
    """Make the folders and hold lock and pidfile."""
    config = loaded.config
    try:
        make_folder(config.data_root)
        make_folder(config.exec_root)
        lock = lock_data_root(config.data_root)
        ensure_identity(config.data_root)
    except OSError as error:
        raise LogdError(f"{error.filename}: {error.strerror}") from error
    try:
        write_pidfile(config.pidfile)
        try:
            yield
        finally:
            remove_pidfile(config.pidfile)
    finally:
        os.close(lock)


def _prepare_process() -> None:
    os.umask(UMASK)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the event loop takes it
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(OOM_SCORE_ADJ))
    except OSError as error:
        log.info("oom_score_adj stays as it is: %s", error.strerror)


def _tell(loaded: Loaded) -> None:
    log.info("starting", extra={"pid": os.getpid(), "file": str(loaded.path or "none")})
    if loaded.notices:
        log.warning("settings without effect: %s", ", ".join(loaded.notices))


if __name__ == "__main__":
    sys.exit(main())

"""Docker's log plugins: processes that speak Docker's log-driver plugin protocol, each a log driver of its own name.

Source: https://docs.docker.com/engine/extend/plugins_logging/, moby daemon/logger/plugin.go and adapter.go. Which ones
there are is not known at start: a name that no other driver has is looked up when it is used.

A plugin reads its own pipe for each container. What it has read counts as sent, unconfirmed; what is still in the pipe
when it dies does not, and is sent again through the next pipe (Docker leaves the plugin without a pipe then).
"""
# ruff: noqa: RUF009  (opt is dataclasses.field with names for its metadata)

import asyncio
import bisect
import functools
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from logd.batch import Batch, ContainerInfo
from logd.driver import LogDriver, OpenOptions, opt
from logd.drivers import plugin_registry
from logd.drivers.plugin_client import PluginClient, PluginError, activated
from logd.drivers.plugin_entries import PART_BYTES, frames
from logd.drivers.plugin_pipe import SEPARATOR, Pipe, abandoned
from logd.logtag import Tag
from logd.units import format_time_short

log = logging.getLogger(__name__)

FOLDER: Final = "logging"
"""Of the pipes, in the daemon's run folder."""
OPEN_TIMEOUT_S: Final = 10.0
"""How long a plugin has to open its pipe, once it has said that it logs."""
LOOK_TIMEOUT_S: Final = 1.0
TRIAL_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 2.0
"""How long a plugin has to say that it has stopped."""


def _left_to_the_plugin(_value: str) -> None:
    """A tag's template is the plugin's affair, which gets it as it was written."""


@dataclass(frozen=True, kw_only=True)
class PluginOptions(OpenOptions):
    """Whatever the plugin takes: it says itself, when it is told to log, what it does not."""

    tag: Tag | None = opt(_left_to_the_plugin, default=None, help="template of the tag, for the plugin to fill in")


class DockerPluginDriver(LogDriver[PluginOptions]):
    """One container's pipe to a plugin; `driver_named` makes the driver of a plugin."""

    options_type = PluginOptions
    per_container = True
    max_record_bytes = PART_BYTES
    confirms = False

    def __init__(self, options: PluginOptions) -> None:
        super().__init__(options)
        self._container: ContainerInfo | None = None
        self._plugin: PluginClient | None = None
        self._pipe: Pipe | None = None

    def resume(self, container: ContainerInfo, memo: bytes) -> None:
        """Hear whose output comes, before it does."""
        self._container = container

    async def open(self) -> None:
        """Have the plugin log through a new pipe. Raises OSError with what the plugin says."""
        self._plugin = await activated(self.name)
        if self._container is not None:
            await self._start(self._plugin, self._container)

    async def _start(self, plugin: PluginClient, container: ContainerInfo) -> Pipe:
        folder = Path(container.run_folder) / FOLDER
        prefix = f"{self.name}{SEPARATOR}{container.id}"
        for path in abandoned(folder, prefix):
            await _stop(plugin, path)
        self._pipe = pipe = Pipe(folder, prefix)
        try:
            await plugin.start_logging(str(pipe.path), info_of(container, self.options.given))
        except PluginError as error:
            raise PluginError(f"error creating logger: {error}") from error
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await pipe.opened()
        except TimeoutError as error:
            raise PluginError(f"plugin {self.name} has not opened its pipe within {OPEN_TIMEOUT_S:.0f} s") from error
        return pipe

    async def send(self, batch: Batch) -> None:
        """Write the batch to the pipe, and wait until the plugin has read it."""
        assert self._plugin is not None
        pipe = self._pipe or await self._start(self._plugin, batch.container)
        encoded = list(frames(batch.container.id, batch.groups))
        begin = pipe.read
        try:
            await pipe.write(b"".join(encoded))
            await pipe.drained()
        except BaseException:  # cancellation by the deadline too
            batch.ack(whole(encoded, pipe.read - begin))
            raise

    async def close(self) -> None:
        """Tell the plugin to stop, and remove the pipe."""
        pipe, self._pipe = self._pipe, None
        if pipe is None:
            return
        try:
            assert self._plugin is not None
            await _stop(self._plugin, pipe.path)
        finally:
            pipe.close()


async def _stop(plugin: PluginClient, path: Path) -> None:
    """Tell a plugin that nothing more comes through a pipe; one that is gone need not hear it."""
    try:
        await plugin.stop_logging(str(path), STOP_TIMEOUT_S)
    except OSError as error:
        log.debug("plugin %s did not stop logging: %s", plugin.name, error)


def info_of(container: ContainerInfo, log_opts: dict[str, str]) -> dict[str, Any]:
    """Return what a plugin is told of a container: moby daemon/logger/loginfo.go."""
    return {
        "Config": log_opts,
        "ContainerID": container.id,
        "ContainerName": f"/{container.name}",
        "ContainerEntrypoint": container.entrypoint,
        "ContainerArgs": list(container.args),
        "ContainerImageID": container.image_id,
        "ContainerImageName": container.image_name,
        "ContainerCreated": format_time_short(container.created_ns),
        "ContainerEnv": list(container.env),
        "ContainerLabels": container.labels,
        "LogPath": container.log_path,
        "DaemonName": "docker",
    }


def whole(encoded: Sequence[bytes], size: int) -> int:
    """Return how many of the records are whole in the first `size` bytes."""
    return bisect.bisect_right(list(itertools.accumulate(map(len, encoded))), size)


@functools.cache
def driver_named(name: str) -> type[DockerPluginDriver] | None:
    """Return the driver that speaks to the plugin of a name, wherever that may be now; None if it can't be a name."""
    if not plugin_registry.is_name(name):
        return None
    return type("DockerPluginDriver", (DockerPluginDriver,), {"name": name, "__doc__": f"The plugin {name}."})


def is_there(name: str) -> bool:
    """Tell whether there is a socket or file of a plugin of this name; it may be no log driver."""
    try:
        plugin_registry.find(name)
    except OSError:
        return False
    return True


async def present() -> list[str]:
    """Return the names of the plugins that are there, answer and are log drivers."""

    async def answers(name: str) -> bool:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await activated(name)
        except OSError:
            return False
        return True

    names = plugin_registry.names()
    return list(itertools.compress(names, await asyncio.gather(*map(answers, names))))


async def try_logging(driver: type[DockerPluginDriver], options: PluginOptions, container: ContainerInfo) -> None:
    """Have a plugin start to log a container that is about to be created, and stop. Raises OSError if it won't.

    There is no other way to have options checked: a plugin does it when it starts.
    """
    trial = driver(options)
    trial.resume(container, b"")
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT_S):
            await trial.open()
    except TimeoutError as error:
        raise PluginError(f"plugin {driver.name} did not begin to log within {TRIAL_TIMEOUT_S:.0f} s") from error
    finally:
        await trial.close()

"""A process that delivers one container's output, to be killed: `python -m logd.testing.life JSON`.

The JSON says `path` (sys.path), `module` and `name` of the driver, `log_opts`, `container`, `folder` (the store),
`send_timeout_s`. It writes `ready` and goes on until it is killed. `Life` starts one.
"""

import asyncio
import functools
import importlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from logd.batch import ContainerInfo
from logd.driver import LogDriver, parse_options
from logd.forward.destination import Destination
from logd.forward.routes import DeliveryOptions
from logd.logstore.follow import Watcher
from logd.testing.bench import Box, make_delivery

READY = b"ready\n"
START_S = 30.0


class Life:
    """One such process. In `async with` it delivers; at the end it is killed."""

    def __init__(
        self, driver: type[LogDriver[Any]], log_opts: Mapping[str, str], box: Box, *, send_timeout_s: float
    ) -> None:
        self._told = json.dumps(
            {
                "path": sys.path,
                "module": driver.__module__,
                "name": driver.__qualname__,
                "log_opts": dict(log_opts),
                "container": asdict(box.info),
                "folder": box.log_folder,
                "send_timeout_s": send_timeout_s,
            }
        )

    async def __aenter__(self) -> "Life":
        """Start, and return when it begins to deliver."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "logd.testing.life", self._told, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            said = await self._process.stdout.readline()
        assert said == READY, "the process that delivers has ended"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill it."""
        assert self._process.returncode is None, "the process that delivers has ended"
        self._process.kill()
        await self._process.communicate()


async def live(told: dict[str, Any]) -> None:
    """Deliver for ever."""
    kind: Any = functools.reduce(getattr, told["name"].split("."), importlib.import_module(told["module"]))
    info = told["container"]
    container = ContainerInfo(**{**info, "args": tuple(info["args"]), "env": tuple(info["env"])})
    options = parse_options(f"{kind.name} log driver", kind.options_type, told["log_opts"])
    how = DeliveryOptions(send_timeout=told["send_timeout_s"], flush_interval=0.0)
    watcher = Watcher()
    await watcher.start()
    delivery = make_delivery(container, told["folder"], Destination(kind(options)), how, (), watcher)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    await delivery.run()


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    sys.path[:] = told["path"]
    asyncio.run(live(told))

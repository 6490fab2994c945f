"""A log driver for tests, installed as a third party's: it writes lines to a file, and misbehaves when it is told to.

Each line is `STREAM POSITION LINE`, in one write(2) a batch. What the file `probe-mood` holds says how it behaves:

    well            as it should; also without such a file
    refuse          open raises ConnectionRefusedError
    reset           send raises ConnectionResetError after half of the batch was taken and acknowledged
    hang            send never returns
    spin            send never gives the loop back
    raise           send raises what only a mistake explains
    exit            the process ends
    reject WORD     lines with WORD are rejected
    poison WORD     a batch with WORD in it fails, as if the connection was lost
"""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logd.driver import Batch, CommonOptions, LogDriver, Reject, opt, text
from logd.hookspecs import hookimpl
from logd.record import STREAM_NAMES


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(CommonOptions):
    probe_file: str = opt(text, help="where lines go")
    probe_mood: str = opt(text, default="", help="a file that says how to behave")


class ProbeDriver(LogDriver[ProbeOptions]):
    name = "probe"
    options_type = ProbeOptions

    async def open(self) -> None:
        if self.mood() == ["refuse"]:
            raise ConnectionRefusedError("nobody listens")
        self.file = os.open(self.options.probe_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    async def send(self, batch: Batch) -> None:
        mood, *words = self.mood()
        lines = [b"%s %d %s\n" % (STREAM_NAMES[one.stream].encode(), one.position, one.line) for one in batch.records()]
        if mood == "reset":
            half = len(lines) // 2
            os.write(self.file, b"".join(lines[:half]))
            batch.ack(half)
            raise ConnectionResetError("half of it was taken")
        if mood == "hang":
            await asyncio.Event().wait()
        while mood == "spin":
            mood, *words = self.mood()
        if mood == "raise":
            raise RuntimeError("a mistake in the driver")
        if mood == "exit":
            os._exit(7)
        if mood == "poison" and any(words[0].encode() in line for line in lines):
            raise ConnectionResetError("the peer did not like it")
        if mood == "reject":
            for at, line in enumerate(lines):
                if words[0].encode() in line:
                    os.write(self.file, b"".join(lines[:at]))
                    batch.ack(at)
                    raise Reject(at, f"it has {words[0]}")
        os.write(self.file, b"".join(lines))

    async def close(self) -> None:
        os.close(self.file)

    def mood(self) -> list[str]:
        try:
            return Path(self.options.probe_mood).read_text().split() or ["well"]
        except OSError:
            return ["well"]


@hookimpl
def logd_log_drivers() -> list[type[LogDriver[Any]]]:
    return [ProbeDriver]

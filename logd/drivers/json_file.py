"""json-file: a file per container, as Docker's driver of that name writes it: what ships those reads it unchanged.

Source: moby daemon/logger/jsonfilelog. The file is `FOLDER/ID-json.log` in the container's folder. Each line gets into
it exactly once, whatever is killed when: see logfile.
"""

import asyncio
import os
import re
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from logd.batch import Batch, ContainerInfo, Group
from logd.driver import CommonOptions, LogDriver, boolean, opt
from logd.drivers.jsonlog import encode, encode_attributes
from logd.drivers.logfile import UNLIMITED, Limits, LogFile, Place
from logd.hookspecs import hookimpl
from logd.units import parse_size

WRITERS: Final = 4
COMPRESSORS: Final = 1
COMPRESSORS_NICE: Final = 10


def parse_max_size(text: str) -> int:
    """Parse a decimal size, such as `10m`."""
    size = parse_size(text)
    if size <= 0:
        raise ValueError("max-size must be a positive number")
    return size


def parse_max_file(text: str) -> int:
    """Parse a number of files."""
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        raise ValueError(f"{text!r} is not a whole number")
    if int(text) < 1:
        raise ValueError("max-file cannot be less than 1")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class JsonFileOptions(CommonOptions):
    """Docker's log-opts of json-file."""

    max_size: int = opt(parse_max_size, default=UNLIMITED, help="rotate once the file has this size, such as 10m")
    max_file: int = opt(parse_max_file, default=1, help="how many files to keep, the one being written included")
    compress: bool = opt(boolean, default=False, help="compress rotated files with gzip")

    def __post_init__(self) -> None:
        """Check what goes together."""
        if self.compress and (self.max_file < 2 or self.max_size == UNLIMITED):
            raise ValueError("compress cannot be true when max-file is less than 2 or max-size is not set")


def _be_nice() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), COMPRESSORS_NICE)


# Threads of their own: a disk that hangs must not use up those in which other drivers look up addresses.
_writers: Final = ThreadPoolExecutor(WRITERS, "json-file")
_compressors: Final = ThreadPoolExecutor(COMPRESSORS, "json-file-gzip", initializer=_be_nice)


class JsonFileDriver(LogDriver[JsonFileOptions]):
    """A container's file. The memo of a batch is how far that file has come."""

    name = "json-file"
    options_type = JsonFileOptions
    per_container = True
    is_local = True

    def __init__(self, options: JsonFileOptions) -> None:
        super().__init__(options)
        self._attributes = b""
        self._place: Place | None = None
        self._file: LogFile | None = None
        self._unwritten: Batch | None = None

    async def open(self) -> None:
        """Write what could not be written, if anything: while the disk is full no record is to blame for that."""
        if self._unwritten is not None:
            await self._append(self._unwritten)
            await self.close()  # the place stays where it was; the next batch finds these records there

    async def send(self, batch: Batch) -> None:
        """Append the batch."""
        self._unwritten = batch
        self._place = await self._append(batch)
        self._unwritten = None
        batch.memo = self._place.pack()

    async def _append(self, batch: Batch) -> Place:
        if self._file is None:
            self._file = self._begin(batch)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_writers, _append, self._file, batch.groups, self._attributes)

    async def close(self) -> None:
        """Let go of the file. A thread that still writes to it, on a disk that hangs, does so when it is done."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def resume(self, container: ContainerInfo, memo: bytes) -> None:
        """Go on where the container's file was at the last batch that counts."""
        self._place = Place.unpack(memo)

    def forget(self, container: ContainerInfo) -> None:
        """Let go of the file."""
        super().forget(container)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self, batch: Batch) -> LogFile:
        container = batch.container
        tag = {} if self.options.tag is None else {"tag": self.tag(container)}
        self._attributes = encode_attributes(self.attributes(container) | tag)
        mark = zlib.crc32(self._attributes)
        place = self._place
        if place is None or place.mark != mark:
            run = blake2b(batch.id.encode() + self._attributes, digest_size=8).digest()
            place = Place(run, mark=mark)
        options = self.options
        limits = Limits(options.max_size, options.max_file, options.compress)
        return LogFile(os.path.join(container.folder, f"{container.id}-json.log"), limits, place, _compressors)


def _append(file: LogFile, groups: Sequence[Group], attributes: bytes) -> Place:
    return file.append(encode(groups, attributes))


@hookimpl
def logd_log_drivers() -> list[type[JsonFileDriver]]:
    """The drivers of this module."""
    return [JsonFileDriver]

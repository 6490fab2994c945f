"""json-file: Docker's file, and each line in it exactly once, whatever happens to the process, the disk or the file."""

import asyncio
import contextlib
import gzip
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import json_file_lives as lives
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logd.batch import Batch, ContainerInfo, Group
from logd.driver import parse_options
from logd.drivers.json_file import JsonFileDriver, JsonFileOptions
from logd.drivers.jsonlog import encode
from logd.drivers.logfile import ATTRIBUTE, Limits, LogFile, Place
from logd.errors import InvalidParameter
from logd.record import STDERR, STDOUT

ID = "ab" * 32
T = 1_700_000_000_000_000_000
WAIT_S = 20.0


def options(**log_opts: str) -> JsonFileOptions:
    return parse_options(
        "json-file log driver", JsonFileOptions, {name.replace("_", "-"): value for name, value in log_opts.items()}
    )


def container(folder: Path, **more: Any) -> ContainerInfo:
    return ContainerInfo(id=ID, name="web", folder=str(folder), **more)


def batch(folder: Path, lines: list[bytes], first: int = 0, **more: Any) -> Batch:
    return Batch(container(folder, **more), [Group(T + first, STDOUT, first, first + len(lines), lines)])


def log(folder: Path, suffix: str = "") -> Path:
    return folder / f"{ID}-json.log{suffix}"


def texts(*files: Path) -> list[str]:
    """The `log` of each record of the files, without its newline."""
    content = b"".join(map(lives.content, files))
    assert content.endswith(b"\n") or not content
    return [json.loads(record)["log"].removesuffix("\n") for record in content.splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {one.name: lives.content(one) for one in folder.iterdir()}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.asynccontextmanager
async def delivering(folder: Path, memo: bytes = b"", **log_opts: str) -> Any:
    driver = JsonFileDriver(options(**log_opts))
    driver.resume(container(folder), memo)
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close()


async def send(driver: JsonFileDriver, folder: Path, *lines: bytes, first: int = 0) -> bytes:
    """Send lines, return the memo."""
    one = batch(folder, list(lines), first)
    await driver.send(one)
    assert len(one.memo) <= 64
    return one.memo


# -- options ----------------------------------------------------------------------------------------------------------


def test_the_options_have_the_names_and_defaults_of_docker() -> None:
    assert (options().max_size, options().max_file, options().compress) == (-1, 1, False)
    given = options(max_size="10m", max_file="3", compress="true", tag="t", labels="a,b", labels_regex="^c", env="E",
                    env_regex="^F")  # fmt: skip
    assert (given.max_size, given.max_file, given.compress, given.labels) == (10_000_000, 3, True, ("a", "b"))


@pytest.mark.parametrize(
    ("log_opts", "words"),
    [
        ({"max_size": "0"}, "max-size must be a positive number"),
        ({"max_size": "-1"}, "max-size: invalid size: '-1'"),
        ({"max_size": "10 apples"}, "max-size: invalid size: '10 apples'"),
        ({"max_file": "0"}, "max-file cannot be less than 1"),
        ({"max_file": "x"}, "max-file: 'x' is not a whole number"),
        ({"compress": "maybe"}, "compress: 'maybe' (accepted: true, false)"),
        ({"compress": "true"}, "compress cannot be true when max-file is less than 2 or max-size is not set"),
        ({"compress": "true", "max_size": "1k"}, "compress cannot be true when max-file is less than 2"),
        ({"compress": "true", "max_file": "2"}, "compress cannot be true when max-file is less than 2"),
        ({"max_files": "2"}, "unknown log opt 'max-files' for json-file log driver"),
    ],
)
def test_a_bad_option_is_refused_with_the_words_of_docker(log_opts: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        options(**log_opts)
    assert words in str(refused.value)


# -- the file ---------------------------------------------------------------------------------------------------------


async def test_three_lines_are_three_records_in_the_file_of_docker(tmp_path: Path) -> None:
    async with delivering(tmp_path) as driver:
        groups = [Group(T, STDOUT, 0, 4, [b"1", b"2"]), Group(T + 5 * 10**8, STDERR, 0, 2, [b"3"])]
        await driver.send(Batch(container(tmp_path), groups))
    assert log(tmp_path).read_bytes() == (
        b'{"log":"1\\n","stream":"stdout","time":"2023-11-14T22:13:20Z"}\n'
        b'{"log":"2\\n","stream":"stdout","time":"2023-11-14T22:13:20Z"}\n'
        b'{"log":"3\\n","stream":"stderr","time":"2023-11-14T22:13:20.5Z"}\n'
    )
    assert log(tmp_path).stat().st_mode & 0o7777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == [f"{ID}-json.log"]


async def test_a_tag_is_stored_when_it_is_asked_for_and_labels_are_too(tmp_path: Path) -> None:
    one = batch(tmp_path, [b"x"], labels={"a": "1", "b": "2"})
    async with delivering(tmp_path, tag="{{.ID}}", labels="a") as driver:
        await driver.send(one)
    assert json.loads(log(tmp_path).read_bytes())["attrs"] == {"a": "1", "tag": ID[:12]}


async def test_without_a_tag_or_labels_there_are_no_attrs(tmp_path: Path) -> None:
    one = batch(tmp_path, [b"x"], labels={"a": "1"})
    async with delivering(tmp_path, labels="z") as driver:
        await driver.send(one)
    assert list(json.loads(log(tmp_path).read_bytes())) == ["log", "stream", "time"]


async def test_a_second_driver_can_not_write_to_the_same_file(tmp_path: Path) -> None:
    async with delivering(tmp_path) as first, delivering(tmp_path) as second:
        await send(first, tmp_path, b"first")
        with pytest.raises(OSError, match="another log driver or process writes to this folder"):
            await send(second, tmp_path, b"second")
        await send(first, tmp_path, b"first again", first=1)
    assert texts(log(tmp_path)) == ["first", "first again"]


async def test_a_folder_that_is_gone_is_an_error_that_can_pass(tmp_path: Path) -> None:
    async with delivering(tmp_path / "gone") as driver:
        with pytest.raises(FileNotFoundError):
            await send(driver, tmp_path / "gone", b"x")


# -- rotation ---------------------------------------------------------------------------------------------------------


async def test_thirty_six_short_lines_are_rotated_and_compressed_as_docker_does(tmp_path: Path) -> None:
    lines = [b"line%d" % number for number in range(36)]
    async with delivering(tmp_path, max_size="1k", max_file="3", compress="true") as driver:
        for number, line in enumerate(lines):
            await send(driver, tmp_path, line, first=number)
        until(lambda: log(tmp_path, ".1.gz").exists() and log(tmp_path, ".2.gz").exists())
        until(lambda: not log(tmp_path, ".1").exists())
    assert texts(*(log(tmp_path, suffix) for suffix in (".2.gz", ".1.gz", ""))) == [line.decode() for line in lines]
    assert {one.name.removeprefix(f"{ID}-json.log") for one in tmp_path.iterdir()} == {"", ".1.gz", ".2.gz"}
    assert {one.stat().st_mode & 0o7777 for one in tmp_path.iterdir()} == {0o640}
    for suffix in (".1.gz", ".2.gz"):
        data = log(tmp_path, suffix).read_bytes()
        last = json.loads(gzip.decompress(data).splitlines()[-1])["time"]
        extra = b'{"lastTime":"%s"}' % last.encode()
        assert data.startswith(b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + bytes([len(extra), 0]) + extra)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=60), st.integers(1, 300), st.integers(1, 4), st.integers(1, 9))
def test_a_file_is_rotated_before_the_record_that_finds_it_full(
    sizes: list[int], max_size: int, max_files: int, at_a_time: int
) -> None:
    records = [encode([Group(T + number, STDOUT, 0, 0, [b"x" * size])]) for number, size in enumerate(sizes)]
    with logfile(Limits(max_size, max_files)) as (folder, file):
        for at in range(0, len(records), at_a_time):
            file.append(b"".join(records[at : at + at_a_time]))
        assert contents(folder) == rotated_by_docker(records, max_size, max_files)


def rotated_by_docker(records: list[bytes], max_size: int, max_files: int) -> dict[str, bytes]:
    """What moby's WriteLogEntry leaves behind, record by record."""
    files = [b""]
    for record in records:
        if len(files[0]) >= max_size:
            files = [b"", *files][:max_files]
        files[0] += record
    return {f"log.{number}" if number else "log": content for number, content in enumerate(files)}


@contextlib.contextmanager
def logfile(limits: Limits, place: Place | None = None, folder: Path | None = None) -> Iterator[tuple[Path, LogFile]]:
    with contextlib.ExitStack() as stack:
        folder = folder or stack.enter_context(scratch())
        compressor = stack.enter_context(ThreadPoolExecutor(1))
        file = LogFile(str(folder / "log"), limits, place or Place(b"run name"), compressor)
        yield folder, file
        file.close()


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="logd-json-file-") as name:
        yield Path(name)


async def test_with_one_file_the_reader_of_the_old_one_can_finish_it(tmp_path: Path) -> None:
    async with delivering(tmp_path, max_size="100") as driver:
        await send(driver, tmp_path, b"a" * 100)
        with log(tmp_path).open() as reader:
            await send(driver, tmp_path, b"b", first=1)
            assert json.loads(reader.read())["log"] == "a" * 100 + "\n"
    assert texts(log(tmp_path)) == ["b"]
    assert len(list(tmp_path.iterdir())) == 1


async def test_fewer_files_than_there_were_remove_the_oldest(tmp_path: Path) -> None:
    memo = b""
    for files, first in (("4", 0), ("2", 10)):
        async with delivering(tmp_path, memo, max_size="1", max_file=files) as driver:
            for number in range(first, first + 5):
                memo = await send(driver, tmp_path, b"%d" % number, first=number)
        assert len(list(tmp_path.iterdir())) == int(files)
    assert texts(log(tmp_path, ".1"), log(tmp_path)) == ["13", "14"]


async def test_what_a_crash_left_uncompressed_is_compressed_later(tmp_path: Path) -> None:
    async with delivering(tmp_path, max_size="1", max_file="5") as driver:
        for number in range(3):
            memo = await send(driver, tmp_path, b"%d" % number, first=number)
    (tmp_path / f".{ID}-json.log.gz.new").write_bytes(b"half of a file")
    async with delivering(tmp_path, memo, max_size="1", max_file="5", compress="true") as driver:
        await send(driver, tmp_path, b"3", first=3)
        names = {f"{ID}-json.log{suffix}" for suffix in ("", ".1.gz", ".2.gz", ".3.gz")}
        until(lambda: {one.name for one in tmp_path.iterdir()} == names)
    assert texts(*(log(tmp_path, suffix) for suffix in (".3.gz", ".2.gz", ".1.gz", ""))) == ["0", "1", "2", "3"]


# -- exactly once -----------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=40),
    limits=st.builds(Limits, st.sampled_from((-1, 1, 60, 200, 1000)), st.integers(1, 5), st.booleans()),
    saved=st.floats(0, 1),
    died=st.floats(0, 1),
    torn=st.integers(0, 400),
    at_a_time=st.integers(1, 9),
)
def test_whoever_dies_anywhere_and_goes_on_from_an_older_place_leaves_the_files_as_if_nothing_had_been(
    sizes: list[int], limits: Limits, saved: float, died: float, torn: int, at_a_time: int
) -> None:
    records = [encode([Group(T + number, STDOUT, 0, 0, [b"x" * size])]) for number, size in enumerate(sizes)]
    died_at = round(died * len(records))
    saved_at = round(saved * died_at)
    with scratch() as folder:
        with logfile(limits, folder=folder) as (_, file):
            file.append(b"")
            place = file.append(b"".join(records[:saved_at]))
            file.append(b"".join(records[saved_at:died_at]))
        tear(folder / "log", place, torn)
        with logfile(limits, Place.unpack(place.pack()), folder) as (_, file):
            for at in range(saved_at, len(records), at_a_time):
                file.append(b"".join(records[at : at + at_a_time]))
            place = file.append(b"")
        max_size = limits.max_size if limits.max_size > 0 else sum(map(len, records))
        found = {name.removesuffix(".gz"): content for name, content in contents(folder).items()}
        assert found == rotated_by_docker(records, max_size, limits.max_files)
        assert place.position == sum(map(len, records))


def tear(file: Path, place: Place, torn: int) -> None:
    """Leave of the file what a write that was cut short would have, never less than at `place`."""
    base = int(os.getxattr(file, ATTRIBUTE).split()[1])
    os.truncate(file, max(place.position - base, file.stat().st_size - torn, 0))


async def test_what_lies_beyond_the_memo_is_not_written_again(tmp_path: Path) -> None:
    async with delivering(tmp_path) as driver:
        memo = await send(driver, tmp_path, b"1", b"2")
        await send(driver, tmp_path, b"3", b"4", first=2)
    before = log(tmp_path).stat()
    async with delivering(tmp_path, memo) as driver:
        await send(driver, tmp_path, b"3", first=2)
        await driver.send(Batch(container(tmp_path), [Group(T + 2, STDOUT, 3, 4, [b"4"]), group(5, b"5")]))
    assert texts(log(tmp_path)) == ["1", "2", "3", "4", "5"]
    assert log(tmp_path).stat().st_ino == before.st_ino


def group(first: int, *lines: bytes) -> Group:
    return Group(T + first, STDOUT, first, first + len(lines), list(lines))


async def test_a_crash_before_the_first_memo_was_kept_writes_nothing_twice(tmp_path: Path) -> None:
    left = []
    for _ in range(2):
        async with delivering(tmp_path, max_size="200", max_file="2") as driver:
            await send(driver, tmp_path, *(b"line %d" % number for number in range(50)))
        left.append(contents(tmp_path))
    assert left[0] == left[1]
    assert texts(log(tmp_path, ".1"), log(tmp_path))[-5:] == [f"line {number}" for number in range(45, 50)]


async def test_a_driver_that_comes_back_for_other_lines_goes_on_in_the_file(tmp_path: Path) -> None:
    async with delivering(tmp_path) as driver:
        await send(driver, tmp_path, b"1", b"2")
    async with delivering(tmp_path) as driver:
        await send(driver, tmp_path, b"7", b"8", first=6)
    assert texts(log(tmp_path)) == ["1", "2", "7", "8"]


async def test_with_another_tag_the_lines_go_to_the_end_of_the_file(tmp_path: Path) -> None:
    async with delivering(tmp_path, tag="old") as driver:
        memo = await send(driver, tmp_path, b"1")
    async with delivering(tmp_path, memo, tag="new") as driver:
        memo = await send(driver, tmp_path, b"2", first=1)
        await send(driver, tmp_path, b"3", first=2)
    async with delivering(tmp_path, memo, tag="new") as driver:
        await send(driver, tmp_path, b"3", first=2)
        await send(driver, tmp_path, b"4", first=3)
    assert texts(log(tmp_path)) == ["1", "2", "3", "4"]
    tags = [json.loads(one)["attrs"]["tag"] for one in log(tmp_path).read_bytes().splitlines()]
    assert tags == ["old", "new", "new", "new"]


async def test_lines_that_someone_else_wrote_are_left_alone_and_ours_follow_on_a_line_of_their_own(
    tmp_path: Path,
) -> None:
    async with delivering(tmp_path) as driver:
        memo = await send(driver, tmp_path, b"1")
        with log(tmp_path).open("ab") as file:
            file.write(b"# edited")
        await send(driver, tmp_path, b"2", first=1)
    with log(tmp_path).open("ab") as file:
        file.write(b"# edited again\n")
    async with delivering(tmp_path, memo) as driver:
        await send(driver, tmp_path, b"2", b"3", first=1)
    lines = log(tmp_path).read_bytes().splitlines()
    assert [line for line in lines if line.startswith(b"#")] == [b"# edited", b"# edited again"]
    assert {json.loads(line)["log"] for line in lines if not line.startswith(b"#")} == {"1\n", "2\n", "3\n"}


async def test_a_file_that_was_emptied_goes_on_at_its_beginning(tmp_path: Path) -> None:
    async with delivering(tmp_path) as driver:
        await send(driver, tmp_path, b"1")
        os.truncate(log(tmp_path), 0)
        await send(driver, tmp_path, b"2", first=1)
        memo = await send(driver, tmp_path, b"3", first=2)
    assert texts(log(tmp_path)) == ["2", "3"]
    os.truncate(log(tmp_path), 3)
    async with delivering(tmp_path, memo) as driver:
        await send(driver, tmp_path, b"4", first=3)
    assert log(tmp_path).read_bytes().startswith(b'{"l\n{"log":"4')


async def test_a_file_that_was_moved_or_removed_begins_anew(tmp_path: Path) -> None:
    async with delivering(tmp_path) as driver:
        await send(driver, tmp_path, b"1")
        log(tmp_path).rename(tmp_path / "elsewhere")
        await send(driver, tmp_path, b"2", first=1)
        log(tmp_path).unlink()
        memo = await send(driver, tmp_path, b"3", first=2)
        await send(driver, tmp_path, b"4", first=3)
    async with delivering(tmp_path, memo) as driver:
        await send(driver, tmp_path, b"4", b"5", first=3)
    assert texts(log(tmp_path)) == ["3", "4", "5"]
    assert texts(tmp_path / "elsewhere") == ["1"]


# -- disks ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(folder: Path, kind: str, flags: str = "") -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", kind, *(("-o", flags) if flags else ()), kind, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_record_that_a_full_disk_tore_is_completed_once_there_is_room(tmp_path: Path) -> None:
    lines = [b"%04d %s" % (number, b"x" * 100) for number in range(1000)]
    with mounted(tmp_path / "small", "tmpfs", "size=128k") as folder:
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(64 << 10))
        async with delivering(folder) as driver:
            memo = await send(driver, folder, *lines[:10])
            for _ in range(3):
                with pytest.raises(OSError, match="No space left on device"):
                    await send(driver, folder, *lines[10:500], first=10)
                await driver.close()
                with pytest.raises(OSError, match="No space left on device"):
                    await driver.open()  # so that no record is blamed
                await driver.close()
            assert not log(folder).read_bytes().endswith(b"\n")
            ballast.unlink()
            await driver.open()
            await send(driver, folder, *lines[10:300], first=10)
            await driver.send(Batch(container(folder), [Group(T + 10, STDOUT, 0, 0, lines[300:500])]))
        assert texts(log(folder)) == [line.decode() for line in lines[:500]]
        async with delivering(folder, memo) as driver:
            await send(driver, folder, *lines[10:500], first=10)
        assert texts(log(folder)) == [line.decode() for line in lines[:500]]


async def test_while_a_disk_hangs_others_go_on_and_what_was_left_behind_is_not_written_twice(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    with mounted_image(image, tmp_path / "disk") as folder:
        async with delivering(folder) as driver:
            await send(driver, folder, b"1")
            subprocess.run(["fsfreeze", "-f", str(folder)], check=True)
            try:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await send(driver, folder, b"2", b"3", first=1)
                await driver.close()
                with pytest.raises(OSError, match="another log driver or process"):
                    await driver.open()
                await driver.close()
            finally:
                subprocess.run(["fsfreeze", "-u", str(folder)], check=True)
            await opened(driver)
            await send(driver, folder, b"2", b"3", first=1)
            await send(driver, folder, b"4", first=3)
        assert texts(log(folder)) == ["1", "2", "3", "4"]


async def opened(driver: JsonFileDriver) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await driver.open()
            except OSError:
                await driver.close()
                await asyncio.sleep(0.01)
            else:
                return


@contextlib.contextmanager
def mounted_image(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_without_extended_attributes_the_inode_tells_how_far_it_had_come(tmp_path: Path) -> None:
    with mounted(tmp_path / "plain", "ramfs") as folder:
        async with delivering(folder, max_size="150", max_file="4") as driver:
            memo = await send(driver, folder, b"1", b"2")
            await send(driver, folder, b"3", b"4", b"5", first=2)
        with pytest.raises(OSError, match="not supported"):
            os.getxattr(log(folder), ATTRIBUTE)
        async with delivering(folder, memo, max_size="150", max_file="4") as driver:
            await send(driver, folder, b"3", b"4", b"5", first=2)
            await send(driver, folder, b"6", first=5)
        assert texts(log(folder, ".1"), log(folder)) == ["1", "2", "3", "4", "5", "6"]


# -- killed, and read by a shipper ------------------------------------------------------------------------------------


class Shipper:
    """What Filebeat and Promtail do: know files by inode, remember an offset for each, ship whole lines behind it."""

    def __init__(self, folder: Path, names: str) -> None:
        self.folder = folder
        self.names = names
        self.offsets: dict[int, int] = {}
        self.shipped: list[bytes] = []

    def scan(self) -> None:
        for path in sorted(self.folder.glob(self.names), reverse=True):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                self.read(file)

    def read(self, file: Any) -> None:
        found = os.fstat(file.fileno())
        offset = self.offsets.get(found.st_ino, 0)
        if found.st_size < offset:
            offset = 0  # taken for a file that was emptied: everything is shipped again
        file.seek(offset)
        data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.shipped += whole.splitlines()
        self.offsets[found.st_ino] = offset + len(whole)


def shipped_over_kills(folder: Path, how: str, log_opts: dict[str, str]) -> tuple[Shipper, list[bytes]]:
    """What a shipper got over 60 kills, and what there was to be got."""
    folder.mkdir()
    shipper = Shipper(folder, "*-json.log*")
    argv = [sys.executable, lives.__file__, str(folder), json.dumps(log_opts), how, "60"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            shipper.scan()
            time.sleep(random.uniform(0, 0.005))
        assert process.stdout
        output = process.stdout.read()
    assert process.returncode == 0
    kills, records = map(int, output.split())
    assert kills == 60
    shipper.scan()
    return shipper, encode(lives.groups(0, records)).splitlines()


@pytest.mark.parametrize(
    ("how", "log_opts"),
    [
        ("time", {}),
        ("time", {"max-size": "200k", "max-file": "1000"}),
        ("step", {"max-size": "40k", "max-file": "1000"}),
    ],
)
def test_a_shipper_gets_each_line_once_over_sixty_kills(tmp_path: Path, how: str, log_opts: dict[str, str]) -> None:
    shipper, wanted = shipped_over_kills(tmp_path / "log", how, log_opts)
    counted = Counter(shipper.shipped)
    assert [line for line, count in counted.items() if count > 1] == []
    assert counted.keys() == set(wanted)
    if not log_opts:
        assert shipper.shipped == wanted


@pytest.mark.parametrize("how", ["time", "step"])
@pytest.mark.parametrize(
    "log_opts",
    [
        {"max-size": "20k"},
        {"max-size": "20k", "max-file": "3"},
        {"max-size": "60k", "max-file": "4", "compress": "true"},
    ],
)
def test_the_files_that_are_kept_hold_the_last_lines_once_and_in_order_over_sixty_kills(
    tmp_path: Path, how: str, log_opts: dict[str, str]
) -> None:
    folder = tmp_path / "log"
    _, wanted = shipped_over_kills(folder, how, log_opts)
    files = lives.kept_files(folder)
    assert len(files) == int(log_opts.get("max-file", "1"))
    lines = b"".join(map(lives.content, files)).splitlines()
    assert lines == wanted[-len(lines) :]


def test_a_file_that_is_there_plain_and_compressed_is_never_seen_twice_while_it_moves_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rename = tmp_path / "web-json.log", os.rename
    with ThreadPoolExecutor(1) as executor:
        log = LogFile(str(path), Limits(100, 5, compress=True), Place(b"a run..."), executor)
        for number in range(30):
            log.append(b"%d %s\n" % (number, b"x" * 50))
    log.close()
    for compressed in tmp_path.glob("*.gz"):  # as the compressor leaves it when it is killed before its last step
        plain = compressed.with_suffix("")
        plain.write_bytes(lives.content(compressed))
        os.setxattr(plain, ATTRIBUTE, os.getxattr(compressed, ATTRIBUTE))

    def look() -> list[bytes]:
        lines = b"".join(map(lives.content, lives.kept_files(tmp_path))).splitlines()
        assert len(lines) == len(set(lines))
        return lines

    def rename_and_look(*arguments: str) -> None:
        rename(*arguments)
        look()

    monkeypatch.setattr(os, "rename", rename_and_look)
    with ThreadPoolExecutor(1) as executor:
        log = LogFile(str(path), Limits(100, 5, compress=True), Place(b"a run..."), executor)
        log.append(b"".join(b"%d %s\n" % (number, b"x" * 50) for number in range(34)))
    log.close()
    assert [int(line.split()[0]) for line in look()] == list(range(24, 34))

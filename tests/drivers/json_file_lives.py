"""A delivery to json-file that is killed again and again; run by test_json_file.

    python json_file_lives.py FOLDER OPTIONS HOW LIVES

HOW is `time`: killed at a random moment; or `step`: the n-th life at its n-th operation on the folder (open, rename,
remove, list, set attribute), so that each step of a rotation is hit. What survives a life is what delivery keeps: a
cursor file that is replaced after `send` has returned, with the number of the next record and the memo. A last life
goes beyond all that has been sent and ends by itself. Prints the number of kills, and of records.
"""

import asyncio
import gzip
import json
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

from logd.batch import Batch, ContainerInfo, Group
from logd.driver import parse_options
from logd.drivers.json_file import JsonFileDriver, JsonFileOptions
from logd.record import STDERR, STDOUT

CONTAINER_ID = "c" * 64
ENDLESS = 1 << 40
LONGEST_LIFE_S = 0.02
LARGEST_BATCH = 400
SAVED_EACH = 3
"""Every third batch moves the cursor: what has been sent and not noted is what it is about."""
BEYOND = (SAVED_EACH + 1) * LARGEST_BATCH


def record(number: int) -> tuple[int, int, bytes]:
    """Time, stream and text of a record, always the same; each text occurs once."""
    batch = number // 7
    filler = (
        b"<x>\t" * (number * 7919 % 40) + (b"\xff" if number % 50 == 0 else b"") + b"y" * (number % 900 == 0) * 20000
    )
    return (
        1_700_000_000_000_000_000 + batch * 1_000_003,
        STDERR if batch % 5 == 0 else STDOUT,
        b"record %d %s" % (number, filler),
    )


def groups(start: int, end: int) -> list[Group]:
    found: list[Group] = []
    for number in range(start, end):
        time_ns, stream, line = record(number)
        if found and (found[-1].time_ns, found[-1].stream) == (time_ns, stream):
            found[-1].lines.append(line)
        else:
            found.append(Group(time_ns, stream, number, number, [line]))
    return found


def kept(folder: Path) -> tuple[int, str]:
    """The cursor: the number of the next record, and the memo."""
    cursor = folder.parent / "cursor"
    found = json.loads(cursor.read_text()) if cursor.exists() else {"next": 0, "memo": ""}
    return found["next"], found["memo"]


async def live(folder: Path, options: dict[str, str], records: int) -> None:
    """Deliver what is left of so many records, in batches that are cut elsewhere each time."""
    cursor = folder.parent / "cursor"
    driver = JsonFileDriver(parse_options("json-file log driver", JsonFileOptions, options))
    container = ContainerInfo(id=CONTAINER_ID, name="web", folder=str(folder))
    number, memo = kept(folder)
    sent = 0
    driver.resume(container, bytes.fromhex(memo))
    await driver.open()
    while number < records:
        end = min(number + random.randint(1, LARGEST_BATCH), records)
        batch = Batch(container, groups(number, end))
        await driver.send(batch)
        number, sent = end, sent + 1
        if sent % SAVED_EACH == 0 or number == records:
            new = cursor.with_suffix(".new")
            new.write_text(json.dumps({"next": number, "memo": batch.memo.hex()}))
            new.rename(cursor)
    await driver.close()


def die_at_step(folder: Path, step: int) -> None:
    """Be killed right before the step-th operation on a file in the folder."""
    steps = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        if event in {"open", "os.rename", "os.remove", "os.listdir", "os.setxattr"} and is_below(folder, arguments):
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def is_below(folder: Path, arguments: tuple[object, ...]) -> bool:
    first = arguments[0] if arguments else None
    return isinstance(first, int) or str(first).startswith(str(folder))


class Witness:
    """Looks at the files after each death: records without a gap or a double, and no file begins where one has been."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begun: set[int] = set()
        self.highest = -1

    def look(self) -> None:
        numbers: list[int] = []
        for file in kept_files(self.folder):
            found = [int(number) for number in re.findall(rb'^{"log":"record (\d+) .*"}$', content(file), re.MULTILINE)]
            if found and found[0] not in self.begun:
                assert found[0] > self.highest, f"{file.name} begins with {found[0]}, {self.highest} was written before"
                self.begun.add(found[0])
            numbers += found
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True, "doubled or missing"
        self.highest = max(self.highest, *numbers[-1:], -1)


def kept_files(folder: Path) -> list[Path]:
    """Oldest first; of a file that is there plain and compressed the plain one."""
    names = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
    plain = {name.removesuffix(".gz"): folder / name for name in reversed(names)}
    return [plain[name] for name in sorted(plain, key=lambda name: -int("0" + name.partition(".log.")[2]))]


def content(file: Path) -> bytes:
    return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()


def main() -> None:
    folder, options, how = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
    lives, kills = int(sys.argv[4]), 0
    witness = Witness(folder)
    for number in range(1, lives + 1):
        child = os.fork()
        if not child:
            random.seed(os.getpid())
            if how == "step":
                die_at_step(folder, number)
            asyncio.run(live(folder, options, ENDLESS))
            os._exit(1)
        if how == "time":
            time.sleep(random.uniform(0, LONGEST_LIFE_S))
            os.kill(child, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        witness.look()
    records = kept(folder)[0] + BEYOND
    asyncio.run(live(folder, options, records))
    witness.look()
    print(kills, records)
    os._exit(0)


if __name__ == "__main__":
    main()

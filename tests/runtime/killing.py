"""Kill shims and keepers under load at random moments and hold the stored output to the input.

python tests/runtime/killing.py ROUNDS [RATE]: the long form; the tests run a few rounds. Needs root, runc and gcc.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bundle import delete, make_launch

from logd.logstore.options import StoreOptions
from logd.logstore.segment import Kind, data_name, index_name, segment_numbers, unpack_entry
from logd.record import STDOUT
from logd.runtime.protocol import Launch, read_exit_status
from logd.runtime.supervisor import Supervisor

LOGGEN_SOURCE = Path(__file__).parents[2] / "bench" / "loggen.c"


def build_loggen(folder: Path) -> Path:
    """Compile the generator, statically, for use inside a container."""
    target = folder / "loggen"
    if not target.exists():
        subprocess.run(["gcc", "-O2", "-static", "-o", target, LOGGEN_SOURCE], check=True)
    return target


def processes_named(comm: str, exec_root: Path) -> list[int]:
    """Return the pids of keeper ("logd-keeper") or shims ("logd-shim") that belong to this exec-root."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_one = entry.name.isdigit() and (entry / "comm").read_text().strip() == comm
            if is_one and str(exec_root) in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def kill_all(comm: str, exec_root: Path) -> None:
    """Kill them; one that is gone already, such as a shim's errand, is passed over."""
    for pid in processes_named(comm, exec_root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def run_under_fire(
    root: Path, exec_root: Path, name: str, victims: list[str], *, kills: int, lines: int, rate: int, options: list[str]
) -> dict[str, object]:
    """Run a generator, kill at random moments, return what the store holds and how the container ended."""
    exec_root.mkdir(parents=True, exist_ok=True)
    build_loggen(root)
    store = StoreOptions(max_size=1 << 40)
    command = ["/w/loggen", "gen", "-n", str(lines), "-o", f"/w/{name}.report", *options]
    launch = make_launch(
        root, exec_root, name, command + (["-r", str(rate)] if rate else []), binds=(str(root),), store=store
    )
    supervisor = Supervisor(exec_root)
    await supervisor.start()
    shim = await supervisor.launch(launch)
    await shim.start()
    done, ended = 0, None
    while done < kills and not shim.exited.done():
        await asyncio.sleep(random.uniform(0.001, 0.08))
        victim = random.choice(victims)
        if victim == "daemon":
            await supervisor.close()
            supervisor = Supervisor(exec_root)
            await supervisor.start()
            adopted = await supervisor.adopt(name, launch)
            done += 1
            if adopted is None:
                ended = read_exit_status(launch.container_dir)
                assert ended is not None, "the live container was not found again"
                break
            shim = adopted
            continue
        for pid in processes_named(f"logd-{victim}", exec_root):
            with contextlib.suppress(ProcessLookupError):  # a shim's errand, or a keeper that found another one
                os.kill(pid, signal.SIGKILL)
                done += 1
    if ended is None:
        ended = await asyncio.wait_for(shim.exited, 120)
        await asyncio.wait_for(shim.drained, 30)
        await asyncio.wait_for(shim.gone.wait(), 30)
    await supervisor.close()
    delete(launch)
    return {"kills": done, "code": ended.code, "known": ended.known, **stored(launch, lines), **report(root, name)}


def report(root: Path, name: str) -> dict[str, int]:
    """Return the generator's own account."""
    return {f"generator_{key}": value for key, value in json.loads((root / f"{name}.report").read_text()).items()}


def stored(launch: Launch, lines: int) -> dict[str, int]:
    """Check the stored stdout line by line, and the index against it."""
    folder = Path(launch.container_dir) / "log"
    files = [folder / data_name(number, STDOUT) for number in segment_numbers(str(folder))]
    checker = Path(launch.container_dir).parents[1] / "loggen"
    with subprocess.Popen(["cat", *files], stdout=subprocess.PIPE) as reader:
        argv = [checker, "check", "-n", str(lines)]
        counts = subprocess.run(argv, stdin=reader.stdout, capture_output=True, text=True, check=False)
    adopted = indexed = 0
    position = 0
    for number in segment_numbers(str(folder)):
        raw = (folder / index_name(number)).read_bytes()
        for at in range(96, len(raw), 32):
            entry = unpack_entry(raw[at : at + 32])
            assert entry is not None, "the index is torn"
            assert entry.sequence == at // 32, "the index misses an entry"
            if entry.kind in (Kind.DATA, Kind.ADOPTED) and entry.stream == STDOUT:
                assert entry.position == position, "the index has a hole"
                position += entry.length
                indexed += entry.length
                adopted += entry.kind == Kind.ADOPTED
    return {**json.loads(counts.stdout), "adopted": adopted, "indexed": indexed}


async def main() -> None:
    """Print one line a round, and a sum."""
    rounds = int(sys.argv[1])
    rate = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    total = 0
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder)
        for number in range(rounds):
            lines = rate * 4 if rate else 30_000_000
            outcome = await run_under_fire(
                root,
                root / "exec",
                f"k{number}",
                ["shim", "keeper", "daemon"],
                kills=25,
                lines=lines,
                rate=rate,
                options=[] if number % 2 else ["-b", "0"],
            )
            print(json.dumps(outcome), flush=True)
            total += int(str(outcome["kills"]))
            for file in (root / "containers" / f"k{number}" / "log").iterdir():
                file.unlink()
    print(f"{total} kills")


if __name__ == "__main__":
    asyncio.run(main())

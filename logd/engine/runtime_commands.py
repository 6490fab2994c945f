"""The OCI runtime's own commands, for what needs no shim: delete, pause, resume, update. For a bounded time each."""

import asyncio
import subprocess
from collections.abc import Sequence
from typing import Final

import orjson

RUNTIME_WAIT_S: Final = 30.0
"""After this a command is given up."""


async def run_command(argv: Sequence[str], stdin: bytes = b"") -> tuple[int, str]:
    """Run a command; return its exit code (-1: no answer in time) and what it complained of."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        _, words = await asyncio.wait_for(process.communicate(stdin), RUNTIME_WAIT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return -1, f"no answer in {RUNTIME_WAIT_S:.0f} s"
    return process.returncode or 0, words.decode(errors="replace").strip()


async def ask_runtime(runtime: Sequence[str], verb: str, *arguments: str, stdin: bytes = b"") -> str:
    """Run a verb of a runtime (`runc pause ID`); return "", or why it failed in the runtime's words."""
    code, words = await run_command([*runtime, "--log-format", "json", verb, *arguments], stdin)
    return _message(words) or f"{verb}: exit status {code}" if code else ""


def _message(words: str) -> str:
    """Return the last message of a runtime's log, which is JSON by the line; what is not is taken as it is."""
    last = words.rpartition("\n")[2]
    try:
        entry = orjson.loads(last)
    except orjson.JSONDecodeError:
        return last
    return str(entry.get("msg", last)) if isinstance(entry, dict) else last

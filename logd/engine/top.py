"""The processes of a container, as ps shows them. Source: Docker's `top`: arguments for ps, lines chosen by pid."""

import asyncio
import re
import subprocess
from collections.abc import Iterable
from typing import Final

from logd.errors import InvalidParameter, LogdError

ASCII_BLANKS: Final = " \t\n\f\r"
PS_WAIT_S: Final = 10.0
_RENAMED_PID: Final = re.compile(r"\s+([^\s]*)=\s*(PID[^\s]*)")
"""`-o comm=PID` would put another column under the name by which lines are chosen."""

Table = tuple[list[str], list[list[str]]]


def check_ps_args(ps_args: str) -> list[str]:
    """Return the arguments for ps; raises InvalidParameter for those that could show other columns as PID."""
    for name, title in _RENAMED_PID.findall(ps_args):
        if name != "pid":
            raise InvalidParameter(f'specifying "{name}={title}" is not allowed')
    return ps_args.split(" ")


async def processes(ps_args: str, pids: Iterable[int]) -> Table:
    """Return the titles and the lines of these processes; raises LogdError with the first line that ps complained."""
    args = check_ps_args(ps_args or "-ef")
    wanted = sorted(pids)
    code, output, _ = await _ps([*args, f"-q{','.join(map(str, wanted))}"])
    if code:  # some options can't be used together with -q
        code, output, complaint = await _ps(args)
        if code:
            raise LogdError(f"ps: {complaint.splitlines()[0] if complaint else f'exit status {code}'}")
    return parse_ps(output, set(wanted))


async def _ps(args: list[str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        "ps", *args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        output, complaint = await asyncio.wait_for(process.communicate(), PS_WAIT_S)
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise LogdError(f"ps: no answer in {PS_WAIT_S:.0f} s") from error
    return process.returncode or 0, output.decode(errors="replace"), complaint.decode(errors="replace")


def parse_ps(output: str, pids: set[int]) -> Table:
    """Return what ps printed of these processes, split at blanks; the last column keeps its own.

    Lines of threads (a `-` for the pid) follow their process. Raises LogdError where there is no column PID.
    """
    lines = output.split("\n")
    titles = lines[0].split()
    if "PID" not in titles:
        raise LogdError("Couldn't find PID field in ps output")
    column, rows, wanted = titles.index("PID"), [], False
    for line in lines[1:]:
        fields = [field for field in re.split(f"[{ASCII_BLANKS}]+", line) if field]
        if len(fields) <= column:
            continue
        if fields[column] != "-":
            if not fields[column].isdigit():
                raise LogdError(f"Unexpected pid '{fields[column]}'")
            wanted = int(fields[column]) in pids
        if wanted:
            last = len(titles) - 1
            rows.append([*fields[:last], " ".join(fields[last:])])
    return titles, rows

"""nft(8): hand it a text of rules, in this network namespace or, from a thread that is there, in another."""

import hashlib
import subprocess
from pathlib import Path
from typing import Final

from logd.config import find_program
from logd.errors import LogdError

PROGRAM: Final = "nft"
WAIT_S: Final = 20.0
"""Many times what the largest table takes; nft waits for others that change rules."""
DEFAULT_ROOT: Final = Path("/run/logd")


class NftFailed(LogdError):
    """The rules could not be set; those before are as they were."""


def table_name(exec_root: Path) -> str:
    """Return the name of a daemon's table: `logd`, and another one for each further daemon on a host."""
    if exec_root == DEFAULT_ROOT:
        return "logd"
    return f"logd_{hashlib.sha256(str(exec_root).encode()).hexdigest()[:8]}"


def is_installed() -> bool:
    """Tell whether there is such a program."""
    return find_program(PROGRAM) is not None


def apply(rules: str) -> None:
    """Carry out rules, all or none (blocks). Raises NftFailed."""
    program = find_program(PROGRAM)
    if program is None:
        raise NftFailed("nft is not installed (Debian: nftables); networks need it")
    try:
        done = subprocess.run(
            [program, "-f", "-"], input=rules, capture_output=True, text=True, timeout=WAIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NftFailed(f"{PROGRAM}: {error}") from error
    if done.returncode:
        raise NftFailed(f"{PROGRAM}: {done.stderr.strip().splitlines()[0] if done.stderr.strip() else 'failed'}")

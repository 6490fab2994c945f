"""The command line that run.py and forwarding.py share, and how the workloads that were chosen are run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Bench(Protocol):
    """Has a method for each workload, and engines to stop."""

    def stop(self) -> None:
        """Stop the engines."""


def parser(description: str | None, workloads: Sequence[str], *, quick: str) -> argparse.ArgumentParser:
    """Return a parser of the options that both have. `quick`: what --quick is said to be."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help=quick)
    made.add_argument("--only", default=",".join(workloads), help="workloads, with commas between")
    made.add_argument("--work", type=Path, default=Path("/var/tmp/logd-bench"))
    made.add_argument("--rounds", type=int)
    return made


def chosen(only: str, workloads: Sequence[str]) -> list[str]:
    """Return the workloads of --only in their own order; exit where there is no such."""
    wanted = set(only.split(","))
    if unknown := wanted - set(workloads):
        sys.exit(f"unknown workloads: {', '.join(sorted(unknown))} (there are: {', '.join(workloads)})")
    return [one for one in workloads if one in wanted]


def run_all(bench: Bench, names: Sequence[str]) -> None:
    """Run workloads, and stop the engines in any case."""
    try:
        for name in names:
            getattr(bench, name)()
    finally:
        bench.stop()

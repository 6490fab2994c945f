"""`logd doctor`: whether the daemon's host is in order, and what to do; without a daemon, whether it could be."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import click

from logd.cli.client import Client, Unreachable
from logd.cli.command import Command
from logd.cli.formats import TABLE, Columns, print_rows
from logd.cli.tables import print_json
from logd.cli.terminal import visible, wants_colour
from logd.errors import LogdError

TITLES: Final = {"Status": "STATUS", "Name": "CHECK", "Found": "FOUND", "Advice": "ADVICE"}
COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "bold red"}
TIMEOUT_S: Final = 60.0

Checks = Sequence[Mapping[str, str]]


@click.command(
    cls=Command,
    examples=(
        "logd doctor",
        "logd doctor --format json | jq 'select(.Status != \"ok\")'",
        "logd doctor --format 'table {{.Status}}\\t{{.Name}}'",
    ),
)
@click.option(
    "--format", "form", default=TABLE, metavar="FORMAT", help="table, json, a Go template, or table TEMPLATE."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@click.pass_obj
def doctor(client: Client, *, form: str, as_json: bool) -> None:
    """Look for what keeps containers from running, or logs from arriving, on the daemon's host, and say what to do.

    Kernel, cgroups, runtimes with known holes, disk, permissions, limits, log destinations. Where no daemon answers,
    the host alone. Exit status 1 if something has to be done.
    """
    checks = _checks(client)
    if as_json:
        print_json(checks)
    elif form != TABLE:
        print_rows(
            form, Columns(tuple(TITLES), TITLES), [{name: one[name.lower()] for name in TITLES} for one in checks]
        )
    elif wants_colour("auto", 1):
        _print_rich(checks)
    else:
        for check in checks:
            sys.stdout.write(f"{check['status']:<4}  {visible(check['name'])}: {visible(check['found'])}\n")
            if check["advice"]:
                sys.stdout.write(f"      {visible(check['advice'])}\n")
    failed = [check["name"] for check in checks if check["status"] == "fail"]
    if failed:
        raise LogdError(f"to be repaired: {', '.join(failed)}")


def _checks(client: Client) -> Checks:
    """Return the daemon's checks; those of this host where no daemon answers here. Raises Unreachable for elsewhere."""
    try:
        found: Checks = client.json("GET", "/logd/doctor")
    except Unreachable as error:
        if not client.is_local:
            raise
        daemon = {"name": "daemon", "status": "fail", "found": str(error), "advice": "see below what this host lacks"}
        return [daemon, *_checks_of_host()]
    return found


def _checks_of_host() -> Checks:
    """Return what the daemon's own program finds: this one doesn't import it. Raises LogdError."""
    command = [sys.executable, "-P", "-m", "logd.daemon.doctor"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().rpartition("\n")[2]
        raise LogdError(f"this host could not be examined: {reason}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LogdError(f"this host could not be examined: {error}") from error
    found: Checks = json.loads(done.stdout)
    return found


def _print_rich(checks: Checks) -> None:
    from rich.console import Console  # noqa: PLC0415  # 60 ms that only a terminal pays
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("STATUS", "CHECK", "FOUND"):
        table.add_column(title, no_wrap=title != "FOUND", overflow="fold")
    for check in checks:
        found = Text(visible(check["found"]))
        if check["advice"]:
            found.append("\n" + visible(check["advice"]), style="bold")
        table.add_row(
            Text(check["status"], style=COLOURS.get(check["status"], "")), Text(visible(check["name"])), found
        )
    Console(highlight=False, force_terminal=True).print(table)

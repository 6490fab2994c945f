"""`logd update`: other limits for containers, while they run or not."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from logd.cli.client import Client, quote
from logd.cli.command import Command
from logd.cli.completion import CONTAINER
from logd.cli.limits import LIMITS, limits
from logd.cli.references import each
from logd.cli.terminal import visible
from logd.errors import InvalidParameter


def _limits(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(LIMITS):
        function = option(function)
    return function


@click.command(
    cls=Command,
    examples=("logd update -m 256m --memory-swap 256m web", "logd update --restart unless-stopped web db"),
)
@_limits
@click.argument("containers", nargs=-1, required=True, type=CONTAINER, metavar="CONTAINER...")
@click.pass_obj
def update(client: Client, /, *, containers: Sequence[str], **options: Any) -> None:
    """Change the limits of containers, and what is done when they end; what is not named stays."""
    body = limits(options)
    if not body:
        raise InvalidParameter("you must provide one or more flags when using this command (logd update --help)")

    def change(name: str) -> None:
        answer = client.json("POST", f"/containers/{quote(name)}/update", json_body=body)
        for warning in answer.get("Warnings") or ():
            sys.stderr.write(f"logd: warning: {visible(warning)}\n")

    each(containers, change)

"""`logd diff`, `export` and `commit`: what a container's root holds."""

import sys
from collections.abc import Sequence
from typing import Final

import click

from logd.cli.client import Client, Response, quote
from logd.cli.command import Command
from logd.cli.completion import CONTAINER
from logd.cli.image_commands import split_reference
from logd.cli.output import STDOUT_FD, write_all
from logd.cli.terminal import is_terminal, visible
from logd.errors import InvalidParameter

KINDS: Final = "CAD"
"""Changed, added, deleted: the letters of the API's numbers."""


@click.command(cls=Command, examples=("logd diff web",))
@click.argument("container", type=CONTAINER)
@click.pass_obj
def diff(client: Client, *, container: str) -> None:
    """Show what has changed in a container's root since its image: C(hanged), A(dded), D(eleted)."""
    for item in client.json("GET", f"/containers/{quote(container)}/changes") or ():
        path = visible(item["Path"]) if is_terminal(1) else item["Path"]
        sys.stdout.write(f"{KINDS[item['Kind']]} {path}\n")


@click.command(cls=Command, examples=("logd export web | gzip > web.tar.gz", "logd export -o web.tar web"))
@click.option("-o", "--output", metavar="FILE", help="Write to this file instead of standard output.")
@click.argument("container", type=CONTAINER)
@click.pass_obj
def export(client: Client, *, output: str | None, container: str) -> None:
    """Write a container's root as a tar archive."""
    if output is None and is_terminal(STDOUT_FD):
        raise InvalidParameter("an archive is nothing for a terminal (use -o FILE, or a pipe)")
    with client.request("GET", f"/containers/{quote(container)}/export") as response:
        if output is None:
            _copy(response, STDOUT_FD)
            return
        try:
            file = open(output, "wb")  # noqa: SIM115  # it is closed below; here only its own errors are met
        except OSError as error:
            raise InvalidParameter(f"--output: {output}: {error.strerror}") from error
        with file:
            _copy(response, file.fileno())


def _copy(response: Response, descriptor: int) -> None:
    """Write the body as it comes. Raises Broken if it is cut short."""
    while not response.ended:
        write_all(descriptor, response.receive())


@click.command(
    cls=Command,
    examples=("logd commit web shop:fixed", "logd commit -c 'CMD [\"httpd\"]' -m 'with config' web shop:2"),
)
@click.option("-a", "--author", help="Who made it.")
@click.option(
    "-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="Apply an instruction, such as 'CMD sh'."
)
@click.option("-m", "--message", help="Note in the image's history.")
@click.option("-p", "--pause/--no-pause", default=True, help="Hold the container meanwhile (default), or not.")
@click.argument("container", type=CONTAINER)
@click.argument("name", required=False, metavar="[REPOSITORY[:TAG]]")
@click.pass_obj
def commit(
    client: Client,
    *,
    author: str | None,
    changes: Sequence[str],
    message: str | None,
    pause: bool,
    container: str,
    name: str | None,
) -> None:
    """Make an image of a container's root, and print its id."""
    repository, tag = split_reference(name or "")
    query = {
        "container": container, "repo": repository or None, "tag": tag or None, "author": author, "comment": message,
        "pause": pause, "changes": list(changes),
    }  # fmt: skip
    sys.stdout.write(f"{client.json('POST', '/commit', query)['Id']}\n")

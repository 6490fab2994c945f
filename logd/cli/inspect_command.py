"""`logd inspect`: everything about containers, images, networks and volumes."""

from collections.abc import Sequence
from typing import Any, Final

import click

from logd.cli.client import Client, Refused, quote
from logd.cli.command import Command
from logd.cli.completion import CONTAINER, Named
from logd.cli.formats import Template, print_document, print_lines
from logd.cli.references import each
from logd.cli.tables import print_json

PLACES: Final = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}
"""By type, in the order in which docker looks."""
FORMAT: Final = click.option("-f", "--format", "form", default="", metavar="FORMAT", help="json, or a Go template.")
SIZE: Final = click.option("-s", "--size", is_flag=True, help="Show the sizes of containers too.")


@click.command(
    cls=Command,
    examples=(
        "logd inspect web",
        "logd inspect -f '{{.State.Status}} {{.NetworkSettings.IPAddress}}' web",
        "logd inspect -f '{{range $p, $to := .NetworkSettings.Ports}}{{$p}} {{end}}' web",
        "logd inspect web | jq '.[0].State'",
    ),
)
@FORMAT
@SIZE
@click.option("--type", "kind", type=click.Choice(list(PLACES)), help="Look among these alone.")
@click.argument("names", nargs=-1, required=True, type=CONTAINER, metavar="NAME...")
@click.pass_obj
def inspect(client: Client, *, form: str, size: bool, kind: str | None, names: Sequence[str]) -> None:
    """Show everything about containers, images, networks or volumes, as a JSON list."""
    show(client, names, kind, form, size=size)


def show(client: Client, names: Sequence[str], kind: str | None, form: str, *, size: bool = False) -> None:
    """Print all that is found; go on after an error, and fail at the end."""
    template = None if form in {"", "json"} else Template(form)
    found: list[Any] = []
    try:
        each(names, lambda name: found.append(_details(client, name, kind, size=size)), echo=False)
    finally:
        if template is not None:
            print_lines(map(template.fill, found))
        elif form:
            print_document(form, found)
        else:
            print_json(found)


def inspect_of(kind: str, names_type: Named) -> click.Command:
    """Return `inspect` for things of one type: `logd network inspect`."""

    @click.command("inspect", cls=Command, examples=(f"logd {kind} inspect NAME",))
    @FORMAT
    @click.argument("names", nargs=-1, required=True, type=names_type, metavar=f"{kind.upper()}...")
    @click.pass_obj
    def inspect_one(client: Client, *, form: str, names: Sequence[str], size: bool = False) -> None:
        show(client, names, kind, form, size=size)

    if kind == "container":
        inspect_one = SIZE(inspect_one)
    inspect_one.help = f"Show everything about {kind}s, as a JSON list."
    return inspect_one


def _details(client: Client, name: str, kind: str | None, *, size: bool) -> object:
    for one in [kind] if kind else PLACES:
        query = {"size": True} if size and one == "container" else None
        try:
            return client.json("GET", PLACES[one].format(quote(name)), query)
        except Refused as error:
            if error.status != 404:
                raise
    raise Refused(404, f"No such {kind or 'object'}: {name}")

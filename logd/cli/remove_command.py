"""`logd network rm` and `logd volume rm`."""

from collections.abc import Sequence

import click

from logd.cli.client import Client, Refused, quote
from logd.cli.command import Command
from logd.cli.completion import Named
from logd.cli.references import each


def rm_of(kind: str, names_type: Named, words: str) -> click.Command:
    """Return `rm` for things of one type, whose names the API has below `/{kind}s`; `words` are its help."""

    @click.command("rm", cls=Command, help=words, examples=(f"logd {kind} rm NAME",))
    @click.option("-f", "--force", is_flag=True, help="Don't mind one that is not there.")
    @click.argument("names", nargs=-1, required=True, type=names_type, metavar=f"{kind.upper()}...")
    @click.pass_obj
    def rm(client: Client, *, force: bool, names: Sequence[str]) -> None:
        def remove(name: str) -> None:
            try:
                client.request("DELETE", f"/{kind}s/{quote(name)}", {"force": force or None}).close()
            except Refused as error:
                if not force or error.status != 404:
                    raise

        each(names, remove)

    return rm

"""Images from registries and to them: the requests, and what is shown of their course."""

import sys
from typing import Final

from logd import references
from logd.cli.client import Client, Query, Response, quote
from logd.cli.json_stream import results
from logd.cli.output import STDERR_FD, STDOUT_FD
from logd.cli.registry.display import Display
from logd.cli.registry.logins import headers_for
from logd.cli.terminal import visible
from logd.errors import InvalidParameter
from logd.references import Reference

NO_TAG: Final = "tag can't be used with --all-tags/-a"


def pull(client: Client, name: str, *, every: bool, platform: str | None, quiet: bool) -> None:
    """Take an image, or those of all tags, and print its full name. Raises LogdError."""
    wanted = _wanted(name, every=every, quiet=quiet)
    follow(_pulled(client, wanted, platform), STDOUT_FD, quiet=quiet)
    sys.stdout.write(f"{visible(str(wanted))}\n")


def pull_for(client: Client, image: str, platform: str | None, *, quiet: bool) -> None:
    """Take the image of a container that is to be made; what is shown of it is none of the container's output."""
    follow(_pulled(client, references.parse(image).with_default_tag(), platform), STDERR_FD, quiet=quiet)


def push(client: Client, name: str, *, every: bool, quiet: bool) -> None:
    """Give an image away, or those of all tags. Raises LogdError."""
    wanted = _wanted(name, every=every, quiet=quiet)
    if wanted.digest:
        raise InvalidParameter("cannot push a digest reference (write NAME:TAG)")
    path = f"/images/{quote(wanted.familiar_name)}/push"
    headers = {"X-Registry-Auth": "e30=", **headers_for(str(wanted))}  # {}: dockerd refuses a push without any
    follow(client.request("POST", path, {"tag": wanted.tag or None}, headers=headers), STDOUT_FD, quiet=quiet)
    if quiet:
        sys.stdout.write(f"{visible(str(wanted))}\n")


def follow(response: Response, descriptor: int, *, quiet: bool) -> None:
    """Show how the work goes on until it has ended. Raises Failed."""
    if quiet:
        for _ in results(response):
            pass
        return
    with Display(descriptor) as display:
        display.show(results(response))


def _wanted(name: str, *, every: bool, quiet: bool) -> Reference:
    wanted = references.parse(name)
    if every:
        if wanted.tag or wanted.digest:
            raise InvalidParameter(NO_TAG)
        return wanted
    if not quiet and not wanted.tag and not wanted.digest:
        sys.stdout.write(f"Using default tag: {references.DEFAULT_TAG}\n")
        sys.stdout.flush()
    return wanted.with_default_tag()


def _pulled(client: Client, wanted: Reference, platform: str | None) -> Response:
    query: Query = {
        "fromImage": wanted.familiar_name, "tag": wanted.digest or wanted.tag or None, "platform": platform or None,
    }  # fmt: skip
    return client.request("POST", "/images/create", query, headers=headers_for(str(wanted)))

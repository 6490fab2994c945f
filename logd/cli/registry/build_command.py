"""`logd build`: an image of a Dockerfile and of the files beside it.

Source: Docker Engine API 1.47, ImageBuild, by the builder of version 1.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import click

from logd.cli.client import Client, Query
from logd.cli.command import Command
from logd.cli.create_settings import parse_security_option, parse_ulimit
from logd.cli.json_stream import results
from logd.cli.limits import parse_size_option
from logd.cli.output import STDOUT_FD
from logd.cli.progress import progress
from logd.cli.registry.build_context import context_of
from logd.cli.registry.display import Display
from logd.cli.registry.logins import headers_for_build
from logd.cli.words import labels
from logd.errors import InvalidParameter
from logd.units import format_size

TAR: Final = "application/x-tar"


@click.command(
    cls=Command,
    examples=(
        "logd build -t shop:1.2 .",
        "logd build -f deploy/Dockerfile --target test --build-arg VERSION=1.2 .",
        "tar c -C site . | logd build -t site -",
    ),
)
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME[:TAG]", help="Name of the image.")
@click.option(
    "-f", "--file", "dockerfile", metavar="FILE", help="The Dockerfile (default: PATH/Dockerfile); - is stdin."
)
@click.option("--build-arg", multiple=True, metavar="NAME[=VALUE]", help="Value of an ARG; without one, as it is here.")
@click.option("--label", multiple=True, metavar="KEY[=VALUE]", help="Attach a label to the image.")
@click.option("--no-cache", is_flag=True, help="Do every step anew.")
@click.option("--pull", is_flag=True, help="Take base images from their registries, also those that are here.")
@click.option("-q", "--quiet", is_flag=True, help="Print the image's id alone.")
@click.option("--target", metavar="STAGE", help="Build up to this stage.")
@click.option("--network", metavar="MODE", help="Network of RUN: a network's name, none, or host.")
@click.option("--platform", metavar="OS/ARCH", help="Platform of the base images.")
@click.option("--rm/--no-rm", "remove", default=True, help="Remove containers of steps that went well (default).")
@click.option("--force-rm", is_flag=True, help="Remove those of a step that failed, too.")
@click.option("--iidfile", metavar="FILE", help="Write the image's id to this file.")
@click.option("--add-host", multiple=True, metavar="NAME:ADDRESS", help="Line in /etc/hosts of RUN.")
@click.option("-m", "--memory", metavar="SIZE", help="Memory limit of RUN, such as 512m.")
@click.option("--memory-swap", metavar="SIZE", help="Limit of memory and swap together; -1 is none.")
@click.option("-c", "--cpu-shares", type=int, metavar="N", help="Share of CPU time beside others; 1024 is usual.")
@click.option("--cpu-period", type=int, metavar="US", help="Period of the CPU quota.")
@click.option("--cpu-quota", type=int, metavar="US", help="CPU time in a period.")
@click.option("--cpuset-cpus", metavar="LIST", help="CPUs on which it may run, such as 0-2,4.")
@click.option("--cpuset-mems", metavar="LIST", help="Memory nodes that it may use.")
@click.option("--cgroup-parent", metavar="PATH", help="Cgroup in which those of RUN are made.")
@click.option("--shm-size", metavar="SIZE", help="Size of /dev/shm.")
@click.option("--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="Limit of a process: nofile=1024.")
@click.option("--security-opt", multiple=True, metavar="OPTION", help="Of the containers of RUN.")
@click.argument("path", metavar="PATH|-", type=click.Path())
@click.pass_obj
def build(client: Client, /, *, path: str, tags: Sequence[str], **options: Any) -> None:
    """Build an image of a folder with a Dockerfile ("-": a tar, or the Dockerfile alone, on standard input).

    A step that fails gives its exit code to this command.
    """
    quiet = options["quiet"]
    query = _query(tags, options)
    context = context_of(path, options["dockerfile"])
    size = 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for piece in context.pieces:
            size += len(piece)
            advance(len(piece))
            yield piece

    with _id_file(options["iidfile"]) as note:
        with progress("Sending build context", quiet=quiet) as advance:
            response = client.request(
                "POST",
                "/build",
                {**query, "dockerfile": context.dockerfile},
                body=counted(),
                headers={"Content-Type": TAR, **headers_for_build()},
            )
        with Display(STDOUT_FD) as display:
            if not quiet:
                display.write(f"Sending build context to Docker daemon  {format_size(size)}\n")
            for message in results(response):
                note(message)
                display.take(message)


@contextlib.contextmanager
def _id_file(path: str | None) -> Iterator[Callable[[Mapping[str, Any]], object]]:
    """Give what takes the builder's messages; the image's id in them is written when all has gone well.

    An older file goes first, so that none tells of another image. Raises InvalidParameter.
    """
    identity = ""

    def note(message: Mapping[str, Any]) -> None:
        nonlocal identity
        identity = str((message.get("aux") or {}).get("ID") or identity)

    try:
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        yield note
        if path is not None and identity:
            with open(path, "w", encoding="ascii") as file:
                file.write(identity)
    except OSError as error:
        if path is None or error.filename != path:
            raise
        raise InvalidParameter(f"--iidfile: {path}: {error.strerror}") from error


def _query(tags: Sequence[str], options: Mapping[str, Any]) -> Query:
    """Return the parameters of POST /build. Raises InvalidParameter."""
    sizes = {
        name: parse_size_option(name, options[name]) for name in ("memory", "memory_swap", "shm_size") if options[name]
    }
    return {
        "version": 1,
        "t": list(tags),
        "buildargs": json.dumps(_arguments(options["build_arg"])),
        "labels": json.dumps(labels(options["label"])),
        "nocache": options["no_cache"],
        "pull": options["pull"],
        "q": options["quiet"],
        "target": options["target"],
        "networkmode": options["network"],
        "platform": options["platform"],
        "rm": options["remove"],
        "forcerm": options["force_rm"],
        "extrahosts": list(options["add_host"]),
        "memory": sizes.get("memory"),
        "memswap": sizes.get("memory_swap"),
        "shmsize": sizes.get("shm_size"),
        "cpushares": options["cpu_shares"],
        "cpuperiod": options["cpu_period"],
        "cpuquota": options["cpu_quota"],
        "cpusetcpus": options["cpuset_cpus"],
        "cpusetmems": options["cpuset_mems"],
        "cgroupparent": options["cgroup_parent"],
        "ulimits": json.dumps([parse_ulimit(word) for word in options["ulimit"]]),
        "securityopt": [parse_security_option(word) for word in options["security_opt"]],
    }


def _arguments(words: Sequence[str]) -> dict[str, str | None]:
    """Return the values of ARGs; one without a value has that of our environment, or none."""
    found: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise InvalidParameter(f"--build-arg: invalid argument {word!r} (write NAME=VALUE or NAME)")
        found[name] = value if equals else os.environ.get(name)
    return found

"""`logd version` and `logd info`: the daemon and its host."""

import sys
from importlib.metadata import version as installed_version
from typing import Any

import click

from logd.cli.client import Client, Unreachable
from logd.cli.command import Command
from logd.cli.formats import print_document
from logd.cli.tables import print_fields, print_json
from logd.units import format_ram_size

FORMAT = click.option(
    "-f", "--format", "form", default="text", metavar="FORMAT", help="text (default), json, or a Go template."
)


@click.command(cls=Command, examples=("logd version", "logd version --format '{{.Server.Version}}'"))
@FORMAT
@click.pass_obj
def version(client: Client, *, form: str) -> None:
    """Show the versions of this command and of the daemon."""
    own = {"Version": installed_version("logd"), "Python": sys.version.partition(" ")[0]}
    trouble: Unreachable | None = None
    server: dict[str, Any] | None = None
    try:
        server = client.json("GET", "/version")
    except Unreachable as error:
        trouble = error
    if form != "text":
        _print({"Client": own, "Server": server}, form)
    else:
        print_fields([("Client", own["Version"]), ("  Python", own["Python"]), ("  Daemon at", client.host)])
        if server is not None:
            names = (
                ("ApiVersion", "API"),
                ("MinAPIVersion", "Oldest API"),
                ("Os", "System"),
                ("KernelVersion", "Kernel"),
            )
            fields = [(f"  {shown}", str(server[name])) for name, shown in names if name in server]
            components = [(f"  {part['Name']}", str(part["Version"])) for part in server.get("Components") or ()]
            print_fields([("Daemon", str(server["Version"])), *fields, *components])
    if trouble is not None:
        sys.stdout.flush()
        raise trouble


def _print(value: object, form: str) -> None:
    if form == "json":
        print_json(value)
    else:
        print_document(form, value)


@click.command(cls=Command, examples=("logd info", "logd info --format '{{.ContainersRunning}}'"))
@FORMAT
@click.pass_obj
def info(client: Client, *, form: str) -> None:
    """Show what the daemon is, what it has, and what it warns of."""
    found = client.json("GET", "/info")
    if form != "text":
        _print(found, form)
        return
    print_fields(
        [
            ("Containers", str(found["Containers"])),
            ("  Running", str(found["ContainersRunning"])),
            ("  Paused", str(found["ContainersPaused"])),
            ("  Stopped", str(found["ContainersStopped"])),
            ("Images", str(found["Images"])),
            ("Version", str(found["ServerVersion"])),
            ("Log driver", str(found["LoggingDriver"])),
            ("Log drivers", " ".join((found.get("Plugins") or {}).get("Log") or ())),
            ("Runtimes", " ".join(sorted(found.get("Runtimes") or ()))),
            ("Default runtime", str(found["DefaultRuntime"])),
            ("Cgroups", f"{found['CgroupDriver']}, version {found['CgroupVersion']}"),
            ("Kernel", str(found["KernelVersion"])),
            ("System", f"{found['OperatingSystem']}, {found['Architecture']}"),
            ("CPUs", str(found["NCPU"])),
            ("Memory", format_ram_size(found["MemTotal"])),
            ("Name", str(found["Name"])),
            ("Data", str(found["DockerRootDir"])),
        ]
    )
    for warning in found.get("Warnings") or ():
        sys.stderr.write(f"{warning}\n")

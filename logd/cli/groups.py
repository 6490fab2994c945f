"""`logd container …`, `image …`, `system …`: docker's groups; most commands in them are there without a group too."""

import click

from logd.cli import (
    attach_command,
    container_commands,
    df_command,
    dial_stdio,
    exec_command,
    file_commands,
    image_commands,
    image_verbs,
    prune_commands,
    run_command,
    stats_command,
    update_command,
)
from logd.cli.command import Group
from logd.cli.completion import CONTAINER, IMAGE
from logd.cli.copying.command import cp
from logd.cli.events_command import events
from logd.cli.inspect_command import inspect_of
from logd.cli.network_commands import network
from logd.cli.ps_command import ps
from logd.cli.registry import image_commands as registry_commands
from logd.cli.registry.build_command import build
from logd.cli.system_commands import info
from logd.cli.volume_commands import volume


@click.group(cls=Group)
def container() -> None:
    """Look after containers."""


@click.group(cls=Group)
def image() -> None:
    """Look after images."""


system = dial_stdio.system
container.add_command(inspect_of("container", CONTAINER))
image.add_command(inspect_of("image", IMAGE))
for _group, _name, _command in (
    (container, "ls", ps),
    (container, "create", run_command.create),
    (container, "run", run_command.run),
    (container, "prune", prune_commands.containers),
    (image, "ls", image_commands.images),
    (image, "rm", image_verbs.rmi),
    (image, "prune", prune_commands.images),
    (network, "prune", prune_commands.networks),
    (volume, "prune", prune_commands.volumes),
    (system, "df", df_command.df),
    (system, "events", events),
    (system, "info", info),
    (system, "prune", prune_commands.system),
):
    _group.add_command(_command, _name)
for _command in (
    attach_command.attach,
    cp,
    exec_command.exec_,
    file_commands.commit,
    file_commands.diff,
    file_commands.export,
    container_commands.kill,
    container_commands.pause,
    container_commands.port,
    container_commands.rename,
    container_commands.restart,
    container_commands.rm,
    container_commands.start,
    container_commands.stop,
    container_commands.top,
    stats_command.stats,
    container_commands.unpause,
    update_command.update,
    container_commands.wait,
):
    container.add_command(_command)
for _command in (
    build,
    image_verbs.history,
    image_commands.import_,
    image_commands.load,
    registry_commands.pull,
    registry_commands.push,
    registry_commands.save,
    image_verbs.tag,
):
    image.add_command(_command)

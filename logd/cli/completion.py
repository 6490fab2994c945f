"""Completion in the shells: click's for `logd`, our own scripts for `logs`, names from the daemon for both."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from logd.cli.client import Client
from logd.cli.command import Command
from logd.cli.options import LONG
from logd.errors import LogdError

SHELLS: Final = ("bash", "zsh", "fish")

BASH_LOGS: Final = """\
_logs_completion() {
    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"
    case "$before" in
        --stream) COMPREPLY=($(compgen -W "stdout stderr" -- "$word")); return ;;
        --color) COMPREPLY=($(compgen -W "auto always never" -- "$word")); return ;;
        -n|--tail|--since|--until|-g|--grep|--after|-l|--label|-H|--host) return ;;
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "--follow --tail --since --until --grep --stream --after --all --label
            --timestamps --json --raw --color --host --help --version" -- "$word"))
    else
        COMPREPLY=($(compgen -W "$(logs --complete 2>/dev/null)" -- "$word"))
    fi
}
complete -F _logs_completion logs
"""
ZSH_LOGS: Final = """\
_logs_containers() {
    local -a names
    names=(${(f)"$(logs --complete 2>/dev/null)"})
    compadd -a names
}
_logs() {
    _arguments -s \\
        '(-f --follow)'{-f,--follow}'[go on with what comes]' \\
        '(-n --tail)'{-n,--tail}'[only the last lines]:lines:' \\
        '--since[only what came at this time or later]:time:' \\
        '--until[only what came before this time]:time:' \\
        '(-g --grep)'{-g,--grep}'[only lines with the pattern]:pattern:' \\
        '--stream[only one stream]:stream:(stdout stderr)' \\
        '*--after[go on behind a line of --json]:cursor:' \\
        '(-a --all)'{-a,--all}'[every container]' \\
        '*'{-l,--label}'[those with the label]:label:' \\
        '(-t --timestamps)'{-t,--timestamps}'[the time before each line]' \\
        '--json[one JSON object a line]' \\
        '--raw[let escape sequences through]' \\
        '--color[colours of the names]:when:(auto always never)' \\
        '(-H --host)'{-H,--host}'[where the daemon listens]:address:' \\
        '(-h --help)'{-h,--help}'[help]' \\
        '(-V --version)'{-V,--version}'[the version]' \\
        '*:container:_logs_containers'
}
compdef _logs logs
"""
FISH_LOGS: Final = """\
complete -c logs -f -a '(logs --complete 2>/dev/null)'
complete -c logs -s f -l follow -d 'Go on with what comes'
complete -c logs -s n -l tail -x -d 'Only the last lines'
complete -c logs -l since -x -d 'Only what came at this time or later'
complete -c logs -l until -x -d 'Only what came before this time'
complete -c logs -s g -l grep -x -d 'Only lines with the pattern'
complete -c logs -l stream -x -a 'stdout stderr' -d 'Only one stream'
complete -c logs -l after -x -d 'Go on behind a line of --json'
complete -c logs -s a -l all -d 'Every container'
complete -c logs -s l -l label -x -d 'Those with the label'
complete -c logs -s t -l timestamps -d 'The time before each line'
complete -c logs -l json -d 'One JSON object a line'
complete -c logs -l raw -d 'Let escape sequences through'
complete -c logs -l color -x -a 'auto always never' -d 'Colours of the names'
complete -c logs -s H -l host -x -d 'Where the daemon listens'
complete -c logs -s h -l help -d 'Help'
complete -c logs -s V -l version -d 'The version'
"""
FISH_SPLIT: Final = 'string split ","', 'string split --max 1 ","'
"""In click's script for fish, which cuts a help text off at its first comma."""
if TYPE_CHECKING:
    _Parameter = click.ParamType[str]
else:
    _Parameter = click.ParamType  # before click 8.2 it can't be subscripted

LOGS_SCRIPTS: Final = {"bash": BASH_LOGS, "zsh": ZSH_LOGS, "fish": FISH_LOGS}


class Named(_Parameter):
    """Something's name or id; the shell completes it with the names that there are."""

    def __init__(self, name: str, path: str, names: Callable[[Any], Iterable[str]]) -> None:
        self.name = name
        self._path = path
        self._names = names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin so; none if no daemon answers."""
        try:
            found = Client(ctx.find_root().params.get("host")).json("GET", self._path)
        except LogdError:
            return []
        return [CompletionItem(name) for name in sorted(self._names(found)) if name.startswith(incomplete)]


class Side(Named):
    """One side of a copy: CONTAINER:PATH or a path of this machine."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the containers that begin so; a path is left to the shell."""
        is_path = incomplete.startswith((".", "/")) or ":" in incomplete
        found = [] if is_path else super().shell_complete(ctx, param, incomplete)
        return [CompletionItem(f"{item.value}:") for item in found] or [CompletionItem(incomplete, type="file")]


class Registry(_Parameter):
    """A registry; the shell completes it with those at which there is a login."""

    name = "registry"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return those in docker's configuration that begin so."""
        from logd.cli.registry.docker_config import DockerConfig  # noqa: PLC0415  # for completion only

        try:
            found = DockerConfig().auths
        except LogdError:
            return []
        return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


def _names_of_containers(items: Any) -> Iterable[str]:
    return (name.removeprefix("/") for item in items for name in item["Names"])


CONTAINER: Final = Named("container", "/containers/json?all=1", _names_of_containers)
SIDE: Final = Side("path", "/containers/json?all=1", _names_of_containers)
IMAGE: Final = Named("image", "/images/json", lambda items: (tag for item in items for tag in item["RepoTags"] or ()))
NETWORK: Final = Named("network", "/networks", lambda items: (item["Name"] for item in items))
VOLUME: Final = Named("volume", "/volumes", lambda answer: (item["Name"] for item in answer["Volumes"] or ()))
REGISTRY: Final = Registry()
FLAG: Final = re.compile(r"^  (?:-\w, )?(--[\w-]+)", re.MULTILINE)
"""In a help text, the long name of an option."""
HELP_TIMEOUT_S: Final = 5.0


class PassedOn(Command):
    """A command that hands its arguments to another program, whose long options the function `flags` gives."""

    def __init__(self, *args: Any, flags: Callable[[], Iterable[str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self._flags = flags

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the options that begin so."""
        return [CompletionItem(flag) for flag in self._flags() if flag.startswith(incomplete)]


def flags_of_logs() -> list[str]:
    """Return the long options of `logs`."""
    return [f"--{name.rstrip('=')}" for name in LONG if name != "complete"]


def flags_of_daemon() -> list[str]:
    """Return the long options of the daemon, from its help: the command line doesn't import it. None if it fails."""
    command = [sys.executable, "-P", "-m", "logd.daemon", "--help"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HELP_TIMEOUT_S).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return FLAG.findall(shown)


@click.command(
    cls=Command,
    examples=(
        'eval "$(logd completion bash)"                              # in ~/.bashrc',
        'eval "$(logd completion zsh)"                               # in ~/.zshrc, after compinit',
        "logd completion fish > ~/.config/fish/conf.d/logd.fish       # where it is read for logs too",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script with which a shell completes `logd` and `logs`."""
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "logd", "_LOGD_COMPLETE")
    own = (script.source_template % script.source_vars()).replace(*FISH_SPLIT)
    sys.stdout.write(f"{own}\n{LOGS_SCRIPTS[shell]}")

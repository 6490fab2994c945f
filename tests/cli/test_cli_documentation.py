"""What docs/cli.md says is there."""

import re
from pathlib import Path

import click

from logd.cli.main import cli
from logd.cli.options import LONG

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def test_every_option_of_logs_is_documented() -> None:
    assert [name for name in LONG if f"--{name.rstrip('=')}" not in TEXT] == ["complete"]


def test_every_command_of_logd_is_documented() -> None:
    assert [name for name in cli.commands if f"`{name}" not in TEXT and f", `{name}`" not in TEXT] == []


def test_every_command_of_a_group_is_documented() -> None:
    groups = {name: group for name, group in cli.commands.items() if isinstance(group, click.Group)}
    single = [  # `container` and `image` have the commands of the top once more, and those that are named here
        *(("container", name) for name in ("prune", "top")),
        *((group, name) for group in ("log", "network", "system", "volume") for name in groups[group].commands),
    ]
    rows = [line for line in TEXT.splitlines() if line.startswith("| `")]

    def is_there(group: str, name: str) -> bool:
        return any(f"`{group} " in row and re.search(rf"\b{name}\b", row) for row in rows)

    assert [one for one in single if not is_there(*one)] == []

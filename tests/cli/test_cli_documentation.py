"""What docs/cli.md says is there."""

from pathlib import Path

from logd.cli.main import cli
from logd.cli.options import LONG

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def test_every_option_of_logs_is_documented() -> None:
    assert [name for name in LONG if f"--{name.rstrip('=')}" not in TEXT] == ["complete"]


def test_every_command_of_logd_is_documented() -> None:
    assert [name for name in cli.commands if f"`{name}" not in TEXT and f", `{name}`" not in TEXT] == []

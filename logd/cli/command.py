"""Click's commands as ours are: with examples below the options; alone, a group shows its help.

A flag may be given a value, as docker's may: `--rm=true`, `--pause=false`.
"""

from collections.abc import Iterator
from typing import Any, Final

import click

from logd.errors import InvalidParameter

TRUE: Final = frozenset(("1", "t", "T", "true", "TRUE", "True"))
FALSE: Final = frozenset(("0", "f", "F", "false", "FALSE", "False"))
"""What Go's strconv.ParseBool takes."""


class Command(click.Command):
    """`examples` are command lines, each with what it is good for if that needs saying."""

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        return super().parse_args(ctx, list(self._with_bare_flags(ctx, args)))

    def _with_bare_flags(self, ctx: click.Context, args: list[str]) -> Iterator[str]:
        """Yield the arguments, a flag with a value as `--flag`, `--no-flag` or not at all. Raises InvalidParameter."""
        options = {name: one for one in self.params if isinstance(one, click.Option) for name in one.opts}
        rest = iter(args)
        for word in rest:
            name, equals, value = word.partition("=")
            option = options.get(name if word.startswith("--") else word[:2])
            if word == "--" or (not word.startswith("-") and not ctx.allow_interspersed_args):
                yield word
                break
            if option is None or not option.is_flag or not equals or not word.startswith("--"):
                yield word
                if option is not None and _takes_next(option, word, options):
                    yield from (one for one in [next(rest, None)] if one is not None)
            elif value in TRUE:
                yield name
            elif value in FALSE:
                yield from option.secondary_opts[:1]
            else:
                raise InvalidParameter(f"{name}: invalid value {value!r} (write true or false)")
        yield from rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples after the options."""
        with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{example}\n")


def _takes_next(option: click.Option, word: str, options: dict[str, click.Option]) -> bool:
    """Say whether the option's value is the next argument: `--name NAME`, `-n NAME`, `-dn NAME`."""
    if word.startswith("--"):
        return not option.is_flag and not option.count and "=" not in word
    for index, letter in enumerate(word[1:], 2):
        one = options.get(f"-{letter}")
        if one is None:
            return False
        if not one.is_flag and not one.count:
            return index == len(word)
    return False


class Group(click.Group):
    """A command with commands. Without one it shows its help and is content, as docker's are."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()
        return super().parse_args(ctx, args)

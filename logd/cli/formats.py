"""What `--format` takes for a list: table, json, `table TEMPLATE` or a Go template, with docker's field names.

A row is a dict of docker's names to what docker shows; `Columns` say which of them a table has, and their titles.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click

from logd.cli.tables import print_json_lines, print_table
from logd.cli.terminal import is_terminal, visible
from logd.errors import InvalidParameter
from logd.gotemplate.document import Document, Method

Row = Mapping[str, Any]
TABLE: Final = "table"
FORMAT: Final = click.option(
    "--format", "form", default=TABLE, metavar="FORMAT", help="table, json, a Go template, or table TEMPLATE."
)
FILTER: Final = click.option(
    "-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Show those that fit (repeatable)."
)
NO_TRUNC: Final = click.option("--no-trunc", is_flag=True, help="Cut nothing off.")
QUIET: Final = click.option("-q", "--quiet", is_flag=True, help="Print ids alone.")


class Columns:
    """The titles of fields, and which of them a plain table shows, in order."""

    def __init__(self, shown: Sequence[str], titles: Mapping[str, str], *, state: str | None = None) -> None:
        self.shown = shown
        self.titles = titles
        self.state = state
        """The field that has the colour of its first word on a terminal."""


def print_rows(
    form: str, columns: Columns, rows: Iterable[Row], labels: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Print the rows. `labels` are those of each row by its ID, for `{{.Label "key"}}`. Raises InvalidParameter."""
    if form == "json":
        print_json_lines({name: row[name] for name in sorted(row)} for row in rows)
        return
    head, _, template = form.partition(" ")
    if head == TABLE and not template.strip():
        cells = [[str(row[name]) for name in columns.shown] for row in rows]
        titles = [columns.titles[name] for name in columns.shown]
        print_table(titles, cells, state_column=columns.shown.index(columns.state) if columns.state else None)
        return
    parsed = Template(template.strip() if head == TABLE else form)
    found = [parsed.fill(row, _labels_of(row, labels)) for row in rows]
    if head != TABLE:
        print_lines(found)
        return
    titles = parsed.fill(columns.titles, {"Label": _title}).split("\t")
    print_table(titles, [[*line.split("\t")] for line in found])


def _labels_of(row: Row, labels: Mapping[str, Mapping[str, str]] | None) -> Mapping[str, Method]:
    if labels is None:
        return {}
    own = labels.get(str(row.get("ID") or row.get("Name")), {})
    return {"Label": lambda key: own.get(key, "")}


def _title(label: str) -> str:
    """Return docker's title for a column with a label's values: `com.example.owner` is `owner`."""
    return label.rpartition(".")[2].replace("-", " ").replace("_", " ")


class Template:
    """A template as a person writes it on a command line, where two characters stand for a tab and for a newline."""

    def __init__(self, text: str) -> None:
        try:
            self._document = Document(text.replace("\\t", "\t").replace("\\n", "\n"))
        except ValueError as error:
            raise InvalidParameter(f"--format: {error}") from error

    def fill(self, value: object, methods: Mapping[str, Method] | None = None) -> str:
        """Return the text for a JSON value. Raises InvalidParameter where the value does not have what is asked for."""
        try:
            return self._document.run(value, methods)
        except ValueError as error:
            raise InvalidParameter(f"--format: {error}") from error


def print_lines(texts: Iterable[str]) -> None:
    """Print texts with a newline behind each; on a terminal, what it would obey is made visible."""
    shows = is_terminal(1)
    for text in texts:
        lines = ["\t".join(map(visible, line.split("\t"))) for line in text.split("\n")] if shows else [text]
        sys.stdout.write("\n".join(lines) + "\n")


def print_document(form: str, value: object) -> None:
    """Print one JSON value by `json` or a template."""
    if form == "json":
        sys.stdout.write(f"{json.dumps(value)}\n")
    else:
        print_lines([Template(form).fill(value)])

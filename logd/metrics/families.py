"""What a metric is, and how its series are written: families, the subjects that they are of, and a page of them.

A collector plugs in like this; `Scraper` (scrape.py) is given one of each:

    SEGMENTS = Family("logd_store_segments", "gauge", "Segments of the store.", of=LOG)
    LINES = Family("logd_lines_total", "counter", "Lines, by their level.", ("level",), of=LOG)

    class Lines(Collector):
        name = "lines"                                    # the label `collector` of logd_scrape_collector_*
        families = (SEGMENTS, LINES)                      # all that it may write; docs/metrics.md is made of them

        async def gather(self) -> None: ...               # in the event loop, before: look at its objects, ask others
        def collect(self, page: Page) -> None:            # in a thread, one scrape at a time; may read files
            subject = subjects.log(container)             # subjects.py: `id` and `name`, rendered once, kept
            page.add(SEGMENTS, 3, subject)
            page.add(LINES, 17, subject, "error")

What is written for each of hundreds of containers goes faster through a `Layout`: the same series at each scrape, kept
as long as the subject's labels stay the same:

    layout = Layout(subject, [(SEGMENTS,), (LINES, "error"), (LINES, "none")])   # kept
    page.put(layout, (3, 17, 40))                                               # at each scrape

A collector that raises costs its own series of that scrape, and nothing else. Values are int or float: no bool, and no
timestamps. Any text may be a label's value: it is escaped here.

Source: the text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/).
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal
from weakref import WeakValueDictionary

Kind = Literal["counter", "gauge", "info", "histogram", "unknown"]
Series = tuple["Family", *tuple[str, ...]]
"""A family and the values of its own labels."""

METRIC_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
LABEL_NAME: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
CONTAINER: Final = ("id", "name", "image")
"""What cAdvisor's series of a container carry; the allow-listed labels of the container come on top."""
GROUP: Final = ("id",)
LOG: Final = ("id", "name")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\0": "\ufffd"})


@dataclass(frozen=True, eq=False)
class Family:
    """A metric: its name as samples have it (a counter's with _total, an info's with _info), and its labels' names.

    `of`: the labels that say of what it is, which a Subject renders; `labels`: those of its own, after them.
    A counter of cAdvisor's or dockerd's whose name lacks _total is `unknown`, because OpenMetrics has no such counter.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert METRIC_NAME.fullmatch(self.name), self.name
        assert all(LABEL_NAME.fullmatch(one) for one in (*self.labels, *self.of)), self
        assert self.kind != "counter" or self.name.endswith("_total"), self.name
        assert self.kind != "info" or self.name.endswith("_info"), self.name


def escape(value: str) -> str:
    """Return a label's value as it stands between quotes; what UTF-8 can't hold is replaced."""
    return value.encode("utf-8", "replace").decode().translate(_ESCAPES)


def sanitised(label: str) -> str:
    """Return a container's label as a part of a label's name, as Prometheus and cAdvisor do it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


class Subject:
    """What series are of, as labels rendered once. Make another when one of them changes."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        assert all(LABEL_NAME.fullmatch(one) for one in labels), labels
        self._labels = ",".join(f'{name}="{escape(value)}"' for name, value in labels.items())
        self._prefixes: dict[Series, str] = {}

    def prefix(self, family: Family, *values: str) -> str:
        """Return what stands before a value: `name{labels} `; kept, so that only few sets of `values` should occur."""
        key: Series = (family, *values)
        known = self._prefixes.get(key)
        if known is None:
            own = [f'{name}="{escape(value)}"' for name, value in zip(family.labels, values, strict=True)]
            labels = ",".join([self._labels, *own] if self._labels else own)
            known = self._prefixes[key] = f"{family.name}{{{labels}}} " if labels else f"{family.name} "
        return known


DAEMON: Final = Subject({})
"""For series without a subject."""


class _Group:
    """The families of a layout's series; one object for equal ones, by which a page finds what belongs together."""

    known: ClassVar[WeakValueDictionary[tuple[Family, ...], "_Group"]] = WeakValueDictionary()

    def __init__(self, families: tuple[Family, ...]) -> None:
        self.families: Final = families

    @classmethod
    def of(cls, families: tuple[Family, ...]) -> "_Group":
        """Return the object of these families."""
        found = cls.known.get(families)
        if found is None:
            found = cls.known[families] = cls(families)
        return found


class Layout:
    """Series in a fixed order, whose lines are kept and written anew where a value has changed. For one thread.

    They are of one subject, or of several: `Layout(container, [(A,), (B,)], (other, [(C,)]))`.
    """

    def __init__(self, subject: Subject, series: Iterable[Series], *more: tuple[Subject, Iterable[Series]]) -> None:
        rows = [(part.prefix(*one), one[0]) for part, of_part in ((subject, series), *more) for one in of_part]
        self._prefixes = [prefix for prefix, _ in rows]
        self._values: tuple[float | None, ...] = (None,) * len(rows)
        self._lines = [""] * len(rows)
        self.group: Final = _Group.of(tuple(family for _, family in rows))

    def render(self, values: tuple[float, ...]) -> list[str]:
        """Return a line for each of the series."""
        if values != self._values:
            self._lines = [
                line if value == old else f"{prefix}{value}\n"
                for line, value, old, prefix in zip(self._lines, values, self._values, self._prefixes, strict=True)
            ]
            self._values = values
        return self._lines


class Page:
    """The series of one collector in one scrape."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._lines: dict[Family, list[str]] = {family: [] for family in families}
        self._rows: dict[_Group, list[list[str]]] = {}

    def add(self, family: Family, value: float, subject: Subject = DAEMON, *labels: str) -> None:
        """Write one sample; `labels` are the values of the family's own, in their order."""
        self._lines[family].append(f"{subject.prefix(family, *labels)}{value}\n")

    def put(self, layout: Layout, values: tuple[float, ...]) -> None:
        """Write a value for each series of a layout."""
        rows = self._rows.get(layout.group)
        if rows is None:
            assert self._lines.keys() >= set(layout.group.families), "a family that the collector has not declared"
            rows = self._rows[layout.group] = []
        rows.append(layout.render(values))

    def __iter__(self) -> Iterator[tuple[Family, Sequence[str]]]:
        """Give the families that have series, each with its lines."""
        return ((family, [line for part in parts for line in part]) for family, parts in self.parts())

    def parts(self) -> Iterator[tuple[Family, list[Sequence[str]]]]:
        """Give the same with the lines in parts: single ones, and those of layouts that are alike."""
        parts: dict[Family, list[Sequence[str]]] = {family: [one] if one else [] for family, one in self._lines.items()}
        for group, rows in self._rows.items():
            columns: dict[Family, list[str]] = {}
            for family, column in zip(group.families, zip(*rows, strict=True), strict=True):
                columns.setdefault(family, []).extend(column)
            for family, lines in columns.items():
                parts[family].append(lines)
        return ((family, found) for family, found in parts.items() if found)


class Collector(ABC):
    """A source of series; see this module's docstring."""

    name: ClassVar[str]
    families: ClassVar[Sequence[Family]]

    async def gather(self) -> None:  # noqa: B027 - a collector that needs nothing of the event loop has none
        """Get ready for `collect`, in the event loop; what takes longer than GATHER_S of scrape.py is given up."""

    @abstractmethod
    def collect(self, page: Page) -> None:
        """Write the series. Runs in a thread; the objects of the event loop may be read, never changed."""

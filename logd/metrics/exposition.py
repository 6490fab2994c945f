"""The two formats of a page, which of them a scraper gets, and whether it comes compressed.

Source: the text format 0.0.4; OpenMetrics 1.0.0 (https://prometheus.io/docs/specs/om/open_metrics_spec/): a counter's
family has no _total, an info's no _info, and the last line is `# EOF`; RFC 9110 sections 12.4.2 and 12.5.3 (weights).
"""

import re
from collections.abc import Iterable
from typing import Final, Literal

from logd.metrics.families import Family

Format = Literal["text", "openmetrics"]

CONTENT_TYPES: Final[dict[Format, str]] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
}
EOF: Final = "# EOF\n"
_TYPES: Final = {"info": "gauge", "unknown": "untyped"}
"""Kinds that the text format has no word for, or another one."""
SUFFIXES: Final = {"counter": "_total", "info": "_info"}
"""What OpenMetrics leaves out of the family's name."""
_WEIGHT: Final = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_MAX_ELEMENTS: Final = 64
"""Of a header's list; Prometheus sends five. What comes after them is not looked at."""


def head(family: Family, style: Format) -> str:
    """Return the HELP and TYPE lines."""
    text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if style == "text":
        return f"# HELP {family.name} {text}\n# TYPE {family.name} {_TYPES.get(family.kind, family.kind)}\n"
    name = family.name.removesuffix(SUFFIXES.get(family.kind, ""))
    escaped = text.replace('"', r"\"")
    return f"# HELP {name} {escaped}\n# TYPE {name} {family.kind}\n"


def render(series: Iterable[tuple[Family, Iterable[str]]], style: Format) -> str:
    """Return families with their lines in a format; without the end of OpenMetrics, so that more may follow."""
    return "".join([text for family, lines in series for text in (head(family, style), *lines)])


def choose_format(accept: str) -> Format:
    """Return the format that an Accept header prefers; one that asks for neither gets text."""
    best, best_weight = "text", 0.0
    for kind, parameters in _elements(accept):
        weight = _weight(parameters)
        style = _style(kind, parameters)
        if style and weight > best_weight:
            best, best_weight = style, weight
    return "openmetrics" if best == "openmetrics" else "text"


def _style(kind: str, parameters: dict[str, str]) -> Format | None:
    version = parameters.get("version", "")
    if kind == "application/openmetrics-text" and version in {"", "1.0.0"}:
        return "openmetrics"
    if kind in {"text/plain", "text/*", "*/*"} and version in {"", "0.0.4"}:
        return "text"
    return None


def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether an Accept-Encoding header takes gzip; what it does not name, not even by *, it does not take."""
    weights = {coding: _weight(parameters) for coding, parameters in _elements(accept_encoding)}
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def _elements(header: str) -> list[tuple[str, dict[str, str]]]:
    """Read a header's list: `name;parameter=value, …`; names are in lower case."""
    found = []
    for element in header.split(",", _MAX_ELEMENTS)[:_MAX_ELEMENTS]:
        name, *rest = (part.strip() for part in element.split(";"))
        pairs = (part.partition("=") for part in rest)
        found.append((name.lower(), {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}))
    return found


def _weight(parameters: dict[str, str]) -> float:
    """Return the q of an element, 1 without one; 0 for one that is none."""
    text = parameters.get("q", "1")
    return float(text) if _WEIGHT.fullmatch(text) else 0.0

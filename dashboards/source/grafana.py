"""Grafana's JSON of a dashboard, as far as ours need it: panels in rows, variables, units, thresholds.

Schema version 37 is Grafana 9's; later ones read it. The data source is a variable, so that a file can be imported and
provisioned as it is.
"""

from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

SCHEMA_VERSION: Final = 37
COLUMNS: Final = 24
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
ROW_HEIGHT: Final = 1
GREEN, AMBER, RED = "green", "orange", "red"


@dataclass(frozen=True)
class Panel:
    """One panel. `queries`: expression and legend of each; `steps`: from which value on it has which colour.

    `width` is of 24 columns; `height` in Grafana's units of about 30 pixels.
    """

    title: str
    queries: list[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    height: int = 8
    steps: list[tuple[float, str]] = field(default_factory=list)
    description: str = ""
    stacked: bool = False
    maximum: float | None = None
    mappings: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of a value: the word for it and its colour."""
    columns: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of a table: for each query's letter the heading and unit."""
    hidden: tuple[str, ...] = ()
    """Of a table: labels that are no column."""


def stat(title: str, expr: str, unit: str = "short", bad: float | None = None, description: str = "") -> Panel:
    """Return a single figure, red from `bad` on."""
    steps = [] if bad is None else [(bad, RED)]
    return Panel(title, [(expr, "")], unit, "stat", 3, 4, steps, description)


def dashboard(
    uid: str, title: str, description: str, variables: list[Json], rows: list[tuple[str, list[Panel]]]
) -> Json:
    """Return a dashboard of rows of panels, each row with its title."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["logd"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [_links()],
        "templating": {"list": [_datasource(), *variables]},
        "panels": _placed(rows),
    }


def variable(name: str, label: str, query: str) -> Json:
    """Return a variable of which several or all values may be chosen."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _datasource() -> Json:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}}


def _links() -> Json:
    return {
        "title": "logd",
        "type": "dashboards",
        "tags": ["logd"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
    }


def _placed(rows: list[tuple[str, list[Panel]]]) -> list[Json]:
    placed: list[Json] = []
    y = 0
    for title, panels in rows:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": ROW_HEIGHT}
        placed.append(
            {"id": len(placed) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        )
        y += ROW_HEIGHT
        x = height = 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            placed.append(_panel(panel, len(placed) + 1, {"x": x, "y": y, "w": panel.width, "h": panel.height}))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return placed


def _panel(panel: Panel, identifier: int, place: Json) -> Json:
    shown = {
        "id": identifier,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": place,
        "targets": [_target(panel, number, *query) for number, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
    }
    return shown | ({"transformations": _transformations(panel)} if panel.kind == "table" else {})


def _letter(number: int) -> str:
    return chr(ord("A") + number)


def _target(panel: Panel, number: int, expr: str, legend: str) -> Json:
    instant = panel.kind == "table"
    return {
        "refId": _letter(number),
        "datasource": DATASOURCE,
        "expr": expr,
        "legendFormat": legend or "__auto",
        "instant": instant,
        "range": not instant,
        "format": "table" if instant else "time_series",
    }


def _defaults(panel: Panel) -> Json:
    base = "blue" if panel.kind == "timeseries" else GREEN
    steps = [{"color": base, "value": None}, *({"color": colour, "value": value} for value, colour in panel.steps)]
    words = {value: {"text": word, "color": colour} for value, (word, colour) in panel.mappings.items()}
    defaults: Json = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [{"type": "value", "options": words}] if words else [],
        "custom": {},
    }
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {
            "drawStyle": "line",
            "fillOpacity": 30 if panel.stacked else 10,
            "lineWidth": 1,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.steps else "off"},
        }
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    return defaults


def _overrides(panel: Panel) -> list[Json]:
    return [
        {
            "matcher": {"id": "byName", "options": heading},
            "properties": [{"id": "unit", "value": unit}],
        }
        for heading, unit in panel.columns.values()
    ]


def _options(panel: Panel) -> Json:
    if panel.kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
            "textMode": "auto",
            "justifyMode": "auto",
            "orientation": "auto",
        }
    if panel.kind == "table":
        return {"showHeader": True, "footer": {"show": False}}
    if panel.kind == "state-timeline":
        return {"mergeValues": True, "showValue": "auto", "alignValue": "left", "rowHeight": 0.9}
    return {
        "legend": {"displayMode": "table", "placement": "right", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _transformations(panel: Panel) -> list[Json]:
    names = {f"Value #{letter}": heading for letter, (heading, _) in panel.columns.items()}
    hidden = dict.fromkeys(("Time", *panel.hidden), True)
    return [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": hidden, "renameByName": names, "indexByName": {}}},
    ]

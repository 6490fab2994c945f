"""The dashboards as files: made from their source, and such that Grafana takes them."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
FILES = sorted((DASHBOARDS / "grafana").glob("*.json"))
KINDS = {"row", "stat", "timeseries", "table", "state-timeline"}
UNITS = {
    "short", "bool_yes_no", "bytes", "Bps", "cps", "iops", "pps", "reqps", "s", "percentunit", "dateTimeFromNow",
}  # fmt: skip
"""Those of Grafana's that we use: it shows an unknown one as text behind the number."""


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard["panels"]
    return found


def test_the_files_are_what_their_source_makes() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import build, json; print(json.dumps({p.name: t for p, t in build.files().items()}))"],
        cwd=DASHBOARDS / "source",
        check=True,
        capture_output=True,
        text=True,
    )
    made = json.loads(told.stdout)
    assert sorted(made) == [path.name for path in FILES]
    for path in FILES:
        assert path.read_text() == made[path.name], f"python dashboards/source/build.py makes another {path.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_can_be_imported_and_provisioned(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"] == path.stem
    assert "id" not in dashboard
    assert "__inputs" not in dashboard, "provisioning does not ask for them"
    assert dashboard["schemaVersion"] >= 37
    names = [one["name"] for one in dashboard["templating"]["list"]]
    assert names[0] == "datasource"
    assert dashboard["templating"]["list"][0]["type"] == "datasource"
    used = set(re.findall(r"\$\{?(?!__)(\w+)", json.dumps(panels(dashboard))))
    assert used <= set(names), "a variable that is not defined"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_have_places_of_their_own_units_and_queries(path: Path) -> None:
    found = panels(json.loads(path.read_text()))
    assert len({one["id"] for one in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for one in found:
        place = one["gridPos"]
        assert place["x"] + place["w"] <= 24, one["title"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not cells & taken, f"{one['title']} overlaps"
        taken |= cells
        assert one["type"] in KINDS
        if one["type"] == "row":
            continue
        assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, one["title"]
        assert one["targets"], one["title"]
        assert one["title"]
        overrides = [each["value"] for other in one["fieldConfig"]["overrides"] for each in other["properties"]]
        assert {one["fieldConfig"]["defaults"]["unit"], *overrides} <= UNITS, one["title"]
        assert len({target["refId"] for target in one["targets"]}) == len(one["targets"])

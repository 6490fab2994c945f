"""Write dashboards/grafana/*.json: python dashboards/source/build.py."""

import json
from pathlib import Path

import container
import fleet
import pipeline
from grafana import Json

TARGET = Path(__file__).parents[1] / "grafana"


def files() -> dict[Path, str]:
    """Return what each file has to hold."""
    made = (fleet.build(), container.build(), pipeline.build())
    return {TARGET / f"{one['uid']}.json": text(one) for one in made}


def text(dashboard: Json) -> str:
    """Return a dashboard as it is written."""
    return json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, content in files().items():
        path.write_text(content)

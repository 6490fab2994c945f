"""The recording and alert rules, as promtool sees them."""

import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
DASHBOARDS = ROOT / "dashboards"
RULES = sorted((DASHBOARDS / "rules").glob("*.yml"))
ALERTS = (DASHBOARDS / "rules" / "alerts.yml").read_text()
ALERT_NAMES = re.findall(r"^ +- alert: (\w+)$", ALERTS, re.MULTILINE)


def promtool(*arguments: str | Path) -> str:
    command = shutil.which("promtool")
    assert command, "the tests need promtool (Debian: prometheus)"
    done = subprocess.run([command, *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_in_order() -> None:
    told = promtool("check", "rules", "--lint-fatal", *RULES)
    assert told.count("SUCCESS") == len(RULES) == 2


def test_each_alert_fires_when_it_has_to_and_not_before() -> None:
    cases = DASHBOARDS / "rules" / "tests" / "alerts.yml"
    assert [name for name in ALERT_NAMES if name not in cases.read_text()] == []
    assert "SUCCESS" in promtool("test", "rules", cases)


def test_the_example_of_a_configuration_is_one() -> None:
    assert "valid prometheus config" in promtool("check", "config", DASHBOARDS / "prometheus.yml")


def test_each_alert_says_what_it_is_about_and_operations_says_what_to_do() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert headings == ALERT_NAMES
    runbooks = re.findall(r"^ +runbook: docs/operations\.md#(\w+)$", ALERTS, re.MULTILINE)
    assert runbooks == [name.lower() for name in ALERT_NAMES]
    for part in ("summary", "description", "severity"):
        assert len(re.findall(rf"\b{part}: ", ALERTS)) == len(ALERT_NAMES), part


def test_all_metrics_that_dashboards_and_rules_ask_for_are_documented() -> None:
    documented = (ROOT / "docs" / "metrics.md").read_text()
    dashboards = [path.read_text() for path in (DASHBOARDS / "grafana").glob("*.json")]
    asked = {
        name
        for text in (*dashboards, *(path.read_text() for path in RULES))
        for name in re.findall(r"(?<![\w:])(?:container|logd|machine|process|engine_daemon)_[a-z0-9_]+(?=[{\[])", text)
    }
    assert len(asked) > 50
    assert sorted(name for name in asked if f"`{re.sub('_(sum|count)$', '', name)}`" not in documented) == []

"""Our dashboards' and rules' queries, and those of published dashboards, answered by the real Prometheus."""

import json
import math
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_peer import Answer
from scene import DASHBOARDS, LIMIT_BYTES, LINES, QUOTA, RUNNING, STOPPED, Scene, faster

PUBLISHED = Path(__file__).parents[1] / "data" / "dashboards" / "queries.json"
OUR_VARIABLES = {"instance": ".*", "container": ".*", "driver": ".*", "__rate_interval": "1m"}
MB = 1 << 20
CPUS = os.cpu_count() or 1

Check = Callable[[dict[str, float]], bool]
"""Tells of an answer's values, by the name of the container ("" where there is none), whether they are right."""


def everyone(low: float, high: float) -> Check:
    """Each running container has a value, and it lies between."""
    return lambda found: set(found) == set(RUNNING) and all(low <= value <= high for value in found.values())


def one(low: float, high: float, name: str = "") -> Check:
    """There is a value of this name, and it lies between."""
    return lambda found: name in found and low <= found[name] <= high


BURNT_PERCENT = one(2, 150 * QUOTA, "nginx")
"""A busy machine gives a container less than its quota, and over a whole window never more, but windows cut periods."""

# fmt: off
RIGHT: dict[str, Check] = {
    # 193
    'count(container_last_seen{image!=""})': one(len(RUNNING), len(RUNNING)),
    'sum(container_memory_usage_bytes{image!=""})/1024/1024': one(24, 2000),
    'sum(rate(container_cpu_user_seconds_total{image!=""}[5m]) * 100)': one(1, 100 * CPUS),
    'container_memory_usage_bytes{image!=""}': one(24 * MB, LIMIT_BYTES, "jenkins"),
    'irate(container_network_transmit_bytes_total{image!=""}[5m])': lambda found: set(found) == {"north", "south"},
    # 893
    'count(rate(container_last_seen{name=~".+"}[$interval]))': one(len(RUNNING), len(RUNNING)),
    'sum(rate(container_cpu_usage_seconds_total{name=~".+"}[$interval])) by (name) * 100': BURNT_PERCENT,
    'container_memory_rss{name=~".+"}': one(24 * MB, LIMIT_BYTES, "jenkins"),
    'sum(container_memory_swap{name=~".+"}) by (name)': everyone(0, LIMIT_BYTES),
    'sum(container_spec_memory_limit_bytes{name=~".+"}) by (name)': one(LIMIT_BYTES, LIMIT_BYTES, "nginx"),
    # 14282
    'sum(rate(container_cpu_usage_seconds_total{instance=~"$host",name=~"$container",name=~".+"}[5m])) by (name) *100':
        BURNT_PERCENT,
    'sum(container_memory_rss{instance=~"$host",name=~"$container",name=~".+"}) by (name)': everyone(1, LIMIT_BYTES),
    '(time() - container_start_time_seconds{instance=~"$host",name=~"$container",name=~".+"})/86400': everyone(0, 0.01),
    # dockprom
    "machine_cpu_cores": one(CPUS, CPUS),
    'sum(rate(container_cpu_user_seconds_total{image!=""}[1m])) / count(node_cpu_seconds_total{mode="user"}) * 100':
        one(0.5, 100),
    'scalar(count(container_memory_usage_bytes{image!=""}) > 0)': one(len(RUNNING), len(RUNNING)),
    'sum by (name) (container_memory_usage_bytes{container_label_org_label_schema_group="monitoring"})':
        lambda found: set(found) == {"nginx"},
    # ours
    'sum(logd_container_state{instance=~"$instance",state="running"})': one(len(RUNNING), len(RUNNING)),
    'max(logd_container_exit_code{instance=~"$instance",name=~"$container"})': one(3, 3),
    'sum(container_oom_events_total{instance=~"$instance",name=~"$container",name!=""})': one(1, 3),
}
# fmt: on

TRUE_CONDITIONS = {
    "container_cpu_cfs_throttled_periods_total": {"nginx"},
    "* 100) > 80 and sum(container_spec_cpu_quota": {"nginx"},
    "(container_spec_memory_limit_bytes > 0) BY (instance, name) * 100) < 20": {"nginx", "south"},
}
"""Alerts that have to fire, by a part of their expression, and for whom; all others must not."""


@pytest.fixture(scope="module")
def scene(
    make_module_daemon: Callable[..., Any], busybox_tar: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    made = Scene(make_module_daemon, busybox_tar, tmp_path_factory.mktemp("prometheus"))
    try:
        made.start()
        yield made
    finally:
        made.close()


def substituted(expr: str, variables: dict[str, str]) -> str:
    """Return an expression as Grafana sends it, in faster time."""
    for name, value in variables.items():
        expr = re.sub(rf"\$({name}\b|\{{{name}\}})", value, expr)
    return faster(expr)


def published() -> Iterator[tuple[str, str, str]]:
    """Give the name of each book of queries, a query, and what is sent for it."""
    for book in json.loads(PUBLISHED.read_text()):
        for expr in book["queries"]:
            yield book["name"], expr, substituted(expr, book["variables"])


def ours() -> Iterator[tuple[str, str, str]]:
    """Give where each query of our dashboards is, the query, and what is sent for it."""
    for path in sorted((DASHBOARDS / "grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", target["expr"], substituted(target["expr"], OUR_VARIABLES)


def as_question(expr: str) -> str:
    """Return an alert's condition such that it has an answer where it is false, too: 0."""
    return re.sub(r"([<>])(?= (\d+|\( [\d /]+ \))( and |$))", r"\1 bool", expr)


def by_name(answers: list[Answer]) -> dict[str, float]:
    return {one.labels.get("name", one.labels.get("container", "")): one.value for one in answers}


def expect_answers(scene: Scene, queries: list[tuple[str, str, str]]) -> None:
    """Fail if a query (where, as it is, as it is sent) is not answered rightly; what is late gets some time."""
    deadline = time.monotonic() + 20
    while True:
        found = [f"{where}: {expr}: {fault}" for where, expr, sent in queries if (fault := wrong(scene, expr, sent))]
        if not found:
            return
        assert time.monotonic() < deadline, "\n".join(found)


def wrong(scene: Scene, expr: str, sent: str) -> str:
    """Return what is wrong with a query's answer at the moment, "" if it is right."""
    answers = scene.prometheus.query(sent)
    values = by_name(answers)
    if not answers:
        return "no answer"
    if not RIGHT.get(expr, lambda _: True)(values):
        return f"{values} can't be"
    limitless = "100 / container_spec_memory_limit_bytes" in expr  # 893's division by a limit that is not there
    return "" if limitless or all(map(math.isfinite, values.values())) else f"{values} are not finite"


def expect_alerts(scene: Scene, expr: str, sent: str) -> None:
    """Fail if an alert fires for others than those whom it has to fire for."""
    [expected] = [names for part, names in TRUE_CONDITIONS.items() if part in expr] or [set()]
    chance = {"south"} if "container_cpu" in expr else set()  # how much CPU time the disk's work takes
    scene.prometheus.wait_for(sent, lambda found: set(by_name(found)) - chance == expected, 20)


def test_published_dashboards_show_what_runs_unchanged(scene: Scene) -> None:
    shown = [one for one in published() if as_question(one[1]) == one[1] and not one[1].startswith("absent(")]
    assert len(shown) > 100
    expect_answers(scene, shown)


def test_published_alerts_fire_for_whom_they_have_to_and_for_no_other(scene: Scene) -> None:
    conditions = [one for one in published() if as_question(one[1]) != one[1]]
    assert len(conditions) >= 10
    expect_answers(scene, [(book, expr, as_question(sent)) for book, expr, sent in conditions])
    for _, expr, sent in conditions:
        if "offset" not in expr:  # how the load differs from that of a second ago is a matter of chance
            expect_alerts(scene, expr, sent)
    assert [expr for _, expr, sent in published() if expr.startswith("absent(") and scene.prometheus.query(sent)] == []


def test_our_dashboards_show_what_runs(scene: Scene) -> None:
    expect_answers(scene, list(ours()))


def test_what_is_known_to_be_right_is_known_of_queries_that_there_are() -> None:
    assert RIGHT.keys() <= {expr for _, expr, _ in (*published(), *ours())}


def test_our_rules_are_evaluated_and_the_alerts_are_those_that_they_should_be(scene: Scene) -> None:
    scene.prometheus.wait_for('ALERTS{alertname="LogdDriverDown"}', bool)
    scene.prometheus.wait_for('ALERTS{alertname="ContainerCpuThrottled"}', bool)
    groups = scene.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    for rule in rules:
        if rule["type"] == "recording":
            scene.prometheus.wait_for(rule["name"], bool)
    alerts = {
        (alert["labels"]["alertname"], alert["labels"].get("name", ""), alert["state"])
        for rule in rules
        for alert in rule.get("alerts", ())
    }
    assert {alert for alert in alerts if alert[2] == "firing"} == {
        ("ContainerOomKilled", "jenkins", "firing"),
        ("ContainerExitedWithError", "once", "firing"),
    }
    assert alerts >= {
        ("ContainerUnhealthy", "ill", "pending"),
        ("ContainerCpuThrottled", "nginx", "pending"),
        ("LogdDriverDown", "north", "pending"),
    }
    assert not {name for name, _, _ in alerts} & {"LogdDown", "LogdScrapeCollectorFailing", "LogdUnaccountedBytes"}


def test_a_counter_lies_between_two_readings_by_hand(scene: Scene) -> None:
    before_s, asked = cpu_seconds(scene.id("nginx")), time.time()
    series = 'container_cpu_usage_seconds_total{name="nginx"}'
    [found] = scene.prometheus.wait_for(f"{series} and timestamp({series}) > {asked}", bool)
    assert before_s <= found.value <= cpu_seconds(scene.id("nginx"))


def cpu_seconds(container_id: str) -> float:
    """Read a container's CPU time from its cgroup, v1 or v2."""
    old = Path(f"/sys/fs/cgroup/cpuacct/logd/{container_id}/cpuacct.usage")
    if old.exists():
        return int(old.read_text()) / 1e9
    stat = Path(f"/sys/fs/cgroup/logd/{container_id}/cpu.stat").read_text()
    return int(stat.split()[stat.split().index("usage_usec") + 1]) / 1e6


def test_each_container_is_in_the_state_that_it_is_in(scene: Scene) -> None:
    states = {one.labels["name"]: one.labels["state"] for one in scene.prometheus.query("logd_container_state == 1")}
    assert states == dict.fromkeys(RUNNING, "running") | dict.fromkeys(STOPPED, "exited")


def test_lines_and_bytes_of_the_pipeline_are_those_that_were_printed(scene: Scene) -> None:
    printed = len(scene.daemon.docker("logs", "north").stdout)
    peer = scene.prometheus
    for level, count in LINES.items():
        peer.wait_for(f'logd_lines_total{{name="north",level="{level}"}} == {count}', bool)
    peer.wait_for(f'sum(logd_captured_bytes_total{{name="north"}}) == {printed}', bool)
    peer.wait_for(f'logd_driver_delivered_bytes_total{{name="north",driver="json-file"}} == {printed}', bool)
    peer.wait_for(f'logd_driver_buffered_bytes{{name="north",driver="audit"}} == {printed}', bool)
    assert [one for one in peer.query("logd_driver_unaccounted_bytes") if one.value] == []


def test_promtool_has_no_complaint_about_the_page(scene: Scene) -> None:
    with urllib.request.urlopen(f"http://{scene.metrics_address}/metrics", timeout=30) as response:
        page = response.read()
    program = shutil.which("promtool")
    assert program, "the tests need promtool (Debian: prometheus)"
    told = subprocess.run(
        [program, "check", "metrics"], input=page, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert (told.returncode, told.stdout.decode()) == (0, "")


def test_prometheus_scrapes_the_containers_that_ask_for_it(scene: Scene) -> None:
    found = scene.prometheus.query("shop_orders_total")
    assert {(one.labels["job"], one.labels.get("container"), one.value) for one in found} == {
        ("containers", "web", 42.0),
        ("http_sd", None, 42.0),
    }

"""Containers' series, from outside: a real daemon with real containers, asked over HTTP."""

import json
import re
import shutil
import signal
import subprocess
import time

import pytest
from scraping import OPENMETRICS, Scrape, ask, enable_metrics, metrics_address, scrape, wait_until

MINIMUM = (
    *("container_last_seen", "container_cpu_usage_seconds_total", "container_cpu_user_seconds_total"),
    *("container_cpu_system_seconds_total", "container_cpu_cfs_periods_total"),
    *("container_cpu_cfs_throttled_periods_total", "container_spec_cpu_quota", "container_spec_cpu_period"),
    *("container_memory_usage_bytes", "container_memory_working_set_bytes", "container_memory_rss"),
    *("container_memory_cache", "container_memory_swap", "container_spec_memory_limit_bytes"),
    *("container_fs_inodes_total", "container_fs_inodes_free", "container_fs_limit_bytes"),
    *("container_start_time_seconds", "container_health_state"),
)
"""What the published dashboards ask for of every container, but for network and disks."""
SLEEP = ("sleep", "100000")


@pytest.fixture(scope="module")
def watched(make_lasting_daemon, busybox_tar):
    daemon = make_lasting_daemon()
    enable_metrics(daemon)
    daemon.start()
    daemon.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
    yield daemon
    daemon.docker("rm", "-f", *daemon.docker("ps", "-aq").stdout.split())
    daemon.stop()


@pytest.fixture
def look(watched):
    """Return what a scraper sees now."""
    return lambda accept="": scrape(metrics_address(watched), accept)


def run(daemon, name, *arguments):
    return daemon.docker("run", "-d", "--name", name, *arguments).stdout.strip()


def test_every_container_has_what_dashboards_ask_for_with_id_name_and_image(watched, look):
    limits = ("--memory", "64m", "--cpus", "0.5", "--cpu-shares", "512", "--memory-reservation", "32m")
    identifier = run(watched, "limited", *limits, "busybox", *SLEEP)
    seen = look()
    for name in MINIMUM:
        found = [one for one in seen.series(name) if one.labels.get("name") == "limited"]
        assert found, name
        for one in found:
            assert one.labels["id"] == f"/logd/{identifier}"
            assert one.labels["image"] == "busybox"
            assert one.timestamp is None
    own = seen.of("limited")
    assert own["container_spec_memory_limit_bytes"] == 64 << 20
    assert own["container_spec_memory_reservation_limit_bytes"] == 32 << 20
    assert (own["container_spec_cpu_quota"], own["container_spec_cpu_period"]) == (50_000, 100_000)
    assert own["container_spec_cpu_shares"] == 512
    assert own["container_health_state"] == -1
    assert own["container_threads"] == 1
    assert 0 < own["container_memory_rss"] <= own["container_memory_usage_bytes"] < 64 << 20
    assert abs(own["container_last_seen"] - time.time()) < 60
    assert own["container_creation_time_seconds"] <= own["container_start_time_seconds"] <= own["container_last_seen"]
    assert seen.value("container_cpu_usage_seconds_total", name="limited", cpu="total") > 0
    for way in ("waiting", "stalled"):
        for resource in ("cpu", "memory", "io"):
            assert seen.series(f"container_pressure_{resource}_{way}_seconds_total", name="limited")


def test_no_series_has_an_empty_label_or_stands_there_twice(watched, look):
    run(watched, "plain", "busybox", *SLEEP)
    for accept in ("", OPENMETRICS):
        seen = look(accept)
        for one in seen.samples:
            if one.name.startswith("container_") and "name" in one.labels:
                assert one.labels["id"], one
                assert one.labels["name"], one
                assert one.labels["image"], one
        keys = [(one.name, tuple(sorted(one.labels.items()))) for one in seen.samples]
        assert len(set(keys)) == len(keys)


def test_both_formats_say_the_same(watched, look):
    run(watched, "either", "busybox", *SLEEP)
    text, openmetrics = look(), look(OPENMETRICS)
    assert openmetrics.text.endswith("# EOF\n")
    for one in text.series("container_spec_memory_limit_bytes"):
        assert openmetrics.series(one.name, **one.labels) == [one]
    assert {one.name for one in text.samples} == {one.name for one in openmetrics.samples}


def test_the_machine_and_all_containers_together_have_series_of_their_own(watched, look):
    run(watched, "one-of-many", "busybox", *SLEEP)
    seen = look()
    machine, together = ({"id": "/"}, {"id": "/logd"})
    for labels in (machine, together):
        series = [one for one in seen.samples if one.labels.get("id") == labels["id"]]
        assert {"container_memory_usage_bytes", "container_memory_working_set_bytes"} <= {one.name for one in series}
        assert not any("name" in one.labels or "image" in one.labels for one in series)
    whole = seen.value("container_cpu_usage_seconds_total", **machine)
    assert whole > seen.value("container_cpu_usage_seconds_total", **together) > 0
    assert seen.value("container_spec_memory_limit_bytes", **machine) == seen.value("machine_memory_bytes")
    assert seen.value("machine_cpu_cores") >= 1
    used, limit = (seen.value(f"container_fs_{what}_bytes", **machine) for what in ("usage", "limit"))
    assert 0 < used < limit


def test_names_and_labels_with_quotes_and_newlines_are_escaped_and_only_allowed_labels_are_there(watched, look):
    hard = 'a "quoted"\nback\\slash 🐳 {x="y"}'
    labels = ("--label", f"com.docker.compose.project={hard}", "--label", "secret=hunter2")
    run(watched, "labelled", *labels, "busybox", *SLEEP)
    for accept in ("", OPENMETRICS):
        seen = look(accept)
        assert "hunter2" not in seen.text
        found = [one for one in seen.series("container_last_seen") if one.labels.get("name") == "labelled"]
        assert [one.labels["container_label_com_docker_compose_project"] for one in found] == [hard]
        [info] = seen.series("logd_container_info", name="labelled")
        assert info.labels["container_label_com_docker_compose_project"] == hard


def test_an_allow_list_that_was_reloaded_holds_at_the_next_scrape(make_daemon, busybox_tar):
    daemon = make_daemon()
    enable_metrics(daemon, labels=["one.thing"])
    daemon.start()
    daemon.docker("import", "-", "busybox:latest", stdin=busybox_tar, text=False)
    run(daemon, "two", "--label", "one.thing=1", "--label", "one-thing=2", "--label", "other=3", "busybox", *SLEEP)
    where = metrics_address(daemon)

    def shown():
        [one] = scrape(where).series("logd_container_info", name="two")
        return {name: value for name, value in one.labels.items() if name.startswith("container_label_")}

    assert shown() == {"container_label_one_thing": "1"}
    settings = json.loads(daemon.config_file.read_text())
    settings["logd"]["metrics"] = {"labels": ["other", "one.thing", "one-thing"]}
    daemon.config_file.write_text(json.dumps(settings))
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "settings reloaded" in daemon.log())
    assert shown() == {"container_label_other": "3", "container_label_one_thing": "1"}


def test_a_renamed_container_has_its_new_name_in_all_series(watched, look):
    identifier = run(watched, "before", "busybox", *SLEEP)
    assert look().series("container_last_seen", name="before")
    watched.docker("rename", "before", "after")
    seen = look()
    assert 'name="before"' not in seen.text
    names = {one.labels["name"] for one in seen.samples if one.labels.get("id") == f"/logd/{identifier}"}
    assert names == {"after"}


def test_an_image_without_a_name_is_shown_by_its_id(watched, look, busybox_tar):
    image = watched.docker("import", "-", stdin=busybox_tar, text=False).stdout.decode().strip()
    run(watched, "nameless", image, *SLEEP)
    [one] = look().series("container_last_seen", name="nameless")
    assert one.labels["image"].startswith(("sha256:", image[:12]))


def test_a_stopped_container_keeps_its_state_and_its_counters_and_uses_no_memory(watched, look):
    run(watched, "stopping", "busybox", *SLEEP)
    before = look().value("container_cpu_usage_seconds_total", name="stopping")
    watched.docker("stop", "-t", "0", "stopping")
    seen = look()
    assert seen.value("logd_container_state", name="stopping", state="exited") == 1
    assert sum(one.value for one in seen.series("logd_container_state", name="stopping")) == 1
    assert seen.value("logd_container_exit_code", name="stopping") == 137
    assert abs(seen.value("logd_container_exited_timestamp_seconds", name="stopping") - time.time()) < 60
    assert seen.value("logd_container_restarts_total", name="stopping") == 0
    assert seen.value("container_oom_events_total", name="stopping") == 0
    assert seen.value("container_cpu_usage_seconds_total", name="stopping") >= before
    assert not {one for one in seen.of("stopping") if one.startswith("container_memory_") and one.endswith("bytes")}
    assert not seen.series("container_last_seen", name="stopping")
    watched.docker("start", "stopping")
    seen = look()
    assert seen.value("container_cpu_usage_seconds_total", name="stopping") > before
    assert seen.value("logd_container_state", name="stopping", state="running") == 1
    assert seen.series("container_memory_usage_bytes", name="stopping")
    assert not seen.series("logd_container_exit_code", name="stopping")


def test_a_removed_container_is_still_there_for_a_second_scraper(watched, look):
    run(watched, "leaving", "busybox", "sh", "-c", "exit 3")
    wait_until(lambda: look().series("logd_container_exit_code", name="leaving"))
    watched.docker("rm", "leaving")
    first, second = look(), look()
    for seen in (first, second):
        assert seen.value("container_cpu_usage_seconds_total", name="leaving") > 0
        assert seen.value("logd_container_exit_code", name="leaving") == 3
        assert not seen.series("logd_container_state", name="leaving")
    again = run(watched, "leaving", "busybox", *SLEEP)
    assert {one.labels["id"] for one in look().series("container_cpu_usage_seconds_total", name="leaving")} > {
        f"/logd/{again}"
    }


def test_what_a_container_used_between_two_scrapes_is_an_increase_of_its_parents_series(watched, look):
    together = {"id": "/logd", "cpu": "total"}
    before = look().value("container_cpu_usage_seconds_total", **together)
    watched.docker("run", "--rm", "--name", "brief", "busybox", "true")
    after = look()
    used = after.value("container_cpu_usage_seconds_total", name="brief")
    increase = after.value("container_cpu_usage_seconds_total", **together) - before
    assert 0 < used <= increase + 1e-6  # of two large floats


def test_parents_series_are_there_before_their_first_container(make_daemon, busybox_tar):
    daemon = make_daemon("--cgroup-parent", "/logd-none-yet/below")
    enable_metrics(daemon)
    daemon.start()
    seen = scrape(metrics_address(daemon))
    for path in ("/logd-none-yet", "/logd-none-yet/below"):
        assert seen.value("container_cpu_usage_seconds_total", id=path) == 0
        assert not seen.series("container_memory_usage_bytes", id=path)


def test_a_paused_container_still_has_its_memory(watched, look):
    run(watched, "resting", "busybox", *SLEEP)
    watched.docker("pause", "resting")
    seen = look()
    assert seen.value("engine_daemon_container_states_containers", state="paused") == 1
    assert seen.value("logd_container_state", name="resting", state="paused") == 1
    assert seen.series("container_memory_usage_bytes", name="resting")


def test_a_container_whose_cgroup_can_not_be_read_does_not_take_others_with_it(watched, look):
    run(watched, "created-only", "busybox", *SLEEP)
    watched.docker("create", "--name", "never-run", "busybox", *SLEEP)
    seen = look()
    assert seen.value("logd_container_state", name="never-run", state="created") == 1
    assert not seen.series("container_cpu_usage_seconds_total", name="never-run")
    assert seen.series("container_cpu_usage_seconds_total", name="created-only")
    assert seen.value("logd_scrape_collector_success", collector="containers") == 1
    assert 0 < seen.value("logd_scrape_collector_duration_seconds", collector="containers") < 60


def test_the_daemon_counts_what_docker_counts(watched, look):
    before = look()
    watched.docker("rm", "-f", run(watched, "counted", "busybox", *SLEEP))
    watched.docker("version")
    watched.docker("logs", "nothing-of-this-name", check=False)
    after = look()

    def increase(metric, **labels):
        return after.value(metric, **labels) - before.value(metric, **labels)

    for action in ("create", "start", "delete"):
        assert increase("engine_daemon_container_actions_seconds_count", action=action) == 1
        assert increase("engine_daemon_container_actions_seconds_sum", action=action) > 0
    assert increase("engine_daemon_host_info_functions_seconds_count", function="system_version") == 1
    assert increase("engine_daemon_events_total") >= 4
    assert after.value("engine_daemon_events_subscribers_total") == 0
    states = {one.labels["state"]: one.value for one in after.series("engine_daemon_container_states_containers")}
    assert states["running"] + states["paused"] == len(watched.docker("ps", "-q").stdout.split())
    assert after.value("engine_daemon_engine_cpus_cpus") == after.value("machine_cpu_cores")
    assert after.value("logger_log_read_operations_failed_total") == 0
    assert after.value("logd_build_info") == 1
    assert after.value("process_open_fds") > 10
    route = "/containers/{name}/json"
    assert after.value("logd_api_requests_total", route=route, method="GET", code="404") >= 1
    assert {one.labels["kind"] for one in after.series("logd_api_streams")} >= {"logs", "attach", "events", "stats"}
    assert not re.search(r'route="[^"]*nothing-of', after.text)


def test_a_stream_under_way_is_counted(watched, look):
    run(watched, "followed", "busybox", *SLEEP)
    with watched.docker_popen("logs", "-f", "followed") as following:
        wait_until(lambda: look().value("logd_api_streams", kind="logs") == 1)
        following.kill()
    wait_until(lambda: look().value("logd_api_streams", kind="logs") == 0)


def test_the_socket_of_the_api_serves_the_same_metrics(watched, look):
    for path in ("/metrics", "/v1.47/metrics"):
        response, body = ask(watched.socket, path=path)
        assert response.status == 200
        assert {one.name for one in Scrape(body.decode()).samples} == {one.name for one in look().samples}


def test_promtool_has_no_complaint(watched, look):
    promtool = shutil.which("promtool")
    assert promtool, "the tests need promtool (Debian: prometheus)"
    run(watched, "linted", "--memory", "64m", "--cpus", "0.5", "busybox", *SLEEP)
    done = subprocess.run(
        [promtool, "check", "metrics"], check=False, input=look().text, text=True, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

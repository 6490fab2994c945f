"""Docker's log plugins behind the docker command line: a plugin that is another process, and what happens to it."""

import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from probing import wait_until

sys.path.append(str(Path(__file__).parents[1] / "drivers"))

from docker_plugin_peer import HOLDS, DockerPlugin

COUNT = "i=0; while [ $i -lt {n} ]; do i=$((i+1)); echo line $i; done"


def numbered(count: int) -> list[str]:
    return [f"line {number}" for number in range(1, count + 1)]


def first_seen(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(texts))


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[DockerPlugin]:
    """A plugin that runs, where Docker looks for it."""
    one = DockerPlugin(tmp_path / "plugin", f"logd-test-{secrets.token_hex(4)}").start()
    yield one
    one.stop()


def settled(drivers: Callable[[str], dict[str, Any]], container: str, name: str) -> dict[str, Any]:
    """Return the driver's account once nothing is waiting; it adds up."""
    account = wait_until(lambda: (found := drivers(container)[name]) and not found["buffered"] and found)
    assert account["difference"] == 0
    return dict(account)


@pytest.mark.calm
def test_docker_run_delivers_every_line_to_the_plugin_with_the_options_that_are_its_own(
    plugin: DockerPlugin, run: Any, drivers: Any, forwarding: Any
) -> None:
    own = ["some-url=http://x", "labels=app", "tag={{.Name}}/{{.ID}}"]
    ours = [
        "mode=non-blocking",
        "max-buffer-size=4m",
        "cache-max-size=1m",
        "undelivered-max-size=64m",
        "exclude=secret",
    ]
    options = [word for one in own + ours for word in ("--log-opt", one)]
    script = "echo one; echo; printf 'no newline'; echo a secret >&2; echo oops >&2"
    container = run(script, "--log-driver", plugin.name, "--label", "app=shop", "--name", "web", *options)
    assert forwarding.docker("wait", container).stdout == "0\n"
    account = settled(drivers, container, plugin.name)
    wait_until(lambda: len(plugin.lines(container)) == 4)
    found = sorted((one["source"], one["line"], one["partial"]) for one in plugin.entries(container))
    stdout = [(b"", False), (b"no newline", True), (b"one", False)]
    assert found == [("stderr", b"oops", False), *(("stdout", *one) for one in stdout)]
    info = plugin.calls("StartLogging")[-1]["body"]["Info"]
    assert info["Config"] == dict(one.split("=", 1) for one in own)
    assert (info["ContainerName"], info["ContainerLabels"], info["ContainerImageName"]) == (
        "/web",
        {"app": "shop"},
        "busybox",
    )
    assert (account["unconfirmed"], account["delivered"], account["dropped"]) == (20, 0, {"filtered": 9})
    wait_until(lambda: len(plugin.calls("StopLogging")) == len(plugin.calls("StartLogging")))
    wait_until(lambda: not any((forwarding.exec_root / "logging").iterdir()))
    assert forwarding.docker("logs", container).stdout == "one\n\nno newline"
    shown = json.loads(forwarding.docker("inspect", container).stdout)[0]["HostConfig"]["LogConfig"]
    assert (shown["Type"], shown["Config"]["some-url"]) == (plugin.name, "http://x")


@pytest.mark.calm
def test_a_line_of_many_kilobytes_comes_in_dockers_parts(
    plugin: DockerPlugin, run: Any, drivers: Any, forwarding: Any
) -> None:
    container = run("head -c 40000 /dev/zero | tr '\\0' x; echo; echo end", "--log-driver", plugin.name)
    forwarding.docker("wait", container)
    settled(drivers, container, plugin.name)
    entries = wait_until(lambda: len(found := plugin.entries(container)) == 4 and found)
    assert [len(one["line"]) for one in entries] == [16384, 16384, 40000 - 2 * 16384, 3]
    parts = [one["part"] for one in entries[:3]]
    assert [(one["ordinal"], one["last"]) for one in parts] == [(1, False), (2, False), (3, True)]
    assert len({one["id"] for one in parts}) == 1
    assert not entries[3]["partial"]


@pytest.mark.calm
@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ("gone", 'error looking up logging plugin {0}: plugin "{0}" not found'),
        ("dead", "error looking up logging plugin {0}: /run/docker/plugins/{0}.sock: "),
        (
            "volume",
            'Plugin does not implement the requested driver: plugin="{0}", requested implementation="LogDriver"',
        ),
        (
            "refuse some-url is required",
            "failed to initialize logging driver: error creating logger: some-url is required",
        ),
    ],
)
def test_a_container_whose_plugin_would_not_log_is_not_created(
    plugin: DockerPlugin, forwarding: Any, mood: str, words: str
) -> None:
    plugin.behave(mood)
    if mood == "dead":
        plugin.kill()
    elif mood == "gone":
        plugin.stop()
    done = forwarding.docker("create", "--name", "web", "--log-driver", plugin.name, "busybox", "true", check=False)
    assert done.returncode != 0
    assert words.format(plugin.name) in done.stderr
    assert forwarding.docker("ps", "-aq").stdout == ""
    plugin.stop()
    plugin.start().behave("well")
    forwarding.docker("create", "--name", "web", "--log-driver", plugin.name, "busybox", "true")


def test_a_plugin_that_is_away_at_the_start_of_daemon_and_container_gets_all_when_it_is_back(
    plugin: DockerPlugin, drivers: Any, forwarding: Any
) -> None:
    create = ["create", "--network", "none", "--log-driver", plugin.name, "busybox", "sh", "-c", COUNT.format(n=2000)]
    container = forwarding.docker(*create).stdout.strip()
    plugin.stop()
    forwarding.restart()
    forwarding.docker("start", container)
    assert forwarding.docker("wait", container).stdout == "0\n"
    failing = wait_until(lambda: (one := drivers(container)[plugin.name])["retries"] > 1 and one)
    assert (failing["state"], failing["unconfirmed"]) == ("retrying", 0)
    assert failing["error"] == f'error looking up logging plugin {plugin.name}: plugin "{plugin.name}" not found'
    assert forwarding.docker("logs", "--tail", "1", container).stdout == "line 2000\n"
    plugin.start()
    settled(drivers, container, plugin.name)
    wait_until(lambda: len(plugin.texts(container)) >= 2000)
    assert plugin.texts(container) == numbered(2000)


@pytest.mark.calm
def test_a_plugin_that_refuses_later_has_its_words_shown_and_gets_all_once_it_does_not(
    plugin: DockerPlugin, drivers: Any, forwarding: Any
) -> None:
    create = ["create", "--network", "none", "--log-driver", plugin.name, "busybox", "echo", "one"]
    container = forwarding.docker(*create).stdout.strip()
    plugin.behave("refuse the server is out of order")
    forwarding.docker("start", container)
    failing = wait_until(lambda: (one := drivers(container)[plugin.name])["error"] and one)
    assert failing["error"] == "error creating logger: the server is out of order"
    plugin.behave("well")
    settled(drivers, container, plugin.name)
    wait_until(lambda: plugin.texts(container) == ["one"])


@pytest.mark.calm
def test_a_plugin_that_is_killed_and_restarted_misses_nothing_that_it_had_not_read(
    plugin: DockerPlugin, run: Any, drivers: Any, forwarding: Any
) -> None:
    container = run(COUNT.format(n=20_000), "--log-driver", plugin.name)
    for round_number in range(1, 4):
        seen = plugin.count()
        wait_until(lambda seen=seen: plugin.count() > seen + 500)
        plugin.behave("hold")
        wait_until(lambda expected=round_number: len(plugin.calls(HOLDS)) == expected)
        plugin.kill()
        plugin.behave("well")
        plugin.start()
    forwarding.docker("wait", container)
    account = settled(drivers, container, plugin.name)
    wait_until(lambda: plugin.count() >= 20_000)
    assert plugin.texts(container) == numbered(20_000)  # what it had read does not come again either
    assert account["dropped"] == {}


@pytest.mark.calm
def test_a_plugin_that_never_reads_holds_up_neither_the_container_nor_another_driver(
    plugin: DockerPlugin, run: Any, drivers: Any, forwarding: Any
) -> None:
    plugin.behave("hold")
    container = run(COUNT.format(n=20_000), "--log-driver", f"json-file,x={plugin.name}")
    assert forwarding.docker("wait", container).stdout == "0\n"
    settled(drivers, container, "json-file")
    waiting = drivers(container)["x"]
    assert waiting["buffered"] == waiting["captured"] > 0
    plugin.behave("well")
    settled(drivers, container, "x")
    wait_until(lambda: plugin.count() >= 20_000)
    assert plugin.texts(container) == numbered(20_000)


@pytest.mark.soak
def test_nothing_is_lost_when_the_forwarder_is_killed_again_and_again(
    plugin: DockerPlugin, run: Any, drivers: Any, forwarding: Any
) -> None:
    script = "i=0; while true; do i=$((i+1)); echo line $i; [ $((i % 100)) != 0 ] || sleep 0.05; done"
    container = run(script, "--log-driver", plugin.name)

    def forwarder() -> int:
        found = forwarding.get("/logd/plugins")["forwarders"]
        return int({one["plugin"]: one["pid"] for one in found}["logd"])

    for _ in range(4):
        seen = plugin.count()
        wait_until(lambda seen=seen: plugin.count() > seen)
        pid = wait_until(forwarder)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: forwarder() not in {0, pid})
    forwarding.docker("kill", container)
    settled(drivers, container, plugin.name)
    printed = forwarding.docker("logs", container).stdout.splitlines()
    wait_until(lambda: set(plugin.texts(container)) >= set(printed))
    assert first_seen(plugin.texts(container)) == printed
    wait_until(lambda: not any((forwarding.exec_root / "logging").iterdir()))


@pytest.mark.calm
def test_a_plugin_is_added_and_removed_while_the_container_runs(
    plugin: DockerPlugin, run: Any, drivers: Any, forwarding: Any
) -> None:
    container = run("i=0; while true; do i=$((i+1)); echo line $i; sleep 0.02; done", "--log-driver", "local")
    added = ["log", "driver", "add", container, f"x={plugin.name}", "--from", "start", "--log-opt", "key=value"]
    plugin.behave("refuse no")
    refused = forwarding.logd(*added, check=False)
    assert refused.returncode != 0
    assert "failed to initialize logging driver: error creating logger: no" in refused.stderr
    plugin.behave("well")
    forwarding.logd(*added)
    wait_until(lambda: len(plugin.texts(container)) > 10)
    assert plugin.texts(container)[:3] == ["line 1", "line 2", "line 3"]
    assert plugin.calls("StartLogging")[-1]["body"]["Info"]["Config"] == {"key": "value"}
    forwarding.logd("log", "driver", "remove", container, "x")
    wait_until(lambda: plugin.calls("LogDriver")[-1]["method"] == "LogDriver.StopLogging")
    assert set(drivers(container)) == set()


@pytest.mark.calm
def test_plugins_that_are_log_drivers_are_listed(plugin: DockerPlugin, forwarding: Any) -> None:
    def listed() -> dict[str, str]:
        found = forwarding.get("/logd/plugins")["drivers"]
        return {one["name"]: one["plugin"] for one in found}

    assert listed()[plugin.name] == "Docker plugin"
    plugin.behave("volume")
    assert plugin.name not in listed()


def test_a_plugin_can_be_the_daemons_own_default(
    plugin: DockerPlugin, make_daemon: Callable[..., Any], busybox_tar: bytes
) -> None:
    daemon = make_daemon("--log-driver", plugin.name, "--log-opt", "some-url=http://x").start()
    daemon.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
    container = daemon.docker("run", "-d", "--network", "none", "busybox", "echo", "hello").stdout.strip()
    wait_until(lambda: plugin.texts(container) == ["hello"])
    assert plugin.calls("StartLogging")[-1]["body"]["Info"]["Config"] == {"some-url": "http://x"}

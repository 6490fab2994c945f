"""A daemon's new default log driver, for containers that were created with the old one, while they run."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from probing import wait_until

from logd.cli.client import Client, Refused

TALK = "echo early; until [ -e /w/go ]; do sleep 0.1; done; echo late; sleep 1000"


@pytest.fixture
def set_default(forwarding: Any) -> Callable[..., None]:
    """Write the default log driver and options into daemon.json, and have the daemon read it."""

    def set_it(driver: str, *options: str, restart: bool = False) -> None:
        opts = dict(one.split("=", 1) for one in options if one != "--log-opt")
        content = {"log-driver": driver, "log-opts": opts, "logd": {"log": {"to": "stderr"}}}
        forwarding.config_file.write_text(json.dumps(content))
        if restart:
            forwarding.restart()
            return
        before = forwarding.log().count("settings reloaded")
        forwarding.process.send_signal(signal.SIGHUP)
        wait_until(lambda: forwarding.log().count("settings reloaded") > before)

    return set_it


def driver_of(daemon: Any, container: str) -> tuple[str, dict[str, str]]:
    shown = json.loads(daemon.docker("inspect", container).stdout)[0]["HostConfig"]["LogConfig"]
    return shown["Type"], shown["Config"]


def apply(daemon: Any, *arguments: str, check: bool = True) -> Any:
    return daemon.logd("log", "driver", "apply-default", *arguments, check=check)


@pytest.fixture
def talker(run: Any, forwarding: Any, tmp_path: Path) -> Callable[..., str]:
    """Start a container that says `early`, and `late` once there is a file named `go`; it runs on."""

    def start(*options: str) -> str:
        container: str = run(TALK, "-v", f"{tmp_path}:/w", *options)
        wait_until(lambda: forwarding.docker("logs", container).stdout == "early\n")
        return container

    return start


@pytest.mark.parametrize("restart", [False, True], ids=["by SIGHUP", "by a restart"])
def test_a_new_default_is_for_new_containers_until_it_is_applied_to_those_that_run(
    talker: Any, run: Any, probe: Any, drivers: Any, forwarding: Any, set_default: Any, tmp_path: Path, restart: bool
) -> None:
    target = probe()
    old = talker()
    set_default("probe", *target.options(), restart=restart)
    assert driver_of(forwarding, old) == ("local", {})
    assert apply(forwarding, old).stdout == f"{old}\n"
    assert driver_of(forwarding, old)[0] == "probe"
    assert apply(forwarding, old).stdout == ""
    (tmp_path / "go").touch()
    account = wait_until(lambda: (one := drivers(old)["probe"])["captured"] and not one["buffered"] and one)
    assert (account["captured"], account["delivered"], account["difference"]) == (5, 5, 0)
    assert target.texts() == ["late"]
    assert driver_of(forwarding, run("true"))[0] == "probe"


def test_all_means_those_that_were_created_with_the_default_and_from_start_what_is_kept(
    talker: Any, probe: Any, drivers: Any, forwarding: Any, set_default: Any
) -> None:
    target = probe()
    first, second = talker("--name", "first"), talker("--name", "second", "--log-opt", "max-size=1m")
    own, changed = talker("--name", "own", "--log-driver", "json-file"), talker("--name", "changed")
    forwarding.logd("log", "driver", "set", changed, "local", "--log-opt", "max-file=2")
    set_default("local,probe", *target.options(), "max-file=3")
    assert set(apply(forwarding, "--all", "--from", "start").stdout.split()) == {"first", "second"}
    assert driver_of(forwarding, second)[1]["max-size"] == "1m"
    assert [driver_of(forwarding, one)[0] for one in (own, changed)] == ["json-file", "local"]
    wait_until(lambda: target.texts() == ["early", "early"])
    assert drivers(first)["probe"]["captured"] == len("early\n")
    set_default("local")
    assert set(apply(forwarding, "--all").stdout.split()) == {"first", "second"}
    assert driver_of(forwarding, first) == ("local", {})
    assert drivers(first) == {}


def test_a_driver_of_its_own_and_log_opts_that_do_not_suit_are_refused_and_nothing_changes(
    talker: Any, probe: Any, forwarding: Any, set_default: Any
) -> None:
    own, opts = talker("--log-driver", "local", "--name", "own"), talker("--log-opt", "max-size=1m", "--name", "opts")
    set_default("probe", *probe().options())
    done = apply(forwarding, "own", "opts", check=False)
    assert done.returncode == 1
    assert "own: container own was not created with the daemon's default log driver: it has 'local'" in done.stderr
    assert "opts: unknown log opt 'max-size' for probe log driver" in done.stderr
    assert [driver_of(forwarding, one) for one in (own, opts)] == [("local", {}), ("local", {"max-size": "1m"})]
    for wrong in ([], ["--all", "own"]):
        done = apply(forwarding, *wrong, check=False)
        assert (done.returncode, "name containers, or give --all" in done.stderr) == (125, True)


def test_the_api_says_what_holds_now_and_refuses_in_dockers_shape(
    talker: Any, probe: Any, forwarding: Any, set_default: Any
) -> None:
    default, own = talker("--name", "default"), talker("--name", "own", "--log-driver", "local")
    target = probe()
    set_default("probe", *target.options())
    client = Client(forwarding.host)
    path = "/logd/containers/{}/drivers/default"
    config = dict(one.split("=", 1) for one in target.options()[1::2])
    assert client.json("POST", path.format(default)) == {"Changed": True, "Type": "probe", "Config": config}
    assert client.json("POST", path.format(default)) == {"Changed": False, "Type": "probe", "Config": config}
    for name, status in ((own, 409), ("nobody", 404)):
        with pytest.raises(Refused) as refused:
            client.json("POST", path.format(name))
        assert refused.value.status == status
    set_default("local")
    with pytest.raises(Refused, match="from: 'nowhere'") as refused:
        client.json("POST", path.format(default), {"from": "nowhere"})
    assert refused.value.status == 400
    assert driver_of(forwarding, default)[0] == "probe"

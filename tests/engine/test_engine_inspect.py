"""Docker's shapes of a container."""

import time

import pytest
from engine_samples import make_container

from logd.config import DaemonConfig
from logd.container import MountPoint, State
from logd.engine.inspect import describe, human_duration, inspect, summary
from logd.engine.names import Registry
from logd.engine.networks import Networks
from logd.events import EventBus
from logd.spec import HostConfig

MINUTE, HOUR, DAY = 60, 3600, 86400
NETWORKS = Networks(DaemonConfig(), EventBus(), Registry())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1.9, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * MINUTE + 59, "59 minutes"),
        (HOUR, "About an hour"),
        (1.4 * HOUR, "About an hour"),
        (1.5 * HOUR, "2 hours"),
        (47 * HOUR, "47 hours"),
        (48 * HOUR, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (731 * DAY, "2 years"),
    ],
)
def test_a_duration_is_worded_as_docker_words_it(seconds, words):
    assert human_duration(seconds) == words


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State(), "Created"),
        (State(running=True, started_ns=1), "Up 5 seconds"),
        (State(running=True, paused=True, started_ns=1), "Up 5 seconds (Paused)"),
        (State(started_ns=1, finished_ns=2_000_000_001, exit_code=137), "Exited (137) 3 seconds ago"),
        (State(started_ns=1, removing=True), "Removal In Progress"),
        (State(dead=True), "Dead"),
    ],
)
def test_a_state_is_described_as_in_docker_ps(state, words):
    assert describe(state, 5_000_000_001) == words


# ContainerJSON of Docker Engine API 1.47: the names of each level, and the types of the values.
TEXT, FLAG, NUMBER = str, bool, int
CONTAINER_JSON = {
    "Id": TEXT, "Created": TEXT, "Path": TEXT, "Args": list, "State": dict, "Image": TEXT, "ResolvConfPath": TEXT,
    "HostnamePath": TEXT, "HostsPath": TEXT, "LogPath": TEXT, "Name": TEXT, "RestartCount": NUMBER, "Driver": TEXT,
    "Platform": TEXT, "MountLabel": TEXT, "ProcessLabel": TEXT, "AppArmorProfile": TEXT, "ExecIDs": type(None),
    "HostConfig": dict, "GraphDriver": dict, "Mounts": list, "Config": dict, "NetworkSettings": dict,
}  # fmt: skip
STATE = {
    "Status": TEXT, "Running": FLAG, "Paused": FLAG, "Restarting": FLAG, "OOMKilled": FLAG, "Dead": FLAG,
    "Pid": NUMBER, "ExitCode": NUMBER, "Error": TEXT, "StartedAt": TEXT, "FinishedAt": TEXT,
}  # fmt: skip
SUMMARY = {
    "Id": TEXT, "Names": list, "Image": TEXT, "ImageID": TEXT, "Command": TEXT, "Created": NUMBER, "Ports": list,
    "Labels": dict, "State": TEXT, "Status": TEXT, "HostConfig": dict, "NetworkSettings": dict, "Mounts": list,
}  # fmt: skip
NETWORK_SETTINGS = (
    "Bridge SandboxID SandboxKey Ports HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen SecondaryIPAddresses "
    "SecondaryIPv6Addresses EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen IPAddress IPPrefixLen IPv6Gateway "
    "MacAddress Networks"
)
ENDPOINT = (
    "IPAMConfig Links Aliases MacAddress DriverOpts NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway "
    "GlobalIPv6Address GlobalIPv6PrefixLen DNSNames"
)


def types_of(shown):
    return {name: type(value) for name, value in shown.items()}


async def test_inspect_has_dockers_fields_and_types(tmp_path):
    shown = inspect(make_container(tmp_path), ["/l/TOP", "/l/BASE"], NETWORKS)
    assert types_of(shown) == CONTAINER_JSON
    assert types_of(shown["State"]) == STATE
    assert set(shown["NetworkSettings"]) == set(NETWORK_SETTINGS.split())
    assert set(shown["NetworkSettings"]["Networks"]["bridge"]) == set(ENDPOINT.split())
    assert set(shown["GraphDriver"]["Data"]) == {"ID", "LowerDir", "MergedDir", "UpperDir", "WorkDir"}
    assert shown["GraphDriver"]["Data"]["LowerDir"] == "/l/TOP:/l/BASE"
    assert shown["Name"] == "/web"
    assert shown["Created"] == "2023-11-14T22:13:20.123456789Z"


async def test_times_that_have_not_come_are_gos_zero_time(tmp_path):
    state = inspect(make_container(tmp_path), [], NETWORKS)["State"]
    assert (state["StartedAt"], state["FinishedAt"]) == ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z")
    assert state["Status"] == "created"


async def test_the_summary_has_dockers_fields_and_types(tmp_path):
    shown = summary(make_container(tmp_path), NETWORKS)
    assert types_of(shown) == SUMMARY
    assert shown["Names"] == ["/web"]
    assert shown["Command"] == "sh -c 'echo hello'"
    assert shown["Created"] == 1_700_000_000
    assert shown["HostConfig"] == {"NetworkMode": "bridge"}
    assert list(shown["NetworkSettings"]["Networks"]) == ["bridge"]


async def test_a_running_container_is_up(tmp_path):
    state = State(running=True, pid=77, started_ns=time.time_ns() - 5_500_000_000)
    container = make_container(tmp_path, state=state, host_config=HostConfig(network_mode="host"))
    shown = summary(container, NETWORKS)
    assert (shown["State"], shown["Status"]) == ("running", "Up 5 seconds")
    assert list(shown["NetworkSettings"]["Networks"]) == ["host"]


async def test_mounts_have_dockers_fields_and_a_bind_has_no_name(tmp_path):
    mounts = [
        MountPoint("volume", "/v/abc/_data", "/data", name="abc", driver="local"),
        MountPoint("bind", "/srv", "/srv", mode="ro", rw=False, propagation="rprivate"),
    ]
    assert summary(make_container(tmp_path, mounts=mounts), NETWORKS)["Mounts"] == [
        {
            "Type": "volume",
            "Name": "abc",
            "Source": "/v/abc/_data",
            "Destination": "/data",
            "Driver": "local",
            "Mode": "",
            "RW": True,
            "Propagation": "",
        },
        {"Type": "bind", "Source": "/srv", "Destination": "/srv", "Mode": "ro", "RW": False, "Propagation": "rprivate"},
    ]

"""The body of a create request, as Docker's clients send it."""

import json

import pytest

from logd.errors import InvalidParameter
from logd.spec import ContainerSpec, HostConfig, convert, decode_create, to_docker

# What `docker create busybox` of the CLI 28.2 sends, shortened where lists are empty.
CLI = {
    "Hostname": "", "Env": None, "Cmd": None, "Image": "busybox", "Volumes": {}, "Entrypoint": None, "Labels": {},
    "HostConfig": {
        "Binds": None, "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "default",
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "ConsoleSize": [0, 0], "CapAdd": None, "Dns": [],
        "UTSMode": "", "MemorySwappiness": -1, "OomKillDisable": False, "PidsLimit": 0, "MaskedPaths": None,
        "IOMaximumIOps": 0, "BlkioDeviceReadIOps": [{"Path": "/dev/sda", "Rate": 5}],
    },
    "NetworkingConfig": {"EndpointsConfig": {"default": {"IPAMConfig": None}}},
}  # fmt: skip


def decode(body):
    return decode_create(json.dumps(body).encode())


def test_the_body_that_the_docker_cli_sends_is_read_with_nulls_as_absent():
    spec, host, networking = decode(CLI)
    assert (spec.image, spec.cmd, spec.env, spec.volumes) == ("busybox", [], [], {})
    assert (host.network_mode, host.pids_limit, host.memory_swappiness, host.masked_paths) == ("default", 0, -1, None)
    assert host.blkio_device_read_iops[0].rate == 5
    assert networking["EndpointsConfig"]["default"] == {"IPAMConfig": None}


def test_a_command_may_be_a_single_string_as_in_docker():
    spec, host, _ = decode({"Image": "a", "Cmd": "ls -l", "Entrypoint": "/bin/sh", "HostConfig": {"CapAdd": "ALL"}})
    assert (spec.cmd, spec.entrypoint, host.cap_add) == (["ls -l"], ["/bin/sh"], ["ALL"])


def test_names_match_in_any_case_and_unknown_fields_are_ignored():
    spec, host, _ = decode({"image": "a", "Nonsense": 1, "hostconfig": {"memory": 5, "nonsense": [{}]}})
    assert (spec.image, host.memory) == ("a", 5)


def test_a_null_value_of_a_map_keeps_its_key():
    spec, host, _ = decode(
        {"Image": "a", "Volumes": {"/v": None}, "Labels": {"k": None}, "HostConfig": {"PortBindings": {"80/tcp": None}}}
    )
    assert (spec.volumes, spec.labels, host.port_bindings) == ({"/v": {}}, {"k": ""}, {"80/tcp": []})


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "EOF"),
        (b"{", "invalid JSON"),
        (b"[]", "object"),
        (b"{}", "config cannot be empty"),
        (b'{"Image": 5}', "Image"),
        (b'{"Image": "a", "HostConfig": {"Memory": "1g"}}', "HostConfig.Memory"),
        (b'{"Image": "a", "HostConfig": 5}', "HostConfig"),
        (b'{"Image": "a", "NetworkingConfig": 5}', "NetworkingConfig"),
    ],
)
def test_a_body_that_is_wrong_is_refused_with_the_place(body, word):
    with pytest.raises(InvalidParameter, match=word):
        decode_create(body)


def test_inspect_shows_nulls_and_leaves_fields_out_as_docker_does():
    shown = to_docker(ContainerSpec(image="a", labels={"x": "y"}))
    assert shown["Cmd"] is None
    assert shown["Volumes"] is None
    assert shown["Tty"] is False
    assert "StopSignal" not in shown
    host = to_docker(HostConfig(init=False))
    assert host["UTSMode"] == ""
    assert host["PortBindings"] == {}
    assert host["Init"] is False
    assert "Tmpfs" not in host
    assert "Mounts" not in host


def test_inspect_leaves_out_a_false_that_docker_leaves_out_and_keeps_a_zero_that_was_asked_for():
    shown = to_docker(ContainerSpec(image="a", stop_timeout=0))
    assert shown["StopTimeout"] == 0
    assert shown.keys().isdisjoint({"ArgsEscaped", "NetworkDisabled", "Healthcheck"})


def test_inspect_shows_an_empty_list_where_the_cli_sends_one():
    host = to_docker(HostConfig())
    assert host["Dns"] == host["Devices"] == host["Ulimits"] == host["BlkioDeviceReadIOps"] == []
    assert host["Binds"] is host["CapAdd"] is host["DeviceRequests"] is None


def test_what_inspect_shows_is_read_back_to_the_same():
    spec, host, _ = decode(CLI)
    again_spec, again_host, _ = decode({**to_docker(spec), "HostConfig": to_docker(host)})
    assert (again_spec, again_host) == (spec, host)


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1])
def test_a_number_that_go_can_not_hold_is_refused(value):
    for fields in ({"Memory": value}, {"PidsLimit": value}):
        with pytest.raises(InvalidParameter, match="64 bits"):
            convert(fields, HostConfig)

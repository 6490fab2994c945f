"""A create request is checked as a whole: what is not implemented is refused by name, never ignored."""

import json

import msgspec
import pytest

from logd.errors import InvalidParameter, LogdError
from logd.runtime import oci
from logd.runtime.validate import validate_host
from logd.spec import (
    ContainerSpec,
    DeviceMapping,
    DeviceRequest,
    HealthConfig,
    HostConfig,
    PortBinding,
    RestartPolicy,
    decode_create,
)

# What the docker CLI 28.2 sends with every create, whatever the options.
CLI_HOST = {
    "ContainerIDFile": "", "NetworkMode": "default", "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "ConsoleSize": [24, 80], "VolumeDriver": "", "MemorySwappiness": -1, "OomKillDisable": False, "PidsLimit": 0,
    "Isolation": "", "Cgroup": "", "Dns": [], "Devices": [], "Ulimits": [], "CpuCount": 0, "MaskedPaths": None,
}  # fmt: skip
PORT = {"80/tcp": [PortBinding(host_port="80")]}


def test_what_the_cli_sends_by_default_is_accepted_without_a_warning():
    body = {"Image": "busybox", "HostConfig": CLI_HOST, "NetworkingConfig": {"EndpointsConfig": {"default": {}}}}
    spec, host, _ = decode_create(json.dumps(body).encode())
    assert validate_host(spec, host) == []


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (HostConfig(restart_policy=RestartPolicy(name="x")), "unknown policy 'x'"),
        (HostConfig(restart_policy=RestartPolicy(name="no", maximum_retry_count=1)), "only be used with 'on-failure'"),
        (HostConfig(restart_policy=RestartPolicy(name="always", maximum_retry_count=-1)), "and cannot be negative"),
        (
            HostConfig(restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=-1)),
            "invalid restart policy: maximum retry count cannot be negative",
        ),
        (HostConfig(userns_mode="remap"), "--userns remap is not supported"),
        (HostConfig(ipc_mode="container:"), "--ipc container: is not supported"),
        (HostConfig(pid_mode="container:"), "--pid container: is not supported"),
        (HostConfig(uts_mode="x"), "--uts x is not supported"),
        (HostConfig(cgroupns_mode="x"), "--cgroupns x is not supported"),
        (HostConfig(isolation="hyperv"), "--isolation hyperv is not supported"),
        (HostConfig(device_requests=[DeviceRequest(count=-1)]), "--gpus is not supported"),
        (HostConfig(links=["a:b"]), "--link is supported on user-defined networks only"),
        (HostConfig(links=["a:b"], network_mode="none"), "--link is supported on user-defined networks only"),
        (HostConfig(volume_driver="nfs"), "--volume-driver"),
        (HostConfig(storage_opt={"size": "1g"}), "--storage-opt is not supported"),
        (HostConfig(cgroup="container:x"), "--cgroup"),
        (HostConfig(cgroup_parent="/a/../b"), "must not contain '..'"),
        (HostConfig(cgroup_parent="/a\0b"), r"cgroup-parent: '/a\\x00b' must contain printable characters only"),
        (HostConfig(cgroup_parent="/a\nb"), "must contain printable characters only"),
        (HostConfig(cap_add=["NOPE"]), 'invalid CapAdd: unknown capability: "CAP_NOPE"'),
        (HostConfig(security_opt=["nope"]), "invalid --security-opt"),
        (HostConfig(sysctls={"kernel.panic": "1"}), "sysctl 'kernel.panic' is not whitelisted"),
        (HostConfig(sysctls={"net.a/../../b": "1"}), "is not whitelisted"),
        (HostConfig(sysctls={"net.core.somaxconn": "1"}, network_mode="host"), "host's network namespace"),
        (HostConfig(sysctls={"kernel.sem": "1"}, ipc_mode="host"), "host's ipc namespace"),
        (HostConfig(devices=[DeviceMapping(path_on_host="/dev/nope")]), "error gathering device information"),
        (HostConfig(devices=[DeviceMapping(path_on_host="/etc/passwd")]), "not a device node"),
        (HostConfig(devices=[DeviceMapping(path_on_host="/dev/null", cgroup_permissions="x")]), "invalid device mode"),
        (HostConfig(devices=[DeviceMapping(path_on_host="nvidia.com/gpu=all")]), "CDI devices are not supported"),
        (HostConfig(device_cgroup_rules=["c 1:3"]), "invalid device cgroup rule format: 'c 1:3'"),
        (HostConfig(memory=1), "Minimum memory limit allowed is 6MB"),
        (HostConfig(binds=["/a:b"]), "must be absolute"),
        (HostConfig(tmpfs={"/t": "x"}), "invalid tmpfs option"),
        (HostConfig(extra_hosts=["x"]), "bad format for add-host"),
    ],
)
def test_a_host_setting_that_is_not_to_be_had_is_refused_by_name(host, words):
    with pytest.raises(LogdError, match=words) as caught:
        validate_host(ContainerSpec(), host)
    assert caught.value.status in {400, 501}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ContainerSpec(hostname="x" * 65), "invalid hostname"),
        (ContainerSpec(hostname="a\nb"), "invalid hostname"),
        (ContainerSpec(working_dir="relative"), "the working directory 'relative' is invalid"),
        (ContainerSpec(env=["=x"]), "invalid environment variable: =x"),
        (ContainerSpec(cmd=["a\0b"]), "a NUL byte"),
        (ContainerSpec(volumes={"/": {}}), "destination can't be '/'"),
        (ContainerSpec(volumes={"rel": {}}), "must be absolute"),
    ],
)
def test_a_setting_of_the_container_that_is_not_to_be_had_is_refused_by_name(spec, words):
    with pytest.raises(LogdError, match=words):
        validate_host(spec, HostConfig())


def test_a_health_check_and_ports_with_the_hosts_network_are_fine():
    assert validate_host(ContainerSpec(healthcheck=HealthConfig(test=["CMD", "x"])), HostConfig()) == []
    warnings = validate_host(ContainerSpec(), HostConfig(network_mode="host", port_bindings=PORT))
    assert warnings == ["Published ports are discarded when using host network mode"]


def test_a_host_name_and_the_hosts_uts_namespace_contradict_each_other():
    with pytest.raises(InvalidParameter, match="conflicting options: hostname and the UTS mode"):
        validate_host(ContainerSpec(hostname="x"), HostConfig(uts_mode="host"))


def test_every_field_of_the_host_config_is_looked_at_somewhere():
    """A field that no module of the runtime or engine reads would be ignored in silence."""
    from pathlib import Path

    import logd

    package = Path(logd.__file__).parent
    text = "".join(path.read_text() for room in ("runtime", "engine") for path in (package / room).glob("*.py"))
    without_effect = {"container_id_file", "console_size"}  # the client's own business
    unread = {field.name for field in msgspec.structs.fields(HostConfig) if f".{field.name}" not in text}
    assert unread <= without_effect


def test_the_cgroup_of_a_container_is_below_its_parent():
    assert oci.cgroup_path("id") == "/logd/id"
    assert oci.cgroup_path("id", "own/deep/") == "/own/deep/id"
    assert oci.delete_argv(("/usr/sbin/runc", "--root", "/r"), "id") == [
        "/usr/sbin/runc",
        "--root",
        "/r",
        "delete",
        "id",
    ]

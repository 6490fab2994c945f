"""What a container runs: request, image and daemon together."""

import os

import pytest

from logd.config import DaemonConfig, Runtime
from logd.engine.merge import check_request, command_of, complete_host, complete_spec, merge_image
from logd.errors import InvalidParameter
from logd.spec import ContainerSpec, HealthConfig, HostConfig, RestartPolicy

IMAGE = ContainerSpec(
    user="app",
    env=["PATH=/bin", "MODE=image", "KEPT=1"],
    cmd=["serve"],
    entrypoint=["/entry"],
    working_dir="/srv",
    labels={"from": "image", "tier": "image"},
    volumes={"/data": {}},
    exposed_ports={"80/tcp": {}},
    stop_signal="SIGQUIT",
)


def test_what_the_request_leaves_open_is_the_images():
    merged = merge_image(ContainerSpec(), IMAGE)
    assert merged == IMAGE


def test_what_the_request_says_comes_before_the_image():
    merged = merge_image(
        ContainerSpec(user="0", env=["MODE=mine"], labels={"tier": "mine"}, working_dir="/tmp/../var//lib/"), IMAGE
    )
    assert merged.user == "0"
    assert merged.env == ["MODE=mine", "PATH=/bin", "KEPT=1"]
    assert merged.labels == {"from": "image", "tier": "mine"}
    assert merged.working_dir == "/var/lib"


def test_a_name_without_a_value_takes_the_images_variable_away():
    assert merge_image(ContainerSpec(env=["MODE"]), IMAGE).env == ["MODE", "PATH=/bin", "KEPT=1"]


@pytest.mark.parametrize(
    ("request_", "argv"),
    [
        (ContainerSpec(), ["/entry", "serve"]),
        (ContainerSpec(cmd=["other"]), ["/entry", "other"]),
        (ContainerSpec(entrypoint=["/mine"]), ["/mine"]),
        (ContainerSpec(entrypoint=["/mine", "-v"], cmd=["x"]), ["/mine", "-v", "x"]),
        (ContainerSpec(entrypoint=[""], cmd=["x"]), ["x"]),
    ],
)
def test_the_command_is_the_entrypoint_and_then_cmd_and_an_own_entrypoint_drops_the_images_cmd(request_, argv):
    path, args = command_of(merge_image(request_, IMAGE))
    assert [path, *args] == argv


@pytest.mark.parametrize(
    ("request_", "image"), [(ContainerSpec(), ContainerSpec()), (ContainerSpec(entrypoint=[""]), IMAGE)]
)
def test_without_a_command_there_is_no_container(request_, image):
    with pytest.raises(InvalidParameter, match=r"^no command specified$"):
        merge_image(request_, image)


def test_the_host_name_is_the_short_id_or_the_hosts_own_where_its_network_is_shared():
    container_id = "0123456789abcdef" * 4
    assert complete_spec(ContainerSpec(), HostConfig(), container_id).hostname == "0123456789ab"
    assert complete_spec(ContainerSpec(), HostConfig(network_mode="host"), container_id).hostname == os.uname().nodename
    assert complete_spec(ContainerSpec(hostname="mine"), HostConfig(), container_id).hostname == "mine"


def test_the_hosts_part_shows_the_defaults_that_dockerd_fills_in():
    config = DaemonConfig(default_runtime="runc", runtimes={"runc": Runtime("/usr/sbin/runc")})
    host = complete_host(HostConfig(memory=64 << 20), config)
    assert (host.network_mode, host.runtime, host.ipc_mode, host.shm_size) == ("bridge", "runc", "private", 64 << 20)
    assert host.memory_swap == 128 << 20
    assert host.restart_policy.name == "no"
    assert host.log_config.type == "local"
    assert "/proc/kcore" in host.masked_paths
    assert "/proc/sys" in host.readonly_paths
    assert complete_host(HostConfig(privileged=True), config).masked_paths is None


@pytest.mark.parametrize("rights", [{"privileged": True}, {"ipc_mode": "host"}, {"pid_mode": "host"}])
def test_a_container_with_rights_of_the_host_has_no_label_and_inspect_says_so(rights):
    host = complete_host(HostConfig(**rights, security_opt=["seccomp=unconfined"]), DaemonConfig())
    assert host.security_opt == ["seccomp=unconfined", "label=disable"]
    assert complete_host(host, DaemonConfig()).security_opt == host.security_opt
    assert complete_host(HostConfig(), DaemonConfig()).security_opt == []


def test_an_unknown_runtime_is_refused_by_name():
    with pytest.raises(InvalidParameter, match="unknown or invalid runtime name: kata"):
        complete_host(HostConfig(runtime="kata"), DaemonConfig())


@pytest.mark.parametrize(
    ("spec", "host", "words"),
    [
        (ContainerSpec(working_dir="srv"), HostConfig(), "the working directory 'srv' is invalid, it needs to be an"),
        (ContainerSpec(stop_signal="NOPE"), HostConfig(), "invalid signal: NOPE"),
        (ContainerSpec(env=["=x"]), HostConfig(), "invalid environment variable: =x"),
        (
            ContainerSpec(),
            HostConfig(auto_remove=True, restart_policy=RestartPolicy(name="always")),
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            ContainerSpec(healthcheck=HealthConfig(start_period=5)),
            HostConfig(),
            "StartPeriod in Healthcheck cannot be less than 1ms",
        ),
    ],
)
def test_what_is_wrong_with_any_image_is_refused_in_dockers_words(spec, host, words):
    with pytest.raises(InvalidParameter) as refusal:
        check_request(spec, host)
    assert str(refusal.value).startswith(words)

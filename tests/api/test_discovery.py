from pathlib import Path
from typing import Any

import pytest

from logd.api.discovery import target_groups
from logd.container import Container, Record, State
from logd.endpoint import Endpoint
from logd.errors import InvalidParameter
from logd.network.ports import Published
from logd.spec import ContainerSpec, HostConfig


def container(
    labels: dict[str, str], *, name: str = "web", network: str = "host", exposed: tuple[str, ...] = (), **state: Any
) -> Container:
    record = Record(
        id="a" * 64, name=name, created_ns=1, image_id="sha256:" + "b" * 64, image_ref="app:1", os="linux",
        path="/bin/app", args=[],
        config=ContainerSpec(labels=labels, env=["PASSWORD=secret"], exposed_ports={port: {} for port in exposed}),
        host_config=HostConfig(network_mode=network), mounts=[], run=1, restart_count=0,
        state=State(**({"running": True} | state)),
    )  # fmt: skip
    return Container(record, Path("/nowhere"), Path("/nowhere"))


def asking(**labels: str) -> dict[str, str]:
    return {"prometheus.io/scrape": "true", "prometheus.io/port": "9100"} | {
        f"prometheus.io/{name}": value for name, value in labels.items()
    }


def test_a_container_that_asks_for_it_is_a_target_with_its_name_image_and_labels():
    [group] = target_groups([container(asking(path="/stats", scheme="https") | {"com.example/team": "shop"})])
    assert group == {
        "targets": ["127.0.0.1:9100"],
        "labels": {
            "__metrics_path__": "/stats",
            "__scheme__": "https",
            "__meta_logd_container_id": "a" * 64,
            "__meta_logd_container_name": "web",
            "__meta_logd_container_image": "app:1",
            "__meta_logd_container_label_com_example_team": "shop",
            "__meta_logd_container_label_prometheus_io_path": "/stats",
            "__meta_logd_container_label_prometheus_io_port": "9100",
            "__meta_logd_container_label_prometheus_io_scheme": "https",
            "__meta_logd_container_label_prometheus_io_scrape": "true",
        },
    }


def test_path_and_scheme_have_defaults_and_a_single_exposed_tcp_port_is_the_port():
    [group] = target_groups([container({"prometheus.io/scrape": "true"}, exposed=("8080/tcp", "53/udp"))])
    assert group["targets"] == ["127.0.0.1:8080"]
    assert (group["labels"]["__scheme__"], group["labels"]["__metrics_path__"]) == ("http", "/metrics")


@pytest.mark.parametrize(
    "left_out",
    [
        container(asking(scrape="yes")),
        container({"prometheus.io/port": "9100"}),
        container(asking(), running=False),
        container(asking(), network="bridge"),
        container(asking(), network="container:other"),
        container(asking(), network="none"),
        container({"prometheus.io/scrape": "true"}),
        container({"prometheus.io/scrape": "true"}, exposed=("80/tcp", "443/tcp")),
        container(asking(port="0")),
        container(asking(port="65536")),
        container(asking(port="９100")),
        container(asking(port="9100/../x")),
        container(asking(path="metrics")),
        container(asking(path="/a\nb")),
        container(asking(path="/" + "x" * 1024)),
        container(asking(scheme="ftp")),
    ],
)
def test_what_does_not_ask_or_run_can_not_be_reached_or_has_a_bad_label_is_left_out_alone(left_out):
    groups = target_groups([left_out, container(asking(), name="good")])
    assert [one["labels"]["__meta_logd_container_name"] for one in groups] == ["good"]


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("docker-1.example.com", "docker-1.example.com:9100"),
        ("10.0.0.7", "10.0.0.7:9100"),
        ("fd00::7", "[fd00::7]:9100"),
        ("[fd00::7]", "[fd00::7]:9100"),
    ],
)
def test_the_host_is_what_prometheus_calls_it(host, target):
    assert target_groups([container(asking())], host)[0]["targets"] == [target]


@pytest.mark.parametrize("host", ["a b", "x/../y", "host:9100", "user@host", "-x", "x" * 300])
def test_a_host_that_is_neither_a_name_nor_an_address_is_refused(host):
    with pytest.raises(InvalidParameter, match="host: "):
        target_groups([], host)


def on_a_bridge(**addresses: str) -> Container:
    made = container(asking(), network="back")
    made.endpoints = [Endpoint(id="e" * 64, network_id="f" * 64, container_id=made.id, mac="", **addresses)]
    return made


def test_on_a_bridge_it_is_reached_there_by_who_is_on_this_machine():
    for address, target in (({"ipv4": "10.1.0.2/24"}, "10.1.0.2:9100"), ({"ipv6": "fd00::2/64"}, "[fd00::2]:9100")):
        [group] = target_groups([on_a_bridge(**address)])
        assert group["targets"] == [target]


@pytest.mark.parametrize(
    ("bound", "target"),
    [
        ("0.0.0.0", "10.0.0.7:32768"),
        ("::", "10.0.0.7:32768"),
        ("10.0.0.7", "10.0.0.7:32768"),
        ("127.0.0.1", ""),
        ("10.0.0.8", ""),
    ],
)
def test_from_elsewhere_it_is_reached_by_a_published_port_or_not_at_all(bound, target):
    made = on_a_bridge(ipv4="10.1.0.2/24")
    ports = [
        Published(protocol="udp", container_port=9100, host_ip="0.0.0.0", host_port=1),
        Published(protocol="tcp", container_port=80, host_ip="0.0.0.0", host_port=2),
        Published(protocol="tcp", container_port=9100, host_ip=bound, host_port=32768),
    ]
    groups = target_groups([made], "10.0.0.7", lambda _: ports)
    assert [one["targets"] for one in groups] == ([[target]] if target else [])


def test_no_environment_variable_is_told():
    assert "secret" not in str(target_groups([container(asking())]))

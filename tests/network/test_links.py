"""Bridges and interfaces, made in a namespace that stands for the host: nothing of the real one is touched."""

import subprocess
from pathlib import Path

import pytest

from logd.network import links, namespaces
from logd.network.links import Bridge, Gateway, Interface, NameTaken

BRIDGE = Bridge("logd0", "logd test n1", ("198.18.7.1/24", "fd77::1/64"), 1400)
ETH0 = Interface("eth0", "ve-000000000000", "logd0", "02:42:c6:12:07:02", "198.18.7.2/24", "fd77::2/64", 1400)
GATEWAYS = [Gateway("198.18.7.1", "eth0"), Gateway("fd77::1", "eth0")]


@pytest.fixture
def host(tmp_path):
    """Return what runs a function in a namespace of its own, and one for a container; both are gone afterwards."""
    places = tmp_path / "host", tmp_path / "container"
    for place in places:
        namespaces.make(place)
    yield Host(*places)
    for place in places:
        namespaces.remove(place)
        assert not place.exists()


class Host:
    def __init__(self, place: Path, sandbox: Path) -> None:
        self.place, self.sandbox = place, sandbox

    def do(self, work, *arguments):
        return namespaces.inside(self.place, lambda: work(*arguments))

    def ip(self, *arguments, place=None):
        command = ["nsenter", f"--net={place or self.place}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_pair_carries_packets_to_the_bridge_and_is_what_was_asked_for(host):
    host.do(links.ensure_bridge, BRIDGE)
    host.do(links.plug, host.sandbox, [ETH0], GATEWAYS)
    inside = host.ip("ip", "address", place=host.sandbox)
    for words in ("198.18.7.2/24 brd 198.18.7.255", "fd77::2/64", ETH0.mac, "mtu 1400"):
        assert words in inside
    assert "tentative" not in inside
    host.ip("busybox", "ping", "-c1", "-W2", "198.18.7.1", place=host.sandbox)
    host.ip("busybox", "ping", "-c1", "-W2", "fd77::1", place=host.sandbox)
    assert "default via 198.18.7.1" in host.ip("ip", "route", place=host.sandbox)
    assert "default via fd77::1" in host.ip("ip", "-6", "route", place=host.sandbox)


def test_whatever_is_repeated_changes_nothing(host):
    for _ in range(2):
        host.do(links.ensure_bridge, BRIDGE)
        host.do(links.plug, host.sandbox, [ETH0], GATEWAYS)
    shown = host.ip("ip", "-o", "address")
    assert shown.count("198.18.7.1/24") == shown.count("fd77::1/64") == 1
    assert len(host.ip("ip", "-o", "link").splitlines()) == 3  # with lo
    assert host.ip("ip", "route", place=host.sandbox).count("default") == 1


def test_a_default_route_goes_and_comes(host):
    host.do(links.ensure_bridge, BRIDGE)
    host.do(links.plug, host.sandbox, [ETH0], GATEWAYS)
    links.set_gateways(host.sandbox, GATEWAYS[1:])
    assert "default" not in host.ip("ip", "route", place=host.sandbox)
    assert "default" in host.ip("ip", "-6", "route", place=host.sandbox)
    links.set_gateways(host.sandbox, [Gateway("198.18.7.9", "eth0")])
    assert "default via 198.18.7.9" in host.ip("ip", "route", place=host.sandbox)
    assert "default" not in host.ip("ip", "-6", "route", place=host.sandbox)


def test_without_ipv6_an_interface_has_no_address_of_it(host):
    host.do(links.ensure_bridge, BRIDGE._replace(addresses=BRIDGE.addresses[:1]))
    host.do(links.plug, host.sandbox, [ETH0._replace(ipv6="")], GATEWAYS[:1])
    assert "inet6" not in host.ip("ip", "address", "show", "eth0", place=host.sandbox)
    assert "inet6" not in host.ip("ip", "address")


def test_a_link_of_somebody_else_is_left_alone(host):
    host.ip("ip", "link", "add", "logd0", "type", "bridge")
    before = host.ip("ip", "-d", "link")
    with pytest.raises(NameTaken, match="there is a link logd0 that is not ours"):
        host.do(links.ensure_bridge, BRIDGE)
    host.do(links.remove_bridge, BRIDGE.name, BRIDGE.alias)
    assert host.ip("ip", "-d", "link") == before


def test_a_bridge_that_was_made_and_not_yet_marked_is_known_again(host):
    host.do(links.ensure_bridge, BRIDGE)
    host.ip("ip", "link", "set", "logd0", "alias", "")
    host.do(links.ensure_bridge, BRIDGE)
    host.do(links.remove_bridge, BRIDGE.name, BRIDGE.alias)
    assert "logd0" not in host.ip("ip", "link")


def test_removing_what_is_gone_is_no_error(host):
    host.do(links.unplug, ["ve-000000000000"])
    host.do(links.remove_bridge, "logd0", BRIDGE.alias)
    host.do(links.ensure_bridge, BRIDGE)
    host.do(links.plug, host.sandbox, [ETH0], [])
    host.do(links.unplug, [ETH0.host_name, "ve-111111111111"])
    assert "eth0" not in host.ip("ip", "link", place=host.sandbox)


def test_work_in_a_namespace_raises_its_own_error(host):
    with pytest.raises(ZeroDivisionError):
        namespaces.inside(host.sandbox, lambda: 1 // 0)
    with pytest.raises(FileNotFoundError):
        namespaces.inside(host.sandbox.with_name("nothing"), lambda: None)

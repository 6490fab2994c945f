"""Subnets and addresses: never one that is taken, never one that can't be used, and every one that is free."""

from ipaddress import IPv4Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logd.config import Pool
from logd.errors import Forbidden, InvalidParameter
from logd.network.host_addresses import host_networks
from logd.network.ipam import (
    DOCKERS_POOLS,
    check_address,
    check_free,
    choose_address,
    choose_subnet,
    first_address,
    overlap,
    unique_local_pool,
)
from logd.network.requests import IPAMConfig, asked_subnets, complete_subnet, read_request

BASE = ip_network("10.213.0.0/16")
subnets = st.builds(
    lambda number, size: ip_network((int(BASE.network_address) + number * 256, size), strict=False),
    st.integers(0, 255),
    st.integers(20, 28),
)


@given(taken=st.lists(subnets, max_size=12), size=st.integers(20, 28))
def test_a_chosen_subnet_lies_in_the_pool_and_overlaps_nothing(taken, size):
    try:
        chosen = choose_subnet([Pool(BASE, size)], 4, taken)
    except InvalidParameter:
        assert all(any(overlap(one, other) for other in taken) for one in BASE.subnets(new_prefix=size))
        return
    assert chosen.prefixlen == size
    assert chosen.subnet_of(BASE)
    assert not any(overlap(chosen, one) for one in taken)


def test_pools_are_taken_in_their_order_and_an_exhausted_set_is_told():
    pools = [Pool(ip_network("10.213.0.0/24"), 25), Pool(ip_network("10.213.9.0/24"), 24)]
    taken = []
    for _ in range(3):
        taken.append(choose_subnet(pools, 4, taken))
    assert [str(one) for one in taken] == ["10.213.0.0/25", "10.213.0.128/25", "10.213.9.0/24"]
    with pytest.raises(InvalidParameter, match="all predefined address pools have been fully subnetted"):
        choose_subnet(pools, 4, taken)


def test_dockers_pools_give_way_to_the_host():
    host = [ip_network("172.17.0.0/24"), ip_network("172.18.5.0/30"), ip_network("fd00::/64")]
    assert choose_subnet(DOCKERS_POOLS, 4, host) == ip_network("172.19.0.0/16")
    with pytest.raises(InvalidParameter):
        choose_subnet(DOCKERS_POOLS, 6, host)


def test_the_ipv6_pool_of_a_daemon_is_a_unique_local_prefix_of_its_own():
    one, other = unique_local_pool(b"/var/lib/a"), unique_local_pool(b"/var/lib/b")
    assert one.base.subnet_of(ip_network("fd00::/8"))
    assert one != other
    assert choose_subnet([one], 6, [next(one.base.subnets(new_prefix=64))]).prefixlen == 64


@given(st.data())
def test_addresses_are_given_until_all_are_and_each_once(data):
    network = ip_network((int(BASE.network_address), data.draw(st.integers(26, 30))))
    gateway = first_address(network)
    taken = {gateway, *data.draw(st.lists(st.sampled_from(list(network)), max_size=8))}
    given_out = []
    while (address := choose_address(network, None, taken)) is not None:
        assert address in network.hosts()
        assert address not in taken
        taken.add(address)
        given_out.append(address)
    assert given_out == sorted(given_out)
    assert taken >= set(network.hosts())


@given(start=st.integers(0, 15))
def test_a_range_limits_what_is_given(start):
    part = list(ip_network("10.213.0.0/24").subnets(new_prefix=28))[start]
    address = choose_address(ip_network("10.213.0.0/24"), part, {ip_address("10.213.0.1")})
    assert address in part
    assert address not in {ip_address(one) for one in ("10.213.0.0", "10.213.0.1", "10.213.0.255")}


def test_in_ipv6_the_last_address_is_one_like_others():
    network = ip_network("fd77::/126")
    taken = {first_address(network)}
    assert str(choose_address(network, None, taken)) == "fd77::2"
    assert str(choose_address(network, None, {*taken, ip_address("fd77::2")})) == "fd77::3"


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("10.213.1.5", InvalidParameter, "Requested address is out of range"),
        ("10.213.0.0", InvalidParameter, "Requested address is out of range"),
        ("10.213.0.255", InvalidParameter, "Requested address is out of range"),
        ("10.213.0.1", Forbidden, "Address already in use"),
    ],
)
def test_an_address_that_is_asked_for_and_can_not_be_had_is_refused(address, error, words):
    with pytest.raises(error, match=words):
        check_address(ip_network("10.213.0.0/24"), ip_address(address), {ip_address("10.213.0.1")})


def test_a_subnet_that_is_asked_for_overlaps_no_other_network():
    check_free(ip_network("10.213.1.0/24"), [ip_network("10.213.0.0/24"), ip_network("fd00::/8")])
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        check_free(ip_network("10.213.0.128/25"), [ip_network("10.213.0.0/24")])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"subnet": "10.213.0.0"}, "invalid subnet 10.213.0.0: invalid CIDR block notation"),
        ({"subnet": "10.213.0.0/40"}, "invalid CIDR block notation"),
        ({"subnet": "10.213.0.5/24"}, "invalid subnet 10.213.0.5/24: it should be 10.213.0.0/24"),
        ({"subnet": "10.213.0.0/31"}, "too small"),
        (
            {"subnet": "10.213.0.0/24", "gateway": "10.213.1.1"},
            "parent subnet 10.213.0.0/24 doesn't contain this address",
        ),
        ({"subnet": "10.213.0.0/24", "gateway": "x"}, "invalid gateway x: invalid address"),
        ({"subnet": "10.213.0.0/24", "gateway": "10.213.0.255"}, "Requested address is out of range"),
        ({"subnet": "10.213.0.0/24", "ip_range": "10.213.0.0/16"}, "CIDR block is bigger than its parent subnet"),
        ({"subnet": "10.213.0.0/24", "ip_range": "10.213.1.0/25"}, "doesn't contain ip-range"),
        ({"subnet": "10.213.0.0/24", "auxiliary_addresses": {"a": "10.0.0.1"}}, "invalid auxiliary address 10.0.0.1"),
    ],
)
def test_a_subnet_that_can_not_be_is_refused_in_dockers_words(asked, words):
    with pytest.raises(InvalidParameter, match=words):
        complete_subnet(IPAMConfig(**asked))


def test_the_gateway_is_the_first_address_that_is_not_auxiliary():
    subnet = complete_subnet(IPAMConfig(subnet="10.213.0.0/24", auxiliary_addresses={"router": "10.213.0.1"}))
    assert subnet.gateway == "10.213.0.2"


def test_a_request_has_one_subnet_of_each_kind_and_ipv6_only_where_it_is_enabled():
    both = {"Config": [{"Subnet": "10.213.0.0/24"}, {"Subnet": "fd77::/64"}]}
    assert [*asked_subnets(read_request({"Name": "n", "IPAM": both}))] == [4]
    assert [*asked_subnets(read_request({"Name": "n", "IPAM": both, "EnableIPv6": True}))] == [4, 6]
    twice = {"Config": [{"Subnet": "10.213.0.0/24"}, {"Subnet": "10.213.1.0/24"}]}
    with pytest.raises(InvalidParameter, match="one IPv4 subnet"):
        asked_subnets(read_request({"Name": "n", "IPAM": twice}))


def test_the_hosts_routes_are_read_but_for_ours_and_the_default_one(tmp_path):
    (tmp_path / "route").write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "logd0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    zeros = "0" * 32
    (tmp_path / "ipv6_route").write_text(
        f"fd00{'0' * 28} 40 {zeros} 00 {zeros} 00000100 00000001 00000000 00000001     eth0\n"
        f"fe80{'0' * 28} 40 {zeros} 00 {zeros} 00000100 00000001 00000000 00000001     eth0\n"
        f"{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200       lo\n"
    )
    found = host_networks(["logd0"], tmp_path)
    assert found == [IPv4Network("192.0.2.0/24"), ip_network("fd00::/64")]
    assert host_networks([], tmp_path / "nothing") == []

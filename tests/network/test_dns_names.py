"""What the members of networks are called, as each container sees it."""

from pathlib import Path

import msgspec

from logd.network.dns_names import Names, names_for, zones_of
from logd.network.state import Endpoint, Member, Network, NetworkView
from logd.spec import ContainerSpec, HostConfig

FRONT = Network(id="f" * 64, name="front", driver="bridge", created_ns=0, bridge="br-front")
BACK = Network(id="b" * 64, name="Back.End", driver="bridge", created_ns=0, bridge="br-back")


def endpoint(network: Network, ipv4: str, *names: str, ipv6: str = "") -> Endpoint:
    return Endpoint(id="e" * 64, network_id=network.id, container_id="", mac="", ipv4=ipv4, ipv6=ipv6, dns_names=names)


def member(name: str, *endpoints: Endpoint) -> Member:
    return Member(
        container_id=name, name=name, sandbox=Path(name), spec=ContainerSpec(), host=HostConfig(), endpoints=endpoints
    )


VIEW = NetworkView(
    networks=(FRONT, BACK),
    members=(
        member("web1", endpoint(FRONT, "10.213.1.2/24", "web1", "web", "abc123", ipv6="fd00:213:1::2/64")),
        member(
            "web2",
            endpoint(FRONT, "10.213.1.3/24", "web2", "Web"),
            endpoint(BACK, "10.213.2.3/24", "web2"),
        ),
        member("db", endpoint(BACK, "10.213.2.4/24", "db")),
        member("nameless", endpoint(FRONT, "10.213.1.9/24")),
    ),
)


def seen_from(*networks: Network) -> Names:
    zones = zones_of(VIEW)
    return Names([zones[network.id] for network in networks], shuffle=lambda _: None)


def test_a_container_is_found_by_each_of_its_names_whatever_their_case() -> None:
    names = seen_from(FRONT)
    for name in ("web1", "abc123"):
        assert names.find(name) == (["10.213.1.2"], ["fd00:213:1::2"])
    assert names.find("unknown") is None


def test_an_alias_of_several_has_all_their_addresses_in_changing_order() -> None:
    assert seen_from(FRONT).find("web") == (["10.213.1.2", "10.213.1.3"], ["fd00:213:1::2"])
    zone = zones_of(VIEW)[FRONT.id]
    orders = {tuple((Names([zone]).find("web") or ([], []))[0]) for _ in range(100)}
    assert orders == {("10.213.1.2", "10.213.1.3"), ("10.213.1.3", "10.213.1.2")}
    assert zone.addresses["web"].ipv4 == ["10.213.1.2", "10.213.1.3"]


def test_who_is_in_another_network_only_is_not_seen() -> None:
    assert seen_from(FRONT).find("db") is None
    assert seen_from(FRONT, BACK).find("db") == (["10.213.2.4"], [])


def test_the_networks_name_behind_the_containers_means_that_network() -> None:
    both = seen_from(FRONT, BACK)
    assert both.find("web2") == (["10.213.1.3"], [])
    assert both.find("web2.back.end") == (["10.213.2.3"], [])
    assert both.find("web2.front") == (["10.213.1.3"], [])
    assert both.find("db.front") is None
    assert both.find(".front") is None


def test_an_address_leads_back_to_the_name_of_its_container() -> None:
    assert seen_from(FRONT).name_of("10.213.1.2") == "web1.front"
    assert seen_from(FRONT).name_of("fd00:213:1::2") == "web1.front"
    assert seen_from(FRONT).name_of("10.213.2.4") is None


def test_a_container_without_names_is_in_no_zone() -> None:
    assert seen_from(FRONT).name_of("10.213.1.9") is None
    assert zones_of(NetworkView(networks=(FRONT,), members=VIEW.members[3:])) == {}


def test_a_link_is_a_name_for_one_container_alone_and_comes_before_what_others_are_called() -> None:
    linking = msgspec.structs.replace(endpoint(FRONT, "10.213.1.5/24"), links=("web2:Web", "web1", "gone:abc123"))
    names = names_for([linking], zones_of(VIEW))
    assert names.find("web") == names.find("web.front") == (["10.213.1.3"], [])
    assert names.find("web1") == (["10.213.1.2"], ["fd00:213:1::2"])
    assert names.find("abc123") is None  # its alias for one that is not there hides whose name it is
    elsewhere = msgspec.structs.replace(linking, network_id=BACK.id)
    assert names_for([elsewhere], zones_of(VIEW)).find("web") == (["10.213.2.3"], [])

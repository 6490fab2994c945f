"""The rules as text: what they say for which networks, and that nft takes them."""

import subprocess

import pytest

from logd.network.dns import redirect
from logd.network.firewall import Bridge, Forward, render
from logd.network.nft import PROGRAM, find_program
from logd.network.ports import Published

WEB = Bridge(link="br-web", subnets=("10.213.1.0/24", "fd00:213:1::/64"))
BACK = Bridge(link="br-back", subnets=("10.213.2.0/24",), internal=True)


def forward(host_ip: str, host_port: int, address: str, port: int = 80, protocol: str = "tcp") -> Forward:
    published = Published(protocol=protocol, container_port=port, host_ip=host_ip, host_port=host_port)  # type: ignore[arg-type]
    return Forward(published=published, address=address)


def chain(text: str, name: str) -> list[str]:
    """Return the rules of a chain."""
    body = text.partition(f"\tchain {name} {{\n")[2].partition("\n\t}\n")[0]
    return [line.strip() for line in body.splitlines() if not line.strip().startswith("type ")]


def elements(text: str, name: str) -> list[str]:
    body = text.partition(f"\tmap {name} {{\n")[2].partition("\n\t}\n")[0]
    return [line.strip().rstrip(",") for line in body.splitlines() if " : " in line and "type" not in line]


def check(text: str) -> None:
    """Have nft read rules in a namespace of their own, and carry them out there, twice."""
    program = find_program(PROGRAM)
    assert program, "the tests need nft (make test installs it)"
    for _ in range(2):
        done = subprocess.run(
            ["unshare", "--net", program, "-f", "-"], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_nft_takes_the_whole_of_it() -> None:
    forwards = [
        forward("0.0.0.0", 8080, "10.213.1.2"),
        forward("127.0.0.1", 8081, "10.213.1.2"),
        forward("0.0.0.0", 53, "10.213.1.3", 53, "udp"),
        forward("::", 8080, "fd00:213:1::2"),
        forward("fd00::1", 8080, "fd00:213:1::2"),
    ]
    shut = Bridge(link="br-shut", subnets=("10.213.3.0/24",), icc=False, masquerade=False)
    check(render("logd", [WEB, BACK, shut], forwards))
    check(redirect(40000, 40001))


def test_without_bridges_the_table_is_removed() -> None:
    text = render("logd_1a2b3c4d", [], [])
    assert text == "table inet logd_1a2b3c4d\ndelete table inet logd_1a2b3c4d\n"
    check(text)


def test_the_table_is_replaced_as_a_whole_and_no_other_is_named() -> None:
    lines = render("logd", [WEB], []).splitlines()
    assert lines[:3] == ["table inet logd", "delete table inet logd", "table inet logd {"]
    assert sum("table" in line for line in lines) == 3
    assert "flush" not in "".join(lines)


def test_what_leaves_a_bridge_gets_the_hosts_address_unless_the_network_says_no() -> None:
    assert 'oifname != "br-web" ip saddr 10.213.1.0/24 masquerade' in chain(render("t", [WEB], []), "postrouting")
    assert 'oifname != "br-web" ip6 saddr fd00:213:1::/64 masquerade' in chain(render("t", [WEB], []), "postrouting")
    plain = Bridge(link="br-web", subnets=("10.213.1.0/24",), masquerade=False)
    assert not any("oifname !=" in rule for rule in chain(render("t", [plain, BACK], []), "postrouting"))


def test_a_bridge_takes_from_outside_only_connections_of_its_own_and_published_ports() -> None:
    rules = chain(render("t", [WEB], []), "forward")
    assert rules == [
        "ct state established,related accept",
        "ct status dnat accept",
        'iifname != "br-web" oifname "br-web" drop',
    ]


def test_an_internal_network_is_shut_before_anything_is_let_through() -> None:
    rules = chain(render("t", [WEB, BACK], []), "forward")
    assert rules[:2] == ['iifname "br-back" oifname != "br-back" drop', 'iifname != "br-back" oifname "br-back" drop']


def test_without_icc_containers_of_one_bridge_reach_each_other_by_published_ports_only() -> None:
    shut = Bridge(link="br-shut", subnets=("10.213.3.0/24",), icc=False)
    assert chain(render("t", [shut], []), "forward")[-1] == 'iifname "br-shut" oifname "br-shut" drop'


def test_published_ports_are_map_elements_by_address_and_for_all_addresses() -> None:
    forwards = [
        forward("0.0.0.0", 8080, "10.213.1.2"),
        forward("127.0.0.1", 8081, "10.213.1.2"),
        forward("::", 8080, "fd00:213:1::2"),
        forward("fd00::1", 53, "fd00:213:1::2", 53, "udp"),
    ]
    text = render("t", [WEB], forwards)
    assert elements(text, "published") == ["tcp . 8080 : 10.213.1.2 . 80"]
    assert elements(text, "published_at") == ["127.0.0.1 . tcp . 8081 : 10.213.1.2 . 80"]
    assert elements(text, "published6") == ["tcp . 8080 : fd00:213:1::2 . 80"]
    assert elements(text, "published6_at") == ["fd00::1 . udp . 53 : fd00:213:1::2 . 53"]


def test_nobody_outside_reaches_what_is_published_at_the_loopback() -> None:
    text = render("t", [WEB], [forward("127.0.0.1", 8081, "10.213.1.2")])
    assert chain(text, "prerouting")[0] == "ip daddr 127.0.0.0/8 return"
    assert chain(text, "martians") == ['iifname "br-web" ip daddr 127.0.0.0/8 drop']


def test_the_text_is_the_same_whatever_the_order_of_the_ports() -> None:
    forwards = [forward("0.0.0.0", port, "10.213.1.2") for port in (81, 82, 83)]
    assert render("t", [WEB], forwards) == render("t", [WEB], forwards[::-1])


@pytest.mark.parametrize(
    ("bridge", "one"),
    [
        (Bridge(link='x" drop', subnets=()), None),
        (Bridge(link="a-name-that-is-too-long", subnets=()), None),
        (Bridge(link="", subnets=()), None),
        (Bridge(link="br-web", subnets=("10.213.1.0/24 accept",)), None),
        (WEB, forward("0.0.0.0", 80, "10.213.1.2; drop")),
        (WEB, forward("0.0.0.0; flush ruleset", 80, "10.213.1.2")),
        (WEB, forward("::", 80, "10.213.1.2")),
    ],
)
def test_nothing_but_names_of_links_subnets_and_addresses_gets_into_a_rule(bridge: Bridge, one: Forward | None) -> None:
    with pytest.raises(ValueError, match=r"."):
        render("t", [bridge], [one] if one else [])


def test_a_table_has_a_plain_name() -> None:
    with pytest.raises(ValueError, match="no name of a table"):
        render("x; flush ruleset", [], [])

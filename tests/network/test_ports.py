"""Published ports: what may be asked for, what it becomes, and how the host's ports are held."""

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from logd.errors import InvalidParameter, Unsupported
from logd.network.claims import PortClaims, PortTaken
from logd.network.ports import Binding, Published, parse_bindings, port_list, port_map, random_range
from logd.spec import ContainerSpec, HostConfig, PortBinding

LOCAL = "127.0.0.1"


def host_with(port: str, host_port: str = "", host_ip: str = "", *, publish_all: bool = False) -> HostConfig:
    bindings = {port: [PortBinding(host_ip=host_ip, host_port=host_port)]} if port else {}
    return HostConfig(port_bindings=bindings, publish_all_ports=publish_all)


def wish(port: str, host_port: str = "", host_ip: str = "") -> Binding:
    (binding,) = parse_bindings(ContainerSpec(), host_with(port, host_port, host_ip))
    return binding


@pytest.fixture
def claims(tmp_path: Path) -> Iterator[PortClaims]:
    first = free_port()
    made = PortClaims(tmp_path, LOCAL, lambda: (first, 60999))
    yield made
    made.close()


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("80/tcp", "8080"), Binding(protocol="tcp", container_port=80, first=8080, last=8080)),
        (("80", "8080", "127.0.0.1"), Binding(protocol="tcp", container_port=80, host_ip=LOCAL, first=8080, last=8080)),
        (("53/udp", ""), Binding(protocol="udp", container_port=53)),
        (("53/udp", "0"), Binding(protocol="udp", container_port=53)),
        (("80/tcp", "8000-8005"), Binding(protocol="tcp", container_port=80, first=8000, last=8005)),
        (("80/TCP", "1", "::1"), Binding(protocol="tcp", container_port=80, host_ip="::1", first=1, last=1)),
        (("80", "1", "[fd00::1]"), Binding(protocol="tcp", container_port=80, host_ip="fd00::1", first=1, last=1)),
    ],
)
def test_a_binding_of_each_form_is_understood(asked: tuple[str, ...], expected: Binding) -> None:
    assert wish(*asked) == expected


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("http", "80"), "invalid port 'http'"),
        (("0/tcp", "80"), "invalid port '0'"),
        (("65536/tcp", ""), "invalid port '65536'"),
        (("²/tcp", ""), "invalid port '²'"),
        (("80/icmp", "80"), "invalid proto: icmp"),
        (("80/tcp", "90000"), "invalid port '90000'"),
        (("80/tcp", "8005-8000"), "invalid range: '8005-8000'"),
        (("80/tcp", "-80"), "invalid range"),
        (("80/tcp", "80-"), "invalid port ''"),
        (("80/tcp", "80", "example.org"), "invalid IP address 'example.org'"),
        (("80/tcp", "80", "fe80::1%eth0; drop"), "invalid IP address"),
        (("80/tcp", "80", "::ffff:127.0.0.1"), "invalid IP address"),
    ],
)
def test_what_is_no_port_or_address_is_refused_by_name(asked: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        wish(*asked)


def test_sctp_is_refused() -> None:
    with pytest.raises(Unsupported, match="sctp is not supported"):
        wish("80/sctp", "80")


def test_publish_all_takes_exposed_ports_that_are_not_bound_already() -> None:
    spec = ContainerSpec(exposed_ports={"80/tcp": {}, "53/udp": {}, "443": {}})
    bindings = parse_bindings(spec, host_with("80/tcp", "8080", publish_all=True))
    assert [(one.container_port, one.protocol, one.first) for one in bindings] == [
        *((80, "tcp", 8080), (53, "udp", 0), (443, "tcp", 0))
    ]
    assert parse_bindings(spec, HostConfig()) == ()


def test_inspect_and_the_list_show_published_and_merely_exposed_ports() -> None:
    spec = ContainerSpec(exposed_ports={"80/tcp": {}, "443": {}, "a-port/tcp": {}})
    published = [
        Published(protocol="tcp", container_port=80, host_ip="0.0.0.0", host_port=8080),
        Published(protocol="tcp", container_port=80, host_ip="::", host_port=8080),
    ]
    assert port_map(spec, published) == {
        "443/tcp": None,
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
    }
    assert port_list(spec, published) == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]


def test_the_range_of_random_ports_is_the_kernels_or_else_its_default(tmp_path: Path) -> None:
    file = tmp_path / "range"
    assert random_range(file) == (32768, 60999)
    file.write_text("40000\t50000\n")
    assert random_range(file) == (40000, 50000)
    file.write_text("9\n")
    assert random_range(file) == (32768, 60999)


def test_a_claimed_port_is_nobody_elses_until_it_is_released(claims: PortClaims) -> None:
    claims.claim("a", [wish("80/tcp")], ipv6=False)
    (published,) = claims.of("a")
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use") as caught:
            stranger.bind((LOCAL, published.host_port))
        assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOCAL, published.host_port), 5)
        claims.release("a")
        stranger.bind((LOCAL, published.host_port))


def test_a_port_of_another_container_is_refused_in_dockers_words(claims: PortClaims) -> None:
    claims.claim("a", [wish("80/tcp")], ipv6=False)
    port = claims.of("a")[0].host_port
    for address in (LOCAL, "0.0.0.0"):
        with pytest.raises(PortTaken) as caught:
            claims.claim("b", [wish("81/tcp", str(port), address)], ipv6=False)
        assert str(caught.value) == f"Bind for {address}:{port} failed: port is already allocated"
    claims.claim("b", [wish("81/tcp", str(port), "127.0.0.2")], ipv6=False)


def test_a_port_of_another_process_is_refused_and_nothing_of_the_claim_is_kept(claims: PortClaims) -> None:
    with socket.socket() as stranger:
        stranger.bind((LOCAL, 0))
        taken, other = stranger.getsockname()[1], free_port()
        with pytest.raises(PortTaken, match=f"failed to bind host port {LOCAL}:{taken}/tcp: address already in use"):
            claims.claim("a", [wish("80/tcp", str(other)), wish("81/tcp", str(taken))], ipv6=False)
    assert claims.of("a") == ()
    with socket.socket() as free:
        free.bind((LOCAL, other))


def test_of_a_range_the_first_free_port_is_taken(claims: PortClaims) -> None:
    with socket.socket() as stranger:
        stranger.bind((LOCAL, 0))
        first = stranger.getsockname()[1]
        claims.claim("a", [wish("80/tcp", f"{first}-{min(first + 50, 65535)}")], ipv6=False)
        assert first < claims.of("a")[0].host_port <= first + 50


def test_tcp_and_udp_have_ports_of_their_own(claims: PortClaims) -> None:
    port = str(free_port(socket.SOCK_DGRAM))
    claims.claim("a", [wish("53/udp", port), wish("53/tcp", port)], ipv6=False)
    assert {(one.protocol, str(one.host_port)) for one in claims.of("a")} == {("tcp", port), ("udp", port)}


def test_random_ports_go_round(claims: PortClaims) -> None:
    claims.claim("a", [wish("80/tcp")], ipv6=False)
    first = claims.of("a")[0].host_port
    claims.release("a")
    claims.claim("a", [wish("80/tcp")], ipv6=False)
    assert claims.of("a")[0].host_port != first


def test_with_ipv6_what_names_no_address_has_the_same_port_at_both(tmp_path: Path) -> None:
    claims = PortClaims(tmp_path)
    claims.claim("a", [wish("80/tcp"), wish("81/tcp", host_ip="127.0.0.1")], ipv6=True)
    published = claims.of("a")
    claims.close()
    assert [(one.host_ip, one.container_port) for one in published] == [("0.0.0.0", 80), ("::", 80), (LOCAL, 81)]
    assert published[0].host_port == published[1].host_port


def test_a_new_daemon_finds_the_ports_again_even_one_that_was_taken_meanwhile(
    claims: PortClaims, tmp_path: Path
) -> None:
    claims.claim("a", [wish("80/tcp"), wish("81/tcp")], ipv6=False)
    claims.claim("empty", [], ipv6=False)
    known = claims.of("a")
    claims.save()
    claims.close()
    with socket.socket() as stranger:
        stranger.bind((LOCAL, known[0].host_port))
        later = PortClaims(tmp_path)
        later.load()
        assert (later.of("a"), later.ids()) == (known, ("a",))
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((LOCAL, known[1].host_port))
        later.close()


def test_a_torn_file_of_ports_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"a": [{"proto')
    claims = PortClaims(tmp_path)
    claims.load()
    assert claims.ids() == ()

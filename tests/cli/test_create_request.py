"""What options of `logd run` mean; what they have in common with docker's is compared in test_beside_docker.py."""

from pathlib import Path

import pytest

from logd.cli.create_settings import networks
from logd.cli.mounts import binds, mounts
from logd.cli.ports import exposed_ports, port_bindings
from logd.cli.words import environment, labels
from logd.errors import InvalidParameter


@pytest.mark.parametrize(
    ("word", "bindings"),
    [
        ("80", {"80/tcp": [("", "")]}),
        ("8080:80/udp", {"80/udp": [("", "8080")]}),
        ("127.0.0.1::80", {"80/tcp": [("127.0.0.1", "")]}),
        ("[::1]:8080:80", {"80/tcp": [("::1", "8080")]}),
        ("8000-8001:80-81", {"80/tcp": [("", "8000")], "81/tcp": [("", "8001")]}),
        ("8000-8010:80", {"80/tcp": [("", "8000-8010")]}),
    ],
)
def test_a_port_is_published_as_it_is_written(word: str, bindings: dict[str, list[tuple[str, str]]]) -> None:
    found = port_bindings([word])
    assert {port: [(one["HostIp"], one["HostPort"]) for one in places] for port, places in found.items()} == bindings


@pytest.mark.parametrize("word", ["", "x", "80:", "1:2:3:4", "80/nix", "70000", "2-1", "1-2:1-3", "a:b:c", "80/"])
def test_what_is_no_port_is_refused_with_the_forms_that_are(word: str) -> None:
    with pytest.raises(InvalidParameter, match="--publish: "):
        port_bindings([word])


def test_what_is_published_is_exposed() -> None:
    assert exposed_ports(["1-2/udp"], {"80/tcp": []}) == {"1/udp": {}, "2/udp": {}, "80/tcp": {}}
    with pytest.raises(InvalidParameter, match="--expose: invalid port 'x'"):
        exposed_ports(["x"], {})


def test_a_folder_beside_us_gets_its_whole_path_and_a_path_alone_is_a_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert binds(["./conf:/etc/x:ro", "data:/d", "/cache"]) == (
        [f"{tmp_path}/conf:/etc/x:ro", "data:/d"],
        {"/cache": {}},
    )
    assert mounts(["type=bind,src=.,dst=/x"])[0]["Source"] == str(tmp_path)


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("type=bind", "target is required"),
        ("target=/x,nix=1", "unknown field 'nix'"),
        ("target=/x,readonly=perhaps", "invalid value for readonly"),
        ("target=/x,tmpfs-size=much", "tmpfs-size: invalid size"),
        ("target=/x,tmpfs-mode=9", "octal"),
        ('"target=/x', "unexpected end of data"),
    ],
)
def test_a_mount_that_is_not_understood_is_refused(word: str, problem: str) -> None:
    with pytest.raises(InvalidParameter, match=problem):
        mounts([word])


def test_networks_and_limits_that_are_not_understood_are_refused() -> None:
    nothing = dict.fromkeys(("network", "network_alias", "link", "link_local_ip"), ()) | dict.fromkeys(
        ("ip", "ip6", "mac_address")
    )
    assert networks(nothing) == {}
    assert networks(nothing | {"network": ["name=a,alias=x,ip=10.0.0.2", "b"], "network_alias": ["y"]}) == {
        "a": {"Aliases": ["x", "y"], "IPAMConfig": {"IPv4Address": "10.0.0.2"}},
        "b": {},
    }
    for word in ("alias=x", "name=a,nix=1"):
        with pytest.raises(InvalidParameter, match="--network: "):
            networks(nothing | {"network": [word]})


def test_words_without_a_key_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "h")
    assert environment(["A=1", "HERE", "NOT_HERE"]) == ["A=1", "HERE=h"]
    assert labels(["a=b=c", "bare"]) == {"a": "b=c", "bare": ""}
    for refuse in (environment, labels):
        with pytest.raises(InvalidParameter, match="write KEY=VALUE or KEY"):
            refuse(["=x"])

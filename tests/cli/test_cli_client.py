"""HTTP as the command line speaks it."""

import socket
import threading
from pathlib import Path

import pytest
from cli_peer import Peer

from logd.cli.client import Broken, ChunkDecoder, Client, Refused, Unreachable, default_host, quote, target
from logd.errors import InvalidParameter


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_chunked_body_comes_out_whole_however_it_is_cut(size: int) -> None:
    wire = b"5\r\nhello\r\nA;name=value\r\n\r\n world\r\n\r\n0\r\nTrailer: x\r\n\r\n"
    decoder = ChunkDecoder()
    body = b"".join(decoder.feed(wire[start : start + size]) for start in range(0, len(wire), size))
    assert body == b"hello\r\n world\r\n"
    assert decoder.ended


def test_a_size_that_is_no_number_is_refused() -> None:
    with pytest.raises(Broken, match="chunk size b'zz'"):
        ChunkDecoder().feed(b"zz\r\n")


def test_a_refusal_carries_the_daemons_message_and_status(peer: Peer) -> None:
    peer.routes["POST /containers/x/start"] = lambda _: (409, {"message": "it is running"})
    with pytest.raises(Refused, match=r"^it is running$") as caught:
        Client(peer.host).request("POST", "/containers/x/start")
    assert caught.value.status == 409


def test_a_daemon_without_these_paths_is_said_to_be_another(peer: Peer) -> None:
    peer.routes["GET /logd/log/du"] = lambda _: (404, {"message": "page not found"})
    with pytest.raises(Refused, match="it is not logd, or an older one"):
        Client(peer.host).json("GET", "/logd/log/du")


def test_a_body_is_sent_in_chunks_and_json_with_its_type(peer: Peer) -> None:
    peer.routes["POST /a"] = lambda _: (200, {"a": 1})
    client = Client(peer.host)
    client.request("POST", "/a", body=[b"x" * 70000, b"", b"yz"]).close()
    assert client.json("POST", "/a", json_body={"b": "ü"}) == {"a": 1}
    assert peer.requests[0].body == b"x" * 70000 + b"yz"
    assert peer.requests[1].headers["content-type"] == "application/json"
    assert peer.requests[1].body == b'{"b": "\\u00fc"}'


def test_a_body_cut_short_is_an_error_not_an_end(peer: Peer) -> None:
    def cut(request: object) -> None:
        peer.requests[-1].connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    peer.routes["GET /a"] = cut
    response = Client(peer.host).request("GET", "/a")
    with response, pytest.raises(Broken, match="in the middle of its answer"):
        response.read()


def test_a_refusal_in_the_middle_of_an_upload_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def refuse() -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b'HTTP/1.1 400 X\r\nContent-Length: 18\r\n\r\n{"message": "no."}')
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    thread = threading.Thread(target=refuse)
    thread.start()
    with pytest.raises(Refused, match=r"no\."):
        Client(f"unix://{path}").request("POST", "/x", body=(b"x" * 65536 for _ in range(100)))
    thread.join()
    listener.close()


def test_no_daemon_is_told_with_the_way_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="systemctl start logd"):
        Client(f"unix://{tmp_path}/none.sock").request("GET", "/_ping")


@pytest.mark.parametrize("host", ["/run/x.sock", "ssh://me@there", "unix://", "http://x"])
def test_an_address_of_another_kind_is_refused(host: str) -> None:
    with pytest.raises(InvalidParameter, match="write unix:///path or tcp://host:port"):
        Client(host)


def test_the_daemons_address_is_logds_then_dockers_then_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOGD_HOST", raising=False)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert default_host() == "unix:///run/logd/logd.sock"
    monkeypatch.setenv("DOCKER_HOST", "unix:///d")
    assert default_host() == "unix:///d"
    monkeypatch.setenv("LOGD_HOST", "unix:///l")
    assert default_host() == "unix:///l"


def test_text_in_a_path_or_query_can_not_become_another_path_or_query() -> None:
    assert quote("a/../b?x=1&ü") == "a%2F..%2Fb%3Fx%3D1%26%C3%BC"
    assert target("/p", {"a": True, "b": None, "c": "x y", "d": 0}) == "/p?a=1&c=x%20y&d=0"


def test_tls_without_certificates_says_which_files_are_needed_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = Client(f"tcp://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(
            Unreachable, match=f"ca.pem, cert.pem and key.pem in {tmp_path} can't be used: No such file"
        ):
            client.request("GET", "/_ping")

"""Debian's docker-registry on loopback, who gives tokens for it, and what stands between it and the daemon."""

import base64
import contextlib
import http.server
import json
import re
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

READY_S = 20.0
KEY = ("-newkey", "rsa:2048", "-nodes")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def make_certificates(folder: Path, host: str) -> None:
    """Make an authority, ca.crt, and a certificate that it has signed, server.crt and server.key."""
    request, extensions = folder / "server.csr", folder / "server.ext"
    run("openssl", "req", "-x509", *KEY, "-keyout", folder / "ca.key", "-out", folder / "ca.crt", "-subj", "/CN=ca")
    extensions.write_text(f"subjectAltName=DNS:{host}\n")
    run("openssl", "req", *KEY, "-keyout", folder / "server.key", "-out", request, "-subj", f"/CN={host}")
    signer = ("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial", "-extfile", extensions)
    run("openssl", "x509", "-req", "-in", request, *signer, "-days", 2, "-out", folder / "server.crt")


class RealRegistry:
    """docker-registry with its data and log in `folder`."""

    def __init__(self, folder: Path, *, tls: Path | None = None, auth: dict[str, Any] | None = None) -> None:
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self._log = folder / "registry.log"
        folder.mkdir(parents=True)
        http_settings: dict[str, Any] = {"addr": self.host, "relativeurls": True}
        if tls:
            http_settings["tls"] = {"certificate": str(tls / "server.crt"), "key": str(tls / "server.key")}
        settings = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": http_settings,
            **({"auth": auth} if auth else {}),
        }
        (folder / "config.yml").write_text(json.dumps(settings))
        program = shutil.which("docker-registry")
        assert program, "the tests need docker-registry (make test installs it)"
        with self._log.open("wb") as log:
            command = [program, "serve", str(folder / "config.yml")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def gets(self, digest: str) -> list[tuple[int, int]]:
        """Return the status and the bytes of each answer to a GET of a blob, from the registry's log."""
        lines = re.findall(rf'"GET \S+/blobs/{digest} HTTP/1\.1" (\d+) (\d+)', self._log.read_text())
        return [(int(status), int(size)) for status, size in lines]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def basic_of(header: str) -> tuple[str, str]:
    name, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
    return name, password


class TokenService:
    """Signs what docker-registry's `auth: token` verifies, for one user; anybody else may do nothing. With TLS."""

    USER = ("me", "secret")
    REFRESH = "a-refresh-token"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.asked: list[str] = []
        """The methods of the requests; POST is with what stands for the password."""
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                fine = basic_of(self.headers.get("Authorization", "")) == service.USER
                self._answer(query.get("scope", []), fine=fine)

            def do_POST(self) -> None:
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                fine = form["refresh_token"] == [service.REFRESH]
                self._answer(form.get("scope", [""])[0].split(), fine=fine)

            def _answer(self, scopes: list[str], *, fine: bool) -> None:
                service.asked.append(self.command)
                found = {"token": service.token(scopes), "refresh_token": service.REFRESH} if fine else {}
                data = json.dumps(found or {"details": "incorrect username or password"}).encode()
                self.send_response(200 if fine else 401)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def auth(self, realm: str) -> dict[str, Any]:
        """What docker-registry is told about it."""
        bundle = str(self._folder / "ca.crt")
        return {"token": {"realm": realm, "service": "registry", "issuer": "tests", "rootcertbundle": bundle}}

    def token(self, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": "tests", "sub": "me", "aud": "registry", "nbf": now - 60, "iat": now, "exp": now + 300}
        chain = (self._folder / "server.crt").read_text().split("-----")[2]
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(chain.split())]}
        signed = b".".join(_base64url(json.dumps(part).encode()) for part in (header, claims | {"access": access}))
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._folder / "server.key")]
        signature = subprocess.run(command, input=signed, check=True, capture_output=True).stdout
        return b".".join((signed, _base64url(signature))).decode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Relay:
    """Passes connections on to a port, as a proxy after CONNECT; `held_at` bytes of all answers together it stops."""

    def __init__(self, to: dict[str, int] | int) -> None:
        self.to = to
        self.connected: list[str] = []
        """What CONNECT asked for."""
        self.passed = 0
        self.held_at: int | None = None
        self._released = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def hold_at(self, count: int) -> None:
        """Let so many bytes through from now on, and then none until `release`."""
        self._released.clear()
        self.passed, self.held_at = 0, count

    def release(self) -> None:
        self.held_at = None
        self._released.set()

    def close(self) -> None:
        self.release()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if isinstance(self.to, int):
                port = self.to
            else:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(4096)
                asked = head.split()[1].decode()
                self.connected.append(asked)
                port = self.to[asked]
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with socket.create_connection(("127.0.0.1", port)) as server:
                self._copy(client, server)

    def _copy(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            for one in select.select([client, server], [], [])[0]:
                data = one.recv(65536)
                if not data:
                    return
                if one is server and self.held_at is not None and self.passed + len(data) > self.held_at:
                    part = data[: self.held_at - self.passed]
                    self.passed += len(part)
                    client.sendall(part)
                    data = data[len(part) :]
                    self._released.wait()
                elif one is server:
                    self.passed += len(data)
                (client if one is server else server).sendall(data)

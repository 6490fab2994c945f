"""Debian's nginx in a container, seen from the host, over IPv6, from another network and from other containers."""

import io
import json
import re
import socket
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from namespaced import HOST_ADDRESS, STRANGER_ADDRESS, Stranger, fetch, fetch_soon, stranger_in, unreachable

from logd.network import namespaces

ROOT = Path(__file__).parents[2]
UNPACKED = ROOT / ".make" / "nginx"
"""Where scripts/nginx.sh unpacks Debian's packages if the host has none: installing them would start a server."""
PAGE = "served by nginx\n"
FOLDERS = ("dev", "proc", "run", "sys", "tmp", "etc", "var/lib/nginx", "var/log/nginx", "var/www/html")
LINKS = {
    "etc/nginx/sites-enabled/default": "/etc/nginx/sites-available/default",
    "var/log/nginx/access.log": "/dev/stdout",
    "var/log/nginx/error.log": "/dev/stderr",
}
TEXTS = {
    "etc/passwd": "root:x:0:0::/:/bin/false\nwww-data:x:33:33::/var/www:/bin/false\n",
    "etc/group": "root:x:0:\nwww-data:x:33:\n",
    "var/www/html/index.html": PAGE,
}


@pytest.fixture(scope="module")
def nginx_tar() -> bytes:
    """A root of Debian's nginx, its configuration, and the libraries that it is linked with."""
    base = Path("/") if Path("/usr/sbin/nginx").exists() else UNPACKED
    program = base / "usr/sbin/nginx"
    assert program.exists(), "the tests need Debian's nginx (make test fetches it)"
    linked = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    assert "not found" not in linked, linked
    libraries = re.findall(r"(/\S+) \(0x", linked)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        for name in FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        archive.add(program, "usr/sbin/nginx")
        archive.add(base / "etc/nginx", "etc/nginx", filter=configured)
        for library in libraries:
            archive.add(library, library.lstrip("/"))
        for name, target in LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        for name, text in TEXTS.items():
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(text), 0o644
            archive.addfile(file, io.BytesIO(text.encode()))
    return buffer.getvalue()


def configured(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what this host has enabled: modules of other packages, its own sites."""
    return None if re.match(r"etc/nginx/(modules|sites|conf)[-.](enabled|d)/", entry.name) else entry


@pytest.fixture(scope="module")
def daemon(make_module_daemon: Callable[..., Any], busybox_tar: bytes, nginx_tar: bytes) -> Any:
    made = make_module_daemon().start()
    made.docker("import", "--change", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar, text=False)
    command = ["--change", 'CMD ["nginx", "-g", "daemon off;"]', "--change", "STOPSIGNAL QUIT"]
    made.docker("import", *command, "-", "nginx:latest", stdin=nginx_tar, text=False)
    return made


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    with stranger_in(tmp_path_factory.mktemp("stranger")) as made:
        yield made


@pytest.fixture
def clean(daemon: Any) -> Iterator[None]:
    """Remove the containers and networks of a test."""
    yield
    daemon.docker("rm", "-f", *daemon.docker("ps", "-aq").stdout.split())
    daemon.docker("network", "prune", "-f")


def status(address: str) -> int:
    """Return the status that an HTTP server answers with."""
    try:
        fetch(address)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    return 200


def free_port() -> int:
    with socket.socket(socket.AF_INET6) as probe:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


def test_nginx_is_served_to_the_host_over_ipv6_to_strangers_and_neighbours_and_its_log_says_to_whom(
    daemon: Any, stranger: Stranger, clean: None
) -> None:
    port = free_port()
    daemon.docker("run", "-d", "--name", "web", "-p", f"{port}:80", "-p", f"[::1]:{port}:80", "nginx")
    assert fetch_soon(f"127.0.0.1:{port}") == PAGE
    assert fetch(f"{HOST_ADDRESS}:{port}") == PAGE
    assert fetch(f"[::1]:{port}") == PAGE
    assert stranger.do(lambda: fetch(f"{HOST_ADDRESS}:{port}")) == PAGE
    ask = ["wget", "-qO-", f"{HOST_ADDRESS}:{port}"]
    assert daemon.docker("run", "--rm", "busybox", *ask).stdout == PAGE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/", timeout=20) as answer:
        assert answer.headers["Server"].startswith("nginx/")
    assert stranger.do(lambda: status(f"{HOST_ADDRESS}:{port}/none")) == 404
    assert daemon.docker("stop", "-t", "30", "web").stdout == "web\n"
    assert daemon.docker("inspect", "-f", "{{.State.ExitCode}}", "web").stdout == "0\n"
    assert unreachable(f"127.0.0.1:{port}")
    log = daemon.docker("logs", "web").stdout.splitlines()
    assert sum('"GET / HTTP/1.1" 200' in line for line in log) == 6, log
    theirs = [line for line in log if line.startswith(f"{STRANGER_ADDRESS} - - [")]
    assert [line.split('"')[2].split()[0] for line in theirs] == ["200", "404"], log


def test_containers_find_nginx_by_name_in_its_network_and_an_internal_network_publishes_nothing(
    daemon: Any, stranger: Stranger, clean: None
) -> None:
    port = free_port()
    daemon.docker("network", "create", "front")
    daemon.docker("network", "create", "--internal", "back")
    for network, name in (("front", "web"), ("back", "hidden")):
        daemon.docker("run", "-d", "--name", name, "--network", network, "--network-alias", "www", "nginx")
    daemon.docker("run", "-d", "--name", "shut", "--network", "back", "-p", f"{port}:80", "nginx")
    for network in ("front", "back"):
        daemon.docker("run", "-d", "--name", f"in-{network}", "--network", network, "busybox", "sleep", "1000")

    def ask(name: str, address: str) -> tuple[str, str]:
        done = daemon.docker("exec", name, "wget", "-qO-", address, check=False)
        return done.stdout, done.stderr.strip()

    for container, known, unknown in (("in-front", "web", "hidden"), ("in-back", "hidden", "web")):
        assert [ask(container, name) for name in (known, "www")] == [(PAGE, ""), (PAGE, "")]
        assert ask(container, unknown) == ("", f"wget: bad address '{unknown}'")
    assert ask("in-back", "shut") == (PAGE, "")
    (shown,) = json.loads(daemon.docker("inspect", "web").stdout)
    web = shown["NetworkSettings"]["Networks"]["front"]
    for address in (web["IPAddress"], web["Gateway"], HOST_ADDRESS, STRANGER_ADDRESS):
        output, problem = ask("in-back", f"{address}:{port}")
        assert (output, problem.rpartition(": ")[2]) == ("", "Network is unreachable")
    assert unreachable(f"127.0.0.1:{port}")
    assert unreachable(f"{HOST_ADDRESS}:{port}")
    assert stranger.do(lambda: unreachable(f"{HOST_ADDRESS}:{port}"))
    sandbox = Path(daemon.docker("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "in-front").stdout.strip())
    assert namespaces.inside(sandbox, lambda: unreachable(f"{HOST_ADDRESS}:{port}"))

"""Docker's client and a real registry, filled by skopeo with what umoci made: pull, run, push, login, save, load."""

import contextlib
import hashlib
import http.client
import io
import json
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from real_registry import RealRegistry, Relay, TokenService, make_certificates, run

WAIT_S = 30.0
NAME = "registry.test"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
INSECURE = ("--src-tls-verify=false", "--dest-tls-verify=false")
NOISE = hashlib.shake_256(b"noise").digest(4 << 20)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def raw(registry: RealRegistry, name: str, *options: str) -> tuple[str, dict[str, Any]]:
    """Return the digest and the content of a manifest or index, by skopeo."""
    text = run("skopeo", "inspect", "--raw", "--tls-verify=false", *options, f"docker://{registry.host}/{name}")
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}", json.loads(text)


def descriptor_of(layout: Path, tag: str) -> dict[str, Any]:
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    return next(one for one in entries if one["annotations"]["org.opencontainers.image.ref.name"] == tag)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, busybox_tar: bytes) -> Path:
    """An OCI layout that umoci made of busybox: amd64 and arm64, and `multi`, their index."""
    folder = tmp_path_factory.mktemp("umoci")
    root, layout = folder / "root", folder / "layout"
    with tarfile.open(fileobj=io.BytesIO(busybox_tar)) as archive:
        archive.extractall(root)
    (root / "noise").write_bytes(NOISE)
    run("umoci", "init", "--layout", layout)
    entries = []
    for architecture, source, target in (("amd64", root, "/"), ("arm64", root / "noise", "/noise")):
        image = f"{layout}:{architecture}"
        run("umoci", "new", "--image", image)
        run("umoci", "insert", "--image", image, source, target)
        run("umoci", "config", "--image", image, "--architecture", architecture, "--config.cmd", "sh")
        entry = {key: value for key, value in descriptor_of(layout, architecture).items() if key != "annotations"}
        entries.append(entry | {"platform": {"os": "linux", "architecture": architecture}})
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    index = json.loads((layout / "index.json").read_text())
    about = {"mediaType": INDEX_TYPE, "digest": f"sha256:{digest}", "size": len(data)}
    index["manifests"].append(about | {"annotations": {"org.opencontainers.image.ref.name": "multi"}})
    (layout / "index.json").write_text(json.dumps(index))
    return layout


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder, NAME)
    return folder


@pytest.fixture(scope="module")
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


@pytest.fixture(scope="module")
def plain(stack: contextlib.ExitStack, tmp_path_factory: pytest.TempPathFactory, layout: Path) -> RealRegistry:
    """A registry for everybody, without TLS, that has team/box:1."""
    made = stack.enter_context(contextlib.closing(RealRegistry(tmp_path_factory.mktemp("plain") / "r")))
    run("skopeo", "copy", "--all", *INSECURE, f"oci:{layout}:multi", f"docker://{made.host}/team/box:1")
    return made


@pytest.fixture(scope="module")
def tokens(stack: contextlib.ExitStack, certificates: Path) -> TokenService:
    return stack.enter_context(contextlib.closing(TokenService(certificates)))


@pytest.fixture(scope="module")
def guarded(
    stack: contextlib.ExitStack, tmp_path_factory: pytest.TempPathFactory, certificates: Path, tokens: TokenService
) -> RealRegistry:
    """A registry with TLS that wants tokens, which it sends for to the name that it is reached by."""
    folder, auth = tmp_path_factory.mktemp("guarded") / "r", tokens.auth(f"https://{NAME}:444/token")
    return stack.enter_context(contextlib.closing(RealRegistry(folder, tls=certificates, auth=auth)))


@pytest.fixture(scope="module")
def relay(stack: contextlib.ExitStack, plain: RealRegistry) -> Relay:
    """Another way to the first registry, which can be held up."""
    return stack.enter_context(contextlib.closing(Relay(plain.port)))


@pytest.fixture(scope="module")
def proxy(stack: contextlib.ExitStack) -> Relay:
    """A proxy, which only knows the names that a test tells it."""
    return stack.enter_context(contextlib.closing(Relay({})))


@pytest.fixture(scope="module")
def daemon(make_module_daemon: Callable[..., Any], proxy: Relay) -> Any:
    daemon = make_module_daemon()
    settings = json.loads(daemon.config_file.read_text())
    settings["proxies"] = {"https-proxy": f"http://127.0.0.1:{proxy.port}"}
    settings["logd"]["registry"] = {"certificates": [str(daemon.folder / "certs.d")], "timeout": 20}
    daemon.config_file.write_text(json.dumps(settings))
    return daemon.start()


@pytest.fixture(autouse=True)
def no_images(daemon: Any) -> Iterator[None]:
    """Remove images and containers after each test."""
    yield
    if containers := [one["Id"] for one in daemon.get("/v1.47/containers/json?all=1")]:
        daemon.docker("rm", "-f", *containers)
    if images := [one["Id"] for one in daemon.get("/v1.47/images/json?all=1")]:
        daemon.docker("rmi", "--force", *images)


def digests_of(daemon: Any, name: str) -> list[str]:
    found: list[str] = json.loads(daemon.docker("image", "inspect", name).stdout)[0]["RepoDigests"]
    return found


def test_an_image_comes_runs_and_goes_back_digest_for_digest(daemon: Any, plain: RealRegistry) -> None:
    name = f"{plain.host}/team/box"
    index, document = raw(plain, "team/box:1")
    manifests = {one["platform"]["architecture"]: one["digest"] for one in document["manifests"]}
    said = daemon.docker("pull", f"{name}:1").stdout
    assert f"Digest: {index}\nStatus: Downloaded newer image for {name}:1" in said
    assert digests_of(daemon, f"{name}:1") == [f"{name}@{index}"]
    assert daemon.docker("run", "--rm", f"{name}:1", "echo", "it runs").stdout == "it runs\n"
    assert f"Image is up to date for {name}:1" in daemon.docker("pull", f"{name}:1").stdout
    daemon.docker("pull", f"{name}@{manifests['amd64']}")
    assert f"{name}@{manifests['amd64']}" in digests_of(daemon, f"{name}:1")

    for tag in ("1", "2"):
        daemon.docker("tag", f"{name}:1", f"{plain.host}/mine:{tag}")
    said = daemon.docker("push", "-a", f"{plain.host}/mine").stdout
    assert "Mounted from team/box" in said or "Layer already exists" in said
    assert f"2: digest: {manifests['amd64']} size: " in said
    assert raw(plain, "mine:1")[0] == raw(plain, "mine:2")[0] == manifests["amd64"]
    daemon.docker("rmi", "--force", daemon.docker("images", "-q", "--no-trunc").stdout.split()[0])

    said = daemon.docker("pull", "-a", f"{plain.host}/mine").stdout
    assert f"Downloaded newer image for {plain.host}/mine" in said
    listed = daemon.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert sorted(listed) == [f"{plain.host}/mine:1", f"{plain.host}/mine:2"]
    daemon.docker("pull", "--platform", "linux/arm64", f"{name}:1")
    assert daemon.docker("image", "inspect", "-f", "{{.Architecture}}", f"{name}:1").stdout == "arm64\n"
    failed = daemon.docker("pull", "--platform", "linux/s390x", f"{name}:1", check=False)
    assert "no matching manifest for linux/s390x in the manifest list entries" in failed.stderr
    looked = json.loads(daemon.docker("manifest", "inspect", "--insecure", f"{name}:1").stdout)
    assert looked == document


def test_name_and_password_open_a_registry_and_nothing_else_does(
    daemon: Any, busybox_tar: bytes, stack: contextlib.ExitStack, tmp_path: Path
) -> None:
    run("htpasswd", "-Bbc", tmp_path / "users", "me", "sec:ret")
    auth = {"htpasswd": {"realm": "here", "path": str(tmp_path / "users")}}
    private = stack.enter_context(contextlib.closing(RealRegistry(tmp_path / "r", auth=auth)))
    name = f"{private.host}/box:1"
    daemon.docker("import", "-", name, stdin=busybox_tar, text=False)
    assert "no basic auth credentials" in daemon.docker("push", name, check=False).stderr
    failed = daemon.docker("login", "-u", "me", "--password-stdin", private.host, stdin="wrong", check=False)
    assert "unauthorized: authentication required" in failed.stderr
    assert (
        "Login Succeeded"
        in daemon.docker("login", "-u", "me", "--password-stdin", private.host, stdin="sec:ret").stdout
    )
    daemon.docker("push", name)
    daemon.docker("rmi", name)
    daemon.docker("pull", name)
    daemon.docker("logout", private.host)
    assert "no basic auth credentials" in daemon.docker("pull", name, check=False).stderr


def test_a_registry_with_tls_and_tokens_is_reached_through_a_proxy(
    daemon: Any,
    busybox_tar: bytes,
    guarded: RealRegistry,
    tokens: TokenService,
    proxy: Relay,
    certificates: Path,
) -> None:
    proxy.to |= {f"{NAME}:443": guarded.port, f"{NAME}:444": tokens.port}

    def login(password: str) -> Any:
        return daemon.docker("login", "-u", "me", "--password-stdin", NAME, stdin=password, check=False)

    assert "certificate verify failed" in login("secret").stderr
    folder = daemon.folder / "certs.d" / NAME
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_bytes((certificates / "ca.crt").read_bytes())
    assert "incorrect username or password" in login("wrong").stderr
    daemon.docker("import", "-", f"{NAME}/team/box:1", stdin=busybox_tar, text=False)
    failed = daemon.docker("push", f"{NAME}/team/box:1", check=False)
    assert "incorrect username or password" in failed.stderr
    assert "Login Succeeded" in login("secret").stdout
    tokens.asked.clear()
    daemon.docker("push", f"{NAME}/team/box:1")
    daemon.docker("rmi", f"{NAME}/team/box:1")
    daemon.docker("pull", f"{NAME}/team/box:1")
    assert set(tokens.asked) == {"POST"}, "what stands for the password is sent in its place"
    assert daemon.docker("run", "--rm", f"{NAME}/team/box:1", "echo", "it runs").stdout == "it runs\n"
    assert set(proxy.connected) == {f"{NAME}:443", f"{NAME}:444"}
    daemon.docker("logout", NAME)
    assert daemon.docker("pull", f"{NAME}/team/box:1", check=False).returncode != 0


# transfers that are held up


def only_layer(registry: RealRegistry, daemon: Any) -> dict[str, Any]:
    """Return the descriptor of the layer of team/box:1 for this machine."""
    _, index = raw(registry, "team/box:1")
    digest = next(one["digest"] for one in index["manifests"] if one["platform"]["architecture"] == "amd64")
    layer: dict[str, Any] = raw(registry, f"team/box@{digest}")[1]["layers"][0]
    return layer


def has_come(daemon: Any, layer: dict[str, Any]) -> int:
    """Return the bytes of the layer that the daemon has."""
    path = daemon.data_root / "images/downloads" / layer["digest"].removeprefix("sha256:")
    return path.stat().st_size if path.exists() else 0


def speaking(daemon: Any) -> list[str]:
    """Return the processes of the daemon that speak with registries."""
    found = run("ps", "--ppid", daemon.process.pid, "-o", "args=").splitlines()
    return [line for line in found if "logd.registry.process" in line]


def test_a_killed_daemon_s_next_pull_asks_for_the_missing_bytes_only(
    daemon: Any, plain: RealRegistry, relay: Relay
) -> None:
    layer, name = only_layer(plain, daemon), f"127.0.0.1:{relay.port}/team/box:1"
    relay.hold_at(2 << 20)
    pulling = daemon.docker_popen("pull", name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_for(lambda: has_come(daemon, layer) > 1 << 20, "the layer comes")
    daemon.kill()
    pulling.communicate()
    come = has_come(daemon, layer)
    relay.release()
    daemon.start()
    wait_for(lambda: len(plain.gets(layer["digest"])) > 0, "the registry notes that the first GET was given up")
    before = len(plain.gets(layer["digest"]))
    daemon.docker("pull", name)
    status, size = plain.gets(layer["digest"])[before]
    assert status == 206
    assert layer["size"] - come - (1 << 20) < size <= layer["size"] - come
    assert daemon.docker("run", "--rm", name, "echo", "it runs").stdout == "it runs\n"
    assert has_come(daemon, layer) == 0


def test_a_pull_whose_client_goes_away_stops_and_one_beside_it_goes_on(
    daemon: Any, plain: RealRegistry, relay: Relay
) -> None:
    layer, name = only_layer(plain, daemon), f"127.0.0.1:{relay.port}/team/box:1"
    before = len(plain.gets(layer["digest"]))
    relay.hold_at(2 << 20)
    one, two = (
        daemon.docker_popen("pull", name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in "12"
    )
    wait_for(lambda: has_come(daemon, layer) > 1 << 20 and len(speaking(daemon)) == 2, "both pulls are under way")
    relay.release()
    for pull in (one, two):
        assert f"for {name}" in pull.communicate(timeout=WAIT_S)[0]
    assert [status for status, _ in plain.gets(layer["digest"])[before:]] == [200], "the layer came once"

    daemon.docker("rmi", name)
    relay.hold_at(2 << 20)
    one = daemon.docker_popen("pull", name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: has_come(daemon, layer) > 1 << 20, "the layer comes")
    one.kill()
    one.communicate()
    wait_for(lambda: not speaking(daemon), "nobody speaks with the registry any more")
    assert not list((daemon.data_root / "images/ingest").iterdir())
    relay.release()


def test_what_a_pull_is_about_to_use_is_not_removed_meanwhile(
    daemon: Any, plain: RealRegistry, relay: Relay, layout: Path
) -> None:
    layer, name = only_layer(plain, daemon), f"127.0.0.1:{relay.port}/small:1"
    daemon.docker("pull", f"{plain.host}/team/box:1")
    daemon.docker("run", "--name", "more", f"{plain.host}/team/box:1", "dd", "if=/noise", "of=/more", "skip=1")
    daemon.docker("commit", "more", f"{plain.host}/small:1")
    daemon.docker("push", f"{plain.host}/small:1")
    top = raw(plain, "small:1")[1]["layers"][1]
    daemon.docker("rm", "more")
    daemon.docker("rmi", f"{plain.host}/small:1")
    assert layer["digest"] == raw(plain, "small:1")[1]["layers"][0]["digest"]

    relay.hold_at(2 << 20)
    pulling = daemon.docker_popen("pull", name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: has_come(daemon, top) > 1 << 20, "the upper layer comes")
    daemon.docker("rmi", f"{plain.host}/team/box:1")
    daemon.docker("image", "prune", "-af")
    assert daemon.docker("images", "-aq").stdout == ""
    relay.release()
    said = pulling.communicate(timeout=WAIT_S)[0]
    assert f"{layer['digest'].removeprefix('sha256:')[:12]}: Already exists" in said
    daemon.docker("create", "--name", "user", name, "ls", "/more")
    assert "Image is up to date" in daemon.docker("pull", name).stdout
    assert daemon.docker("start", "-a", "user").stdout == "/more\n"


# files


def kept_digest(archive: Path, kind: str, which: str = "") -> tuple[str, str]:
    """Return the digests of config and manifest that skopeo finds in an archive."""
    text = run("skopeo", "inspect", "--raw", f"{kind}:{archive}{which}")
    return json.loads(text)["config"]["digest"], f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def test_saved_images_are_read_by_skopeo_and_come_back_as_they_were(
    daemon: Any, plain: RealRegistry, layout: Path, busybox_tar: bytes, tmp_path: Path
) -> None:
    run(
        "skopeo",
        "copy",
        *INSECURE,
        "--dest-compress-format",
        "zstd",
        f"oci:{layout}:amd64",
        f"docker://{plain.host}/z:1",
    )
    daemon.docker("pull", f"{plain.host}/z:1")
    daemon.docker("import", "-", "mine:imported", stdin=busybox_tar, text=False)
    daemon.docker("run", "--name", "some", "mine:imported", "touch", "/new")
    daemon.docker("commit", "some", "mine:committed")
    daemon.docker("rm", "some")
    names = [f"{plain.host}/z:1", "mine:imported", "mine:committed"]
    ids = {name: daemon.docker("image", "inspect", "-f", "{{.Id}}", name).stdout.strip() for name in names}
    archive = tmp_path / "all.tar"
    daemon.docker("save", "-o", str(archive), f"{plain.host}/z:1", "mine")
    for name, image_id in ids.items():
        assert kept_digest(archive, "docker-archive", f":{name}")[0] == image_id
    for name in (names[0], ids["mine:committed"]):
        single = tmp_path / "one.tar"
        daemon.docker("save", "-o", str(single), name)
        config, manifest = kept_digest(single, "oci-archive")
        assert config == ids.get(name, name)
        if name == names[0]:
            assert manifest == raw(plain, "z:1")[0]
        run("skopeo", "copy", f"oci-archive:{single}", f"oci:{tmp_path / 'copy'}:x")
        single.unlink()
    daemon.docker("rmi", *names)
    assert daemon.docker("images", "-aq").stdout == ""
    said = daemon.docker("load", "-i", str(archive)).stdout
    assert sorted(said.split("\n")) == ["", *sorted(f"Loaded image: {name}" for name in names)]
    for name, image_id in ids.items():
        assert daemon.docker("image", "inspect", "-f", "{{.Id}}", name).stdout.strip() == image_id
    daemon.docker("push", f"{plain.host}/z:1")


def test_images_of_skopeo_umoci_and_buildah_load(daemon: Any, layout: Path, tmp_path: Path) -> None:
    config = json.loads((layout / "blobs/sha256" / descriptor_of(layout, "amd64")["digest"][7:]).read_text())["config"]
    run("skopeo", "copy", f"oci:{layout}:amd64", f"docker-archive:{tmp_path / 'docker.tar'}:made:1")
    run("skopeo", "copy", f"oci:{layout}:amd64", f"oci-archive:{tmp_path / 'oci.tar'}:made:2")
    run("tar", "-C", layout, "-cf", tmp_path / "umoci.tar", ".")
    for name, words in (("docker.tar", "Loaded image: made:1"), ("oci.tar", "Loaded image: made:2")):
        assert words in daemon.docker("load", "-i", str(tmp_path / name)).stdout
    assert daemon.docker("images", "-q", "--no-trunc", "made").stdout.split() == [config["digest"]] * 2
    assert daemon.docker("run", "--rm", "made:2", "echo", "it runs").stdout == "it runs\n"
    assert "Loaded image" in daemon.docker("load", "-i", str(tmp_path / "umoci.tar")).stdout

    (tmp_path / "file").write_text("of buildah")
    buildah = ["buildah", "--root", tmp_path / "b", "--runroot", tmp_path / "br", "--storage-driver", "vfs"]
    container = run(*buildah, "from", "scratch").strip()
    run(*buildah, "copy", container, tmp_path / "file", "/file")
    run(*buildah, "commit", container, f"docker-archive:{tmp_path / 'buildah.tar'}:made:3")
    daemon.docker("load", "-i", str(tmp_path / "buildah.tar"))
    daemon.docker("create", "--name", "built", "made:3", "x")
    assert b"of buildah" in daemon.docker("cp", "built:/file", "-", text=False).stdout


# what is told


def test_a_push_of_nothing_is_told_as_by_docker(daemon: Any, busybox_tar: bytes) -> None:
    def said(name: str) -> str:
        return str(daemon.docker("push", name, check=False).stderr)

    assert "An image does not exist locally with the tag: nosuch" in said("nosuch")
    daemon.docker("import", "-", "127.0.0.1:1/box:1", stdin=busybox_tar, text=False)
    assert "tag does not exist: 127.0.0.1:1/box:2" in said("127.0.0.1:1/box:2")
    assert 'Get "http://127.0.0.1:1/v2/": connection refused' in said("127.0.0.1:1/box:1")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "words"),
    [
        (
            "POST",
            "/images/create?fromImage={host}/nosuch&tag=1",
            {},
            404,
            "manifest for {host}/nosuch:1 not found: manifest",
        ),
        ("POST", "/images/create?fromImage={host}/nosuch", {}, 404, "repository {host}/nosuch not found: name unknown"),
        ("POST", "/images/create?fromImage=UPPER&tag=1", {}, 400, "invalid reference format"),
        ("POST", "/images/create?fromImage=one&tag=a%20b", {}, 400, "invalid tag format"),
        ("POST", "/images/create?fromImage=one&tag=1", {"X-Registry-Auth": "***"}, 400, "X-Registry-Auth"),
        ("POST", "/images/create?fromImage=one&tag=1", {"X-Registry-Auth": "e30K8J8"}, 400, "invalid registry cred"),
        ("POST", "/images/one/push?tag=1", {"X-Registry-Auth": "WzFd"}, 400, "invalid registry credentials"),
        ("GET", "/distribution/{host}/nosuch:1/json", {}, 404, "manifest unknown"),
        ("GET", "/distribution/UPPER/json", {}, 400, "invalid reference format"),
        ("GET", "/images/search?term=x", {}, 501, "can't be searched"),
        ("POST", "/images/create?fromImage=127.0.0.1:1/x&tag=1", {}, 500, "connection refused"),
    ],
)
def test_a_request_that_fails_has_docker_s_status(
    daemon: Any, plain: RealRegistry, method: str, path: str, headers: dict[str, str], status: int, words: str
) -> None:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(connection):
        connection.sock.connect(str(daemon.socket))
        connection.request(method, "/v1.47" + path.format(host=plain.host), headers=headers)
        answer = connection.getresponse()
        message = json.loads(answer.read())["message"]
    assert answer.status == status
    assert words.format(host=plain.host) in message


def test_the_sdk_for_python_pulls_pushes_and_looks(daemon: Any, plain: RealRegistry) -> None:
    with contextlib.closing(docker.DockerClient(base_url=daemon.host, version="auto")) as client:
        index, _ = raw(plain, "team/box:1")
        image = client.images.pull(f"{plain.host}/team/box", tag="1")
        assert image.attrs["RepoDigests"] == [f"{plain.host}/team/box@{index}"]
        assert client.images.pull(f"{plain.host}/team/box", all_tags=True) == [image]
        image.tag(f"{plain.host}/sdk", tag="1")
        lines = list(client.images.push(f"{plain.host}/sdk", tag="1", stream=True, decode=True))
        digest = next(line["aux"]["Digest"] for line in lines if "aux" in line)
        assert digest == raw(plain, "sdk:1")[0]
        data = client.images.get_registry_data(f"{plain.host}/team/box:1")
        assert data.id == index
        assert data.has_platform("linux/arm64")
        assert not data.has_platform("linux/s390x")
        with pytest.raises(docker.errors.NotFound):
            client.images.pull(f"{plain.host}/team/box", tag="nosuch")

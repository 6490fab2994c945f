"""What a registry sends that is wrong, cut off, late or meant for others: refused with its reason, nothing kept."""

import asyncio
import contextlib
import gzip
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hostile_registry import (
    INDEX,
    LAYER,
    MANIFEST,
    Registry,
    answers,
    breaks_off,
    digest_of,
    hang,
    problem,
    redirect,
)
from image_archives import Picture, file, hardlink, tar

from logd import references
from logd.errors import Forbidden, InvalidParameter, LogdError, NotFound, Unauthorized, Unavailable, Unsupported
from logd.images import pull as pulling
from logd.images.downloads import Downloads
from logd.images.image import Image
from logd.images.limits import Limits
from logd.images.pull import Pulls
from logd.images.report import Report
from logd.images.store import ImageStore
from logd.registry import download as downloading
from logd.registry import repository as repositories
from logd.registry.remote import Remote, connected
from logd.registry.repository import Repository
from logd.registry.settings import NOBODY, Credentials, Settings
from logd.registry.upload import upload

SETTINGS = Settings(attempts=2, timeout=2)
BLOB = bytes(range(256)) * 20_000
NAME = digest_of(BLOB)
SOMEBODY = Credentials(username="me", password="secret")
GOOD = Picture([tar(file("a", b"1"))])


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry() as made:
        yield made


@pytest.fixture
async def other() -> AsyncIterator[Registry]:
    async with Registry() as made:
        yield made


@pytest.fixture
def small_store(tmp_path: Path) -> ImageStore:
    """A store that takes few bytes, so that a bomb need not be big."""
    return ImageStore(tmp_path / "images", Limits(ratio_from=1 << 20, max_ratio=100))


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "PAUSES_S", (0,))


class Puller:
    """Pulls into a store as the daemon does."""

    def __init__(self, store: ImageStore, root: Path, settings: Settings = SETTINGS) -> None:
        self.store = store
        self.root = root
        self._pulls = Pulls(store, Downloads(root / "downloads", lambda: 3), lambda: settings)

    async def pull(self, name: str, platform: str = "") -> Image:
        return await self._pulls.pull(references.parse(name), NOBODY, platform, Report())

    async def pull_all(self, name: str) -> list[Image]:
        return await self._pulls.pull_all(references.parse(name), NOBODY, "", Report())

    def left(self) -> list[Path]:
        """Return what there is of images, of layers and of things under way."""
        folders = ("blobs/sha256", "l", "ingest", "downloads")
        return [path for name in folders for path in (self.root / name).iterdir()]


@pytest.fixture
def puller(small_store: ImageStore, tmp_path: Path) -> Puller:
    return Puller(small_store, tmp_path / "images")


@contextlib.asynccontextmanager
async def repository(
    registry: Registry, credentials: Credentials = NOBODY, settings: Settings = SETTINGS
) -> AsyncIterator[Repository]:
    async with Repository(registry.host, "app", settings, credentials, "pull") as made:
        await made.open()
        yield made


async def fetch(
    registry: Registry, path: Path, size: int = len(BLOB), attempts: int = 3, pauses: list[int] | None = None
) -> None:
    async with repository(registry) as made:
        waits = pauses.append if pauses is not None else lambda _: None
        await downloading.download(made, NAME, size, path, attempts=attempts, tell=lambda _: None, waits=waits)


# one blob


async def test_a_blob_that_breaks_off_goes_on_where_it_did(registry: Registry, tmp_path: Path, no_pauses: None) -> None:
    registry.put_blob(BLOB)
    registry.spoilers["/blobs/"] = breaks_off(BLOB, 1_000_000, times=2)
    with contextlib.suppress(Unavailable):  # the second break comes before any byte further
        await fetch(registry, tmp_path / "blob", attempts=2)
    await fetch(registry, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB
    asked = [one.headers.get("Range", "") for one in registry.requests("/blobs/")]
    assert asked[0] == ""
    assert asked[-1].startswith("bytes=")
    assert int(asked[-1][6:-1]) > 0


@pytest.mark.parametrize("status", [200, 416])
async def test_a_registry_without_ranges_gives_the_blob_from_its_beginning(
    registry: Registry, tmp_path: Path, no_pauses: None, status: int
) -> None:
    registry.put_blob(BLOB)
    registry.ranges = False
    (tmp_path / "blob").write_bytes(BLOB[:5000])
    if status == 416:
        registry.spoilers["/blobs/"] = answers(lambda: problem(416, "RANGE_INVALID"), times=1)
    await fetch(registry, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (BLOB[:-1] + b"x", "verification failed for digest .*: it has sha256:"),
        (BLOB[:-1], f"the registry has {len(BLOB) - 1} bytes of it, and {len(BLOB)} were announced"),
        (BLOB + b"x", f"the registry has {len(BLOB) + 1} bytes of it, and {len(BLOB)} were announced"),
    ],
    ids=["wrong", "short", "long"],
)
async def test_a_blob_that_is_not_what_was_announced_is_refused_and_removed(
    registry: Registry, tmp_path: Path, sent: bytes, reason: str
) -> None:
    registry.blobs[NAME] = sent
    with pytest.raises(InvalidParameter, match=reason):
        await fetch(registry, tmp_path / "blob")
    assert not (tmp_path / "blob").exists()


async def test_a_blob_without_an_announced_length_is_cut_off_where_it_is_too_long(
    registry: Registry, tmp_path: Path
) -> None:
    async def endless(request: Any) -> Any:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(BLOB)
        return response

    registry.spoilers["/blobs/"] = endless
    with pytest.raises(InvalidParameter, match=f"it is longer than {len(BLOB)} bytes"):
        await fetch(registry, tmp_path / "blob")
    assert not (tmp_path / "blob").exists()


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_registry_is_left_alone_for_as_long_as_it_asks(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    registry.put_blob(BLOB)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(downloading, "PAUSES_S", (1,))
    monkeypatch.setattr(downloading.asyncio, "sleep", sleep)
    registry.spoilers["/blobs/"] = answers(lambda: problem(status, "TOOMANYREQUESTS", Retry_After="7"))
    pauses: list[int] = []
    with pytest.raises(Unavailable, match="toomanyrequests"):
        await fetch(registry, tmp_path / "blob", attempts=2, pauses=pauses)
    assert pauses == slept == [7]


async def test_a_registry_that_hangs_is_given_up(registry: Registry, tmp_path: Path, no_pauses: None) -> None:
    hasty = Settings(timeout=1)

    async def stops(request: Any) -> Any:
        response = web.StreamResponse(headers={"Content-Length": str(len(BLOB))})
        await response.prepare(request)
        await response.write(BLOB[:1000])
        await asyncio.Event().wait()

    async def hangs_in_a_blob() -> None:
        registry.spoilers["/blobs/"] = stops
        async with repository(registry, settings=hasty) as made:
            with pytest.raises(Unavailable, match="does not answer"):
                await downloading.download(
                    *(made, NAME, len(BLOB), tmp_path / "blob"), attempts=1, tell=lambda _: None, waits=lambda _: None
                )
        assert (tmp_path / "blob").read_bytes() == BLOB[:1000]

    async def hangs_at_once() -> None:
        async with Registry() as silent:
            silent.spoilers["/v2/"] = hang
            with pytest.raises(LogdError, match=r'Get "http://127.0.0.1:.*/v2/": the registry does not answer'):
                async with repository(silent, settings=hasty):
                    pass

    await asyncio.gather(hangs_in_a_blob(), hangs_at_once())


async def test_a_beginning_that_is_wrong_costs_one_more_transfer(registry: Registry, tmp_path: Path) -> None:
    registry.put_blob(BLOB)
    (tmp_path / "blob").write_bytes(b"wrong")
    await fetch(registry, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert [one.headers.get("Range") for one in registry.requests("/blobs/")] == ["bytes=5-", None]


async def test_a_blob_that_the_disk_does_not_take_leaves_it_its_room(registry: Registry, tmp_path: Path) -> None:
    registry.put_blob(BLOB)
    (tmp_path / "small").mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path / "small"))
    await asyncio.to_thread(subprocess.run, mount, check=True)
    try:
        with pytest.raises(LogdError, match="no space left on device"):
            await fetch(registry, tmp_path / "small/blob")
        assert not (tmp_path / "small/blob").exists()
    finally:
        await asyncio.to_thread(subprocess.run, ("umount", str(tmp_path / "small")), check=True)


# a blob that is sent


async def send(registry: Registry, path: Path, credentials: Credentials = NOBODY, timeout: int = 2) -> dict[str, Any]:
    settings = Settings(timeout=timeout)
    async with Repository(registry.host, "app", settings, credentials, "pull,push") as made:
        await made.open(mirrors=False)
        return await upload(made, NAME, len(BLOB), path, "", 1, lambda _: None)


async def test_a_registry_that_takes_nothing_any_more_is_given_up(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blob").write_bytes(BLOB)

    async def takes_little(request: web.Request) -> Any:
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/v2/app/blobs/uploads/x"})
        await request.content.read(1000)
        return await hang(request)

    monkeypatch.setattr(repositories, "COMMIT_PATIENCE", 1)
    registry.spoilers["/uploads/"] = takes_little
    with pytest.raises(Unavailable, match="does not answer"):
        await send(registry, tmp_path / "blob", timeout=1)


async def test_a_blob_may_be_sent_elsewhere_but_nothing_that_shows_who_sends_it(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(BLOB)
    taken: list[bytes] = []

    async def takes(request: web.Request) -> web.Response:
        if request.method == "POST" and "Authorization" not in request.headers:
            return problem(401, "UNAUTHORIZED", WWW_Authenticate="Basic")
        if request.method == "PATCH":
            taken.append(await request.read())
        headers = {"Location": f"http://{other.host}/uploads/there?state=1"}
        return web.Response(status=201 if request.method == "PUT" else 202, headers=headers)

    registry.spoilers["/uploads/"] = other.spoilers["/uploads/"] = takes
    assert await send(registry, tmp_path / "blob", SOMEBODY) == {"uploaded": True}
    assert taken == [BLOB]
    assert [one.method for one in other.seen] == ["PATCH", "PUT"]
    assert other.seen[-1].query == {"state": "1", "digest": NAME}
    assert all("Authorization" not in one.headers for one in other.seen)
    registry.spoilers["/uploads/"] = answers(lambda: web.Response(status=202, headers={"Location": "file:///x"}))
    with pytest.raises(LogdError, match="which is no address of a registry"):
        await send(registry, tmp_path / "blob")


async def test_the_process_that_waits_for_a_registry_ends_with_who_asked(registry: Registry) -> None:
    reached = asyncio.Event()

    async def hangs(request: web.Request) -> None:
        reached.set()
        await hang(request)

    registry.spoilers["/v2/"] = hangs
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "logd.registry.process"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    opening = {"domain": registry.host, "path": "app", "actions": "pull", "settings": {"timeout": 600}}
    process.stdin.write(json.dumps(opening | {"credentials": {}}).encode() + b"\n")
    await asyncio.wait_for(reached.wait(), 30)
    process.stdin.close()
    assert await asyncio.wait_for(process.communicate(), 30) == (b"", None)
    assert process.returncode == 0


# where it sends to


async def test_what_shows_who_asks_does_not_go_to_another_host(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    async def basic(request: Any) -> Any:
        if "Authorization" not in request.headers:
            return problem(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="here"')
        return None

    registry.spoilers["/v2/"] = basic
    registry.spoilers["/blobs/"] = answers(lambda: redirect(f"http://{other.host}/elsewhere"))
    found = f'Bearer realm="http://{other.host}/token"'
    other.spoilers["/elsewhere"] = answers(lambda: problem(401, "UNAUTHORIZED", WWW_Authenticate=found))
    async with repository(registry, SOMEBODY) as made:
        await made.check()
        with pytest.raises(Unauthorized):
            await made.has_blob(NAME)
    assert [one.path for one in other.seen] == ["/elsewhere"]
    assert "Authorization" not in other.seen[0].headers
    assert "Authorization" in registry.seen[-1].headers


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("/v2/app/blobs/x", "redirects more than 5 times"),
        ("file:///etc/passwd", "'file:///etc/passwd', which is no address"),
        ("http://me:pw@127.0.0.1/", "which is no address of a registry"),
        ("http://[", "which is no address of a registry"),
    ],
)
async def test_a_redirect_that_leads_nowhere_is_refused(registry: Registry, where: str, reason: str) -> None:
    registry.spoilers["/blobs/"] = answers(lambda: redirect(where))
    async with repository(registry) as made:
        with pytest.raises(LogdError, match=reason):
            await made.has_blob(NAME)


@pytest.mark.parametrize(
    ("realm", "answer", "reason"),
    [
        ("http://me:pw@{host}/token", {"token": "x"}, "which is no address of a registry"),
        ("gopher://{host}/token", {"token": "x"}, "which is no address of a registry"),
        ("http://{host}/token", {}, "gave no token"),
        ("http://{host}/token", {"token": "x\r\nHost: y"}, "gave a token that can't be sent"),
        ("http://{host}/moved", {"token": "x"}, "302 Found|307 Temporary Redirect"),
    ],
)
async def test_a_token_service_that_is_none_is_refused(
    registry: Registry, other: Registry, realm: str, answer: dict[str, str], reason: str
) -> None:
    text = f'Bearer realm="{realm.format(host=other.host)}",service="it"'
    registry.spoilers["/manifests/"] = answers(lambda: problem(401, "UNAUTHORIZED", WWW_Authenticate=text))
    other.spoilers["/token"] = answers(lambda: web.json_response(answer))
    other.spoilers["/moved"] = answers(lambda: redirect(f"http://{registry.host}/token"))
    async with repository(registry, Credentials(identitytoken="secret")) as made:
        with pytest.raises(LogdError, match=reason):
            await made.manifest("latest")
    assert not registry.requests("/token")


async def test_what_a_token_does_not_allow_is_denied(registry: Registry, other: Registry) -> None:
    text = f'Bearer realm="http://{other.host}/token",service="it",error="insufficient_scope"'
    registry.spoilers["/manifests/"] = answers(lambda: problem(401, "UNAUTHORIZED", WWW_Authenticate=text))
    other.spoilers["/token"] = answers(lambda: web.json_response({"token": "abc"}))
    async with repository(registry) as made:
        with pytest.raises(Forbidden, match="denied: requested access to the resource is denied"):
            await made.manifest("latest")
    assert registry.requests("/manifests/")[1].headers["Authorization"] == "Bearer abc"


async def test_words_of_a_registry_can_do_nothing_to_a_terminal(registry: Registry) -> None:
    registry.spoilers["/manifests/"] = answers(lambda: problem(403, "DENIED\x1b]0;x\x07", "\x1b[2J\r\nno" + "." * 5000))
    async with repository(registry) as made:
        with pytest.raises(Forbidden) as raised:
            await made.manifest("latest")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 1100


# tags


async def test_tags_come_page_by_page_and_no_page_twice(registry: Registry) -> None:
    pages = {"": (["a", "b"], "b"), "b": (["c"], "c"), "c": ([], "c")}

    async def page(request: Any) -> Any:
        tags, last = pages[request.query.get("last", "")]
        link = f'</v2/app/tags/list?n=1000&last={last}>; rel="next"'
        return web.json_response({"name": "app", "tags": tags}, headers={"Link": link})

    registry.spoilers["/tags/"] = page
    async with repository(registry) as made:
        assert await made.tags() == ["a", "b", "c"]
        registry.spoilers["/tags/"] = answers(lambda: web.json_response({"tags": ["../x"]}))
        with pytest.raises(InvalidParameter, match=r"a tag that can't be one: '../x'"):
            await made.tags()


async def test_an_image_of_each_tag_is_pulled(registry: Registry, puller: Puller) -> None:
    registry.put("one", GOOD)
    registry.put("two", Picture([tar(file("a", b"1")), tar(file("b", b"2"))]))
    images = await puller.pull_all(f"{registry.host}/app")
    assert sorted(name.tag for image in images for name in image.names if name.tag) == ["one", "two"]


# images

SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
HELM = "application/vnd.cncf.helm.config.v1+json"


def layer_of(data: bytes) -> Callable[[Registry], None]:
    return lambda registry: (registry.put("it", Picture([data])), None)[1]


def changed(change: Callable[[dict[str, Any], Registry], object]) -> Callable[[Registry], None]:
    """Serve a good image whose manifest is changed."""

    def prepare(registry: Registry) -> None:
        manifest = registry.manifest_of(GOOD)
        change(manifest, registry)
        registry.put_manifest("it", manifest)

    return prepare


def index_of(change: Callable[[dict[str, Any], Registry], object]) -> Callable[[Registry], None]:
    """Serve a good image by an index whose entry is changed."""

    def prepare(registry: Registry) -> None:
        one = registry.put("good", GOOD) | {"platform": {"os": "linux", "architecture": "amd64"}}
        change(one, registry)
        registry.put_manifest("it", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [one]}, INDEX)

    return prepare


def replace_manifest(one: dict[str, Any], registry: Registry) -> None:
    registry.manifests[one["digest"]] = (b"{}", MANIFEST)


def index_in_index(one: dict[str, Any], registry: Registry) -> None:
    for _ in range(3):
        one |= registry.put_manifest("x", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [dict(one)]}, INDEX)


def set_layer(**fields: Any) -> Callable[[Registry], None]:
    return changed(lambda manifest, _: manifest["layers"][0].update(fields))


def set_config(data: bytes) -> Callable[[Registry], None]:
    return changed(lambda manifest, registry: manifest["config"].update(registry.put_blob(data)))


def many_layers(manifest: dict[str, Any], registry: Registry) -> None:
    document = json.loads(GOOD.config)
    document["rootfs"]["diff_ids"] *= 10_000
    manifest["layers"] *= 10_000
    manifest["config"] |= registry.put_blob(json.dumps(document).encode())


def foreign(manifest: dict[str, Any], registry: Registry) -> None:
    layer = manifest["layers"][0]
    del registry.blobs[layer["digest"]]
    layer |= {"urls": [f"http://{registry.host}/secret"], "mediaType": f"{LAYER}.foreign"}


CASES: dict[str, tuple[Callable[[Registry], object], str]] = {
    "wrong digest": (index_of(replace_manifest), "manifest verification failed for digest sha256:.*: it has sha256:"),
    "wrong size": (index_of(lambda one, _: one.update(size=7)), "it has [0-9]+ bytes, and 7 were announced"),
    "no digest": (index_of(lambda one, _: one.update(digest="../../x")), "digest '../../x' is not supported"),
    "deep index": (index_of(index_in_index), "is an index of indexes of indexes"),
    "foreign platform": (
        index_of(lambda one, _: one.update(platform={"os": "plan9\x1b[2J", "architecture": "mips"})),
        "no matching manifest for linux/amd64 in the manifest list entries: .*it has: plan9 \\[2J/mips",
    ),
    "schema 1": (
        lambda registry: registry.put_manifest("it", {"schemaVersion": 1, "fsLayers": []}, SCHEMA_1),
        "schema 1 support has been removed",
    ),
    "schema 1, unsaid": (
        lambda registry: registry.put_manifest("it", {"schemaVersion": 1, "fsLayers": []}, "application/json"),
        "schema 1 support has been removed",
    ),
    "chart": (
        changed(lambda one, _: one["config"].update(mediaType=HELM)),
        "is no image: unsupported media type .*helm",
    ),
    "no manifest": (lambda registry: registry.put_manifest("it", b"\xff\xfe", MANIFEST), "is not JSON"),
    "long manifest": (lambda registry: registry.put_manifest("it", b" " * (5 << 20)), "longer than 4194304 bytes"),
    "web page": (lambda registry: registry.put_manifest("it", b"<p>", "text/html"), "'text/html', which is no image"),
    "config": (set_config(b"<html>"), "invalid image config"),
    "big config": (changed(lambda one, _: one["config"].update(size=1 << 40)), "is longer than"),
    "layers": (changed(lambda one, _: one["layers"].append(one["layers"][0])), "length mismatch: expected 2, got 1"),
    "10,000 layers": (changed(many_layers), "max depth exceeded: the image has 10000 layers"),
    "10,000 layers, 1 told": (
        changed(lambda one, _: one.update(layers=one["layers"] * 10_000)),
        "expected 10000, got 1",
    ),
    "foreign layer": (changed(foreign), "blob unknown"),
    "layer's digest": (set_layer(digest="sha256:\x1b[2J"), "is not supported"),
    "negative": (set_layer(size=-1), "has a size of -1 bytes"),
    "short": (set_layer(size=3), "bytes of it, and 3 were announced"),
    "bomb": (layer_of(tar(file("zeros", bytes(8 << 20)))), "the archive is refused: .*times"),
    "climbs": (layer_of(tar(file("../../etc/passwd", b"x"))), "has '..' in it"),
    "whiteout": (layer_of(tar(file(".wh...", b""))), "the archive is refused"),
    "hard link": (layer_of(tar(hardlink("x", "../../../etc/passwd"))), "the archive is refused"),
    "not a tar": (
        changed(lambda one, registry: one["layers"][0].update(registry.put_blob(gzip.compress(b"x" * 2000)))),
        "the archive is refused",
    ),
    "other layer": (
        changed(lambda one, registry: one["layers"][0].update(registry.put_blob(gzip.compress(tar(file("b")))))),
        "invalid diffID for layer",
    ),
}


async def test_an_image_that_is_none_is_refused_with_its_reason_and_nothing_of_it_is_kept(
    puller: Puller, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(registry.host, "app", SETTINGS, NOBODY) as remote:

        @contextlib.asynccontextmanager
        async def shared(*_: object) -> AsyncIterator[Remote]:  # a process for each case would take half a minute
            yield remote

        monkeypatch.setattr(pulling, "connected", shared)
        for name, (prepare, reason) in CASES.items():
            prepare(registry)
            with pytest.raises((InvalidParameter, NotFound, Unsupported), match=reason) as raised:
                await puller.pull(f"{registry.host}/app:it")
            assert str(raised.value).isprintable(), name
    assert not registry.requests("/secret")
    assert puller.store.list() == []
    assert puller.left() == []

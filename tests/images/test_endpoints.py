"""Which hosts are asked for an image, in which order, with what; and how much at once."""

import asyncio
import fcntl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hostile_registry import Registry, answers, digest_of, problem
from image_archives import Picture, file, tar
from yarl import URL

from logd import references
from logd.errors import LogdError
from logd.images.downloads import Downloads
from logd.images.image import Image
from logd.images.pull import Pulls
from logd.images.report import Report
from logd.images.store import ImageStore
from logd.registry.download import download
from logd.registry.endpoint import endpoints, proxy_of
from logd.registry.repository import Repository
from logd.registry.settings import NOBODY, Credentials, Settings

APP = Picture([tar(file(name, name.encode())) for name in ("a", "b", "c", "d")])
DEAD = "http://127.0.0.1:1"
"""Nobody listens there; as a proxy it keeps every request on this host."""


@pytest.fixture
async def registries() -> AsyncIterator[list[Registry]]:
    async with Registry() as one, Registry() as two:
        yield [one, two]


async def pull(store: ImageStore, root: Path, name: str, settings: Settings, slots: int = 3) -> Image:
    pulls = Pulls(store, Downloads(root / "downloads", lambda: slots), lambda: settings)
    somebody = Credentials(username="me", password="secret")
    return await pulls.pull(references.parse(name), somebody, "", Report())


def mirrored(*mirrors: str) -> Settings:
    return Settings(registry_mirrors=mirrors, https_proxy=DEAD, attempts=1, timeout=5)


async def test_mirrors_are_asked_in_their_order_and_the_next_has_what_one_lacks(
    store: ImageStore, tmp_path: Path, registries: list[Registry]
) -> None:
    lacking, whole = registries
    for registry in registries:
        registry.put("latest", APP)
    lost = [digest for digest in lacking.blobs if digest != digest_of(APP.config)][:2]
    for digest in lost:
        del lacking.blobs[digest]
    lacking.spoilers["/v2/"] = answers(lambda: problem(401, "UNAUTHORIZED", WWW_Authenticate="Basic"), times=1)
    settings = mirrored(DEAD, f"http://{lacking.host}", f"http://{whole.host}")
    image = await pull(store, tmp_path / "images", "app", settings)
    assert [name.familiar for name in image.names if name.tag] == ["app:latest"]
    assert {one.path.rpartition("/")[2] for one in whole.requests("/blobs/")} == set(lost)
    assert lacking.requests("/v2/library/app/manifests/latest")
    assert not whole.requests("/manifests/")
    assert all("Authorization" not in one.headers for one in lacking.seen + whole.seen)


async def test_the_registry_itself_is_asked_where_no_mirror_has_an_image(
    store: ImageStore, tmp_path: Path, registries: list[Registry]
) -> None:
    with pytest.raises(LogdError, match=r'Get "https://registry-1.docker.io/v2/": connection refused'):
        await pull(store, tmp_path / "images", "app", mirrored(f"http://{registries[0].host}"))
    assert registries[0].requests("/manifests/latest")


async def test_other_names_than_docker_hub_s_have_no_mirrors(
    store: ImageStore, tmp_path: Path, registries: list[Registry]
) -> None:
    mirror, own = registries
    own.put("latest", APP)
    await pull(store, tmp_path / "images", f"{own.host}/app", mirrored(f"http://{mirror.host}"))
    assert not mirror.seen


async def test_not_more_layers_come_at_once_than_is_set(
    store: ImageStore, tmp_path: Path, registries: list[Registry]
) -> None:
    registry = registries[0]
    registry.put("latest", APP)
    running, most, both = 0, 0, asyncio.Event()

    async def count(request: web.Request) -> None:
        nonlocal running, most
        if request.path.endswith(digest_of(APP.config)):
            return
        running += 1
        most = max(most, running)
        if running == 2:
            both.set()
        await asyncio.wait_for(both.wait(), 20)
        running -= 1

    registry.spoilers["/blobs/"] = count
    await pull(store, tmp_path / "images", f"{registry.host}/app", Settings(), slots=2)
    assert most == 2


async def test_a_layer_that_several_pulls_want_comes_once(
    store: ImageStore, tmp_path: Path, registries: list[Registry]
) -> None:
    registry = registries[0]
    twice = Picture([APP.layers[0], APP.layers[1], APP.layers[0]])
    registry.put("one", APP)
    registry.put("two", twice)
    pulls = Pulls(store, Downloads(tmp_path / "images/downloads", lambda: 3), Settings)
    names = [f"{registry.host}/app:{tag}" for tag in ("one", "two", "one")]
    images = await asyncio.gather(*(pulls.pull(references.parse(name), NOBODY, "", Report()) for name in names))
    assert [image.id for image in images] == [APP.id, twice.id, APP.id]
    asked = [one.path.rpartition("/")[2] for one in registry.requests("/blobs/")]
    for layer in registry.manifest_of(APP)["layers"]:
        assert asked.count(layer["digest"]) == 1
    assert not list((tmp_path / "images/downloads").iterdir())


async def test_two_processes_never_write_one_blob(registries: list[Registry], tmp_path: Path) -> None:
    registry, path, data = registries[0], tmp_path / "blob", b"x" * 1000
    registry.put_blob(data)
    async with Repository(registry.host, "app", Settings(), NOBODY, "pull") as made:
        await made.open()
        with path.open("wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            waiting = asyncio.create_task(
                download(made, digest_of(data), 1000, path, attempts=1, tell=lambda _: None, waits=lambda _: None)
            )
            done, _ = await asyncio.wait([waiting], timeout=0.1)
            assert not done
            assert not registry.requests("/blobs/")
            path.unlink()  # as who finds that the bytes are wrong does
        await waiting
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("domain", "settings", "expected"),
    [
        ("127.0.0.1:5000", {}, ["https://127.0.0.1:5000 any", "http://127.0.0.1:5000 any"]),
        ("192.0.2.1", {}, ["https://192.0.2.1 good"]),
        ("192.0.2.1", {"insecure_registries": ("192.0.2.0/24",)}, ["https://192.0.2.1 any", "http://192.0.2.1 any"]),
        ("192.0.2.1:1", {"insecure_registries": ("192.0.2.1",)}, ["https://192.0.2.1:1 good"]),
        ("[::1]:5000", {}, ["https://[::1]:5000 any", "http://[::1]:5000 any"]),
        (
            "docker.io",
            {"registry_mirrors": ("https://192.0.2.1/hub",), "insecure_registries": ("docker.io",)},
            ["https://192.0.2.1/hub good", "https://registry-1.docker.io good"],
        ),
    ],
)
async def test_a_registry_is_reached_by_https_unless_it_is_listed(
    domain: str, settings: dict[str, Any], expected: list[str]
) -> None:
    found = await endpoints(domain, Settings(**settings), mirrors=True)
    assert [f"{one.url.human_repr().rstrip('/')} {'good' if one.verified else 'any'}" for one in found] == expected


def test_proxies_are_chosen_by_scheme_and_left_out_for_this_host() -> None:
    settings = Settings(http_proxy="http://p:1", https_proxy="http://p:2", no_proxy="example.com,.example.net")
    found = {
        text: proxy_of(URL(text), settings)
        for text in ("http://a.b", "https://a.b", "https://example.com", "https://x.example.net", "https://127.0.0.1:5")
    }
    assert list(found.values()) == ["http://p:1", "http://p:2", None, None, None]

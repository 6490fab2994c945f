"""Load and import, through the real unpacking process, and what the store then says and keeps."""

import asyncio
import json
import lzma
import os
import select
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from image_archives import (
    COMPRESS,
    Messages,
    Picture,
    docker_save_new,
    docker_save_old,
    file,
    folder,
    layout_members,
    pack,
    sha256,
    stream,
    symlink,
    tar,
)

from logd.errors import InvalidParameter, LogdError, NotFound
from logd.images.image import config_for_run
from logd.images.limits import Limits
from logd.images.store import ImageStore

BASE = tar(folder("bin"), file("bin/sh", b"#!shell", mode=0o755), file("etc/passwd", b"root"))
APP = tar(file("app", b"application"), file("etc/.wh.passwd"))
RUN = {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"who": "me"}, "User": None, "StopSignal": "SIGINT"}


def picture(**changes: Any) -> Picture:
    return Picture(**{"layers": [BASE, APP], "run": RUN, "tags": ["team/app:1"]} | changes)


async def load(store: ImageStore, data: bytes) -> str:
    messages = Messages()
    await store.load(stream(data), messages)
    return messages.text


ARCHIVES: dict[str, Callable[[Picture], bytes]] = {
    "docker before 25": docker_save_old,
    "docker before 25, gzip layers": lambda one: docker_save_old(one, squeeze="gzip"),
    "docker 25": docker_save_new,
    "oci": lambda one: pack(layout_members(one)),
    "oci, gzip layers": lambda one: pack(layout_members(one, squeeze="gzip")),
    "oci, zstd layers": lambda one: pack(layout_members(one, squeeze="zstd")),
}


@pytest.mark.parametrize("squeeze", COMPRESS)
@pytest.mark.parametrize("kind", ARCHIVES)
async def test_an_archive_of_any_kind_is_loaded(kind: str, squeeze: str, store: ImageStore) -> None:
    one = picture()
    assert await load(store, COMPRESS[squeeze](ARCHIVES[kind](one))) == "Loaded image: team/app:1\n"
    image = store.resolve("team/app:1")
    assert image.id == one.id
    top, bottom = store.layers(image)
    assert (top / "app").read_bytes() == b"application"
    assert (bottom / "bin/sh").read_bytes() == b"#!shell"
    assert stat.S_ISCHR((top / "etc/passwd").stat().st_mode)


async def test_an_image_without_a_name_is_told_by_its_id(store: ImageStore) -> None:
    one = picture(tags=[])
    assert await load(store, docker_save_old(one)) == f"Loaded image ID: {one.id}\n"
    assert store.resolve(one.id).tags == []


async def test_a_name_moves_to_the_image_that_was_loaded_last(store: ImageStore) -> None:
    old, new = picture(), picture(created="2025-01-01T00:00:00Z")
    await load(store, docker_save_old(old))
    said = await load(store, docker_save_old(new))
    assert said == (
        f"The image team/app:1 already exists, renaming the old one with ID {old.id} to empty string\n"
        "Loaded image: team/app:1\n"
    )
    assert store.resolve("team/app:1").id == new.id
    assert store.resolve(old.id).tags == []


async def test_the_progress_of_layers_is_told_unless_quiet(store: ImageStore) -> None:
    messages = Messages()
    one = picture()
    await store.load(stream(docker_save_old(one)), messages, quiet=False)
    layers = [message for message in messages if message.get("status") == "Loading layer"]
    sizes = {message["id"]: message["progressDetail"] for message in layers}
    assert sizes == {
        diff_id[7:19]: {"current": len(data), "total": len(data)}
        for diff_id, data in zip(one.diff_ids, one.layers, strict=True)
    }


async def test_layers_are_unpacked_once_and_shared_by_their_chain(store: ImageStore, tmp_path: Path) -> None:
    first, second, third = (
        picture(tags=["a"]),
        picture(layers=[BASE], tags=["b"]),
        picture(layers=[APP, BASE], tags=["c"]),
    )
    first.tags, second.tags, third.tags = ["a:1"], ["b:1"], ["c:1"]
    await load(store, docker_save_old(first, second, third))
    images = [store.resolve(name) for name in ("a:1", "b:1", "c:1")]
    assert store.layers(images[0])[-1] == store.layers(images[1])[0]
    assert len(list((tmp_path / "images/l").iterdir())) == 4  # BASE, BASE+APP, APP, APP+BASE
    assert all(len(path.name) == 13 for path in store.layers(images[0]))


async def test_concurrent_loads_of_one_image_unpack_it_once(store: ImageStore, tmp_path: Path) -> None:
    data = docker_save_old(picture())
    said = await asyncio.gather(*(load(store, data) for _ in range(4)))
    assert set(said) == {"Loaded image: team/app:1\n"}
    assert len(list((tmp_path / "images/l").iterdir())) == 2
    assert list((tmp_path / "images/ingest").iterdir()) == []


async def test_the_store_is_the_same_after_a_restart(store: ImageStore, tmp_path: Path) -> None:
    await load(store, docker_save_new(picture()))
    before = store.inspect("team/app:1")
    assert ImageStore(tmp_path / "images").inspect("team/app:1") == before


async def test_what_a_crash_left_is_removed_at_the_next_start(store: ImageStore, tmp_path: Path) -> None:
    await load(store, docker_save_new(picture()))
    root = tmp_path / "images"
    for part in ("ingest/abc/def", "trash/xyz/a", "l/aaaaaaaaaaaaa/b"):
        (root / part).mkdir(parents=True)
    (root / "blobs/sha256" / ("0" * 64)).write_bytes(b"?")
    (root / ".index.json.1234").write_bytes(b"half")
    ImageStore(root)
    assert len(list((root / "l").iterdir())) == 2
    assert len(list((root / "blobs/sha256").iterdir())) == 3  # the config and two tars
    assert sorted(path.name for path in root.iterdir()) == ["blobs", "index.json", "ingest", "l", "trash"]
    assert list((root / "ingest").iterdir()) + list((root / "trash").iterdir()) == []


async def test_an_index_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    (root / "index.json").write_text('{"version": 2}')
    with pytest.raises(LogdError, match="version 2"):
        ImageStore(root)
    assert (root / "index.json").read_text() == '{"version": 2}'


async def test_a_damaged_config_is_noticed(store: ImageStore, tmp_path: Path) -> None:
    one = picture()
    await load(store, docker_save_new(one))
    blob = tmp_path / "images/blobs/sha256" / one.id[7:]
    blob.write_bytes(blob.read_bytes().replace(b"me", b"ME"))
    with pytest.raises(LogdError, match="damaged"):
        ImageStore(tmp_path / "images").resolve(one.id)


def wrong_layer() -> bytes:
    return docker_save_old(picture()).replace(b"application", b"hijacktion!")


def wrong_config() -> bytes:
    return docker_save_old(picture()).replace(b'"PATH=/bin"', b'"PATH=/BIN"')


def wrong_blob() -> bytes:
    return pack(layout_members(picture())).replace(b"application", b"hijacktion!")


def with_manifest(change: Callable[[dict[str, Any]], None]) -> bytes:
    """An OCI layout whose only manifest was altered, with the right digests."""
    files = layout_members(picture())
    index = json.loads(files["index.json"])
    old = f"blobs/sha256/{index['manifests'][0]['digest'][7:]}"
    manifest = json.loads(files.pop(old))
    change(manifest)
    data = json.dumps(manifest).encode()
    files[f"blobs/sha256/{sha256(data)}"] = data
    index["manifests"][0] |= {"digest": f"sha256:{sha256(data)}", "size": len(data)}
    return pack(files | {"index.json": json.dumps(index).encode()})


def with_index(**change: Any) -> bytes:
    files = layout_members(picture())
    return pack(files | {"index.json": json.dumps(json.loads(files["index.json"]) | change).encode()})


def docker_manifest(**change: Any) -> bytes:
    one = picture()
    name = f"{one.id[7:]}.json"
    item = {"Config": name, "RepoTags": ["a:1"], "Layers": ["0.tar", "1.tar"]} | change
    manifest = file("manifest.json", json.dumps([item]).encode())
    return tar(file(name, one.config), file("0.tar", BASE), file("1.tar", APP), manifest)


NO_DIGEST = {"rootfs": {"type": "layers", "diff_ids": ["sha256:../.."] * 2}}
BAD = {
    "layer's content": (wrong_layer(), "invalid diffID for layer"),
    "config's digest": (wrong_config(), "is damaged: its digest is"),
    "blob's digest": (wrong_blob(), "is damaged: its digest is"),
    "no manifest": (tar(file("x")), "neither of `docker save` nor an OCI image layout"),
    "before 1.10": (tar(file("repositories", b"{}")), "Docker before 1.10"),
    "name with dots": (tar(file("../manifest.json", b"[]")), "has '..' in it"),
    "absolute name": (tar(file("/manifest.json", b"[]")), "is an absolute name"),
    "link outside": (tar(symlink("manifest.json", "../../etc/passwd")), "leads outside"),
    "absolute link": (tar(symlink("manifest.json", "/etc/passwd")), "leads outside"),
    "link to itself": (tar(symlink("manifest.json", "manifest.json")), "is a link to a link"),
    "too many files": (tar(*(folder(str(n)) for n in range(10_001))), "more than 10000 entries"),
    "manifest no JSON": (tar(file("manifest.json", b"nope")), "invalid manifest.json"),
    "config elsewhere": (docker_manifest(Config="/etc/passwd"), "has no file '/etc/passwd'"),
    "layer elsewhere": (docker_manifest(Layers=["../../0.tar", "1.tar"]), "has no file '../../0.tar'"),
    "layer missing": (docker_manifest(Layers=["0.tar"]), "layers length mismatch: expected 1, got 2"),
    "layers swapped": (docker_manifest(Layers=["1.tar", "0.tar"]), "invalid diffID"),
    "name without tag": (docker_manifest(RepoTags=["a"]), 'invalid tag "a"'),
    "bad name": (docker_manifest(RepoTags=["A:1"]), "must be lowercase"),
    "type of a field": (docker_manifest(Layers="0.tar"), "invalid manifest.json"),
    "other system": (docker_save_old(picture(extra={"os": "windows"})), "cannot load windows image on linux"),
    "126 layers": (docker_save_old(picture(layers=[BASE] * 126)), "max depth exceeded"),
    "bad diff id": (docker_save_old(picture(extra=NO_DIGEST)), "diff id"),
    "history too long": (docker_save_old(picture(history=[{}] * 3)), "too many non-empty layers"),
    "Env of another type": (docker_save_old(picture(run={"Env": "PATH=/"})), "Env"),
    "schema 1": (with_index(schemaVersion=1), "schemaVersion 1"),
    "index that is a manifest": (with_index(layers=[]), "which is of another kind"),
    "manifest that is an index": (with_manifest(lambda m: m.update(manifests=[])), "which is of another kind"),
    "manifest of another type": (with_manifest(lambda m: m.update(mediaType="x/y")), "it says that it is 'x/y'"),
    "size of a blob": (with_manifest(lambda m: m["layers"][0].update(size=5)), "its descriptor says 5"),
    "digest that climbs": (with_manifest(lambda m: m["config"].update(digest="sha256:../../x")), "is not supported"),
    "digest of another kind": (with_manifest(lambda m: m["config"].update(digest="md5:0")), "is not supported"),
    "blob that is not there": (with_manifest(lambda m: m["config"].update(digest="sha256:" + "0" * 64)), "has no file"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_archive_is_refused_whole(name: str, store: ImageStore, tmp_path: Path) -> None:
    data, message = BAD[name]
    with pytest.raises(InvalidParameter) as caught:
        await load(store, data)
    assert message in str(caught.value)
    assert store.list() == []
    folders = [list((tmp_path / "images" / part).iterdir()) for part in ("l", "ingest", "blobs/sha256")]
    assert folders == [[], [], []]


async def test_one_bad_image_keeps_the_good_one_of_its_archive_out(store: ImageStore) -> None:
    good, bad = picture(layers=[BASE], tags=["good:1"]), picture(tags=["bad:1"])
    with pytest.raises(InvalidParameter):
        await load(store, docker_save_old(good, bad).replace(b"application", b"hijacktion!"))
    assert store.list() == []


async def test_an_index_gives_the_image_for_this_host(store: ImageStore) -> None:
    mine, other = picture(layers=[BASE]), picture(layers=[APP])
    files = layout_members(mine, other)
    descriptors = json.loads(files["index.json"])["manifests"]
    for descriptor in descriptors:
        del descriptor["annotations"]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    descriptors[0]["platform"] = {"os": "linux", "architecture": machine}
    descriptors[1]["platform"] = {"os": "linux", "architecture": "s390x"}
    attestation = descriptors[1] | {"platform": {"os": "unknown", "architecture": "unknown"}}
    nested = json.dumps({"schemaVersion": 2, "manifests": [*descriptors[::-1], attestation]}).encode()
    files[f"blobs/sha256/{sha256(nested)}"] = nested
    top = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": f"sha256:{sha256(nested)}",
        "size": len(nested),
        "annotations": {"io.containerd.image.name": "docker.io/team/multi:2"},
    }
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()
    assert await load(store, pack(files)) == "Loaded image: team/multi:2\n"
    image = store.resolve("team/multi:2")
    assert image.id == mine.id
    assert image.digests == [f"team/multi@{descriptors[0]['digest']}"]
    assert store.resolve(f"team/multi@{descriptors[0]['digest']}").id == mine.id


async def test_a_word_as_the_name_in_a_layout_is_only_a_tag(store: ImageStore) -> None:
    files = layout_members(picture(tags=[]))
    index = json.loads(files["index.json"])
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    assert "Loaded image ID" in await load(store, pack(files | {"index.json": json.dumps(index).encode()}))


async def test_import_makes_an_image_of_one_layer(store: ImageStore) -> None:
    changes = ['CMD ["sh"]', "ENV A=1", "LABEL x=y"]
    options = {"message": "from the host", "platform": "linux/arm64/v8"}
    image = await store.import_(stream(COMPRESS["zstd"](BASE)), repository="busybox", changes=changes, **options)
    assert (image.tags, image.config["architecture"]) == (["busybox:latest"], "arm64")
    assert image.runtime_config == {"Cmd": ["sh"], "Env": ["A=1"], "Labels": {"x": "y"}}
    assert image.id == f"sha256:{sha256(image.raw)}"
    assert image.document.diff_ids == [f"sha256:{sha256(BASE)}"]
    history = store.history("busybox")
    assert [(item["Id"], item["Comment"], item["Tags"]) for item in history] == [
        (image.id, "from the host", ["busybox:latest"])
    ]
    assert history[0]["Size"] == image.size == len(b"#!shell") + len(b"root")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repository": "A"}, "must be lowercase"),
        ({"repository": "a@sha256:" + "0" * 64}, "cannot import digest reference"),
        ({"changes": ["RUN x"]}, "RUN is not a valid change command"),
        ({"platform": "windows/amd64"}, 'operating system is not supported: "windows"'),
    ],
)
async def test_an_import_is_checked_before_its_archive_is_read(
    store: ImageStore, options: dict[str, Any], message: str
) -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the archive was read")
        yield b""

    with pytest.raises(InvalidParameter, match=message):
        await store.import_(unread(), **options)


async def test_a_client_that_goes_away_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield BASE[:1024]
        raise ConnectionResetError("the client went away")

    for call in (store.import_(broken()), store.load(broken(), Messages())):
        with pytest.raises(ConnectionResetError, match="the client went away"):
            await call
    assert list((tmp_path / "images/ingest").iterdir()) == []


async def test_a_cancelled_load_ends_its_process_and_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield BASE[:1024]
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.load(stalled(), Messages()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((tmp_path / "images/ingest").iterdir()) == []


def test_the_unpacking_process_ends_with_the_daemon(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    options = json.dumps(
        {"limits": {}, "lower": [], "copy": str(tmp_path / "copy"), "digest": "", "any_links": False, "fills": False}
    )
    parent = f"""
import subprocess, sys, time
worker = subprocess.Popen(
    [sys.executable, "-m", "logd.images.unpack", "layer", {str(target)!r}, {options!r}],
    stdin=0, stdout=subprocess.DEVNULL,
)
print(worker.pid, flush=True)
time.sleep(60)
"""
    reading, writing = os.pipe()  # stays open in this process: the worker sees no end of its input
    daemon = subprocess.Popen([sys.executable, "-c", parent], stdin=reading, stdout=subprocess.PIPE)
    assert daemon.stdout is not None
    worker = os.pidfd_open(int(daemon.stdout.readline()))
    os.write(writing, tar(file("a"))[:1024])
    deadline = time.monotonic() + 10
    while not (target / "a").exists():  # then it is past its preparations
        assert time.monotonic() < deadline
        time.sleep(0.01)
    daemon.kill()
    daemon.wait()
    assert select.select([worker], [], [], 10)[0], "the worker goes on without its daemon"
    for fd in (reading, writing, worker):
        os.close(fd)
    daemon.stdout.close()


async def test_a_full_disk_is_the_systems_fault(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk))
    assert await mounting.wait() == 0
    try:
        store = ImageStore(disk / "images")
        with pytest.raises(LogdError, match="No space left on device"):
            await store.import_(stream(tar(file("big", bytes(8 << 20)))))
        assert list((disk / "images/ingest").iterdir()) == []
        await store.import_(stream(BASE), repository="small")
        assert store.resolve("small").size
    finally:
        await (await asyncio.create_subprocess_exec("umount", str(disk))).wait()


async def test_memory_is_bounded(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images", Limits(max_memory=64 << 20))
    data = lzma.compress(tar(file("x")), preset=9)  # asks for 64 MiB whatever the content
    with pytest.raises((InvalidParameter, LogdError), match="memory"):
        await store.import_(stream(data))


async def test_inspect_has_dockers_fields(store: ImageStore) -> None:
    one = picture(extra={"author": "A", "docker_version": "20.10", "variant": "v2"})
    await load(store, docker_save_old(one))
    shown = store.inspect("team/app:1")
    assert list(shown) == [
        *("Id", "RepoTags", "RepoDigests", "Parent", "Comment", "Created", "DockerVersion", "Author", "Config"),
        *("Architecture", "Variant", "Os", "Size", "GraphDriver", "RootFS", "Metadata"),
    ]
    assert shown["Id"] == one.id
    assert (shown["RepoTags"], shown["RepoDigests"], shown["Parent"]) == (["team/app:1"], [], "")
    assert (shown["Created"], shown["Author"], shown["Variant"]) == (one.created, "A", "v2")
    assert shown["RootFS"] == {"Type": "layers", "Layers": one.diff_ids}
    assert shown["Config"]["Cmd"] == ["sh"]
    assert shown["Config"]["User"] == ""
    assert shown["GraphDriver"]["Name"] == "overlay2"
    assert shown["Metadata"]["LastTagTime"].startswith("20")


async def test_inspect_tells_an_empty_list_from_one_that_is_not_there(store: ImageStore) -> None:
    empty = {"Cmd": [], "Entrypoint": [], "Env": [], "OnBuild": [], "Volumes": {}, "Labels": {}}
    for run, shown in ((empty, empty), ({}, dict.fromkeys(empty)), (dict.fromkeys(empty), dict.fromkeys(empty))):
        await load(store, docker_save_old(Picture([BASE], tags=["app:1"], run=run)))
        config = store.inspect("app:1")["Config"]
        assert {name: config[name] for name in empty} == shown


async def test_the_run_config_is_typed(store: ImageStore) -> None:
    await load(store, docker_save_old(picture()))
    run = config_for_run(store.resolve("team/app:1"))
    assert (run.cmd, run.env, run.user, run.stop_signal, run.labels) == (
        *(["sh"], ["PATH=/bin"], "", "SIGINT", {"who": "me"}),
    )


async def test_an_image_is_found_by_every_form_of_its_name(store: ImageStore) -> None:
    one = picture(layers=[BASE], tags=["busybox:latest"])
    await load(store, docker_save_old(one))
    for text in (
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        one.id,
        one.id[7:],
        one.id[7:19],
        one.id[:15],
    ):
        assert store.resolve(text).id == one.id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope", "No such image: nope:latest"),
        ("docker.io/library/nope:1", "No such image: nope:1"),
        ("0" * 64, f"No such image: sha256:{'0' * 64}"),
        (f"a@sha256:{'0' * 64}", f"No such image: a@sha256:{'0' * 64}"),
    ],
)
async def test_an_unknown_image_is_named_as_docker_names_it(store: ImageStore, text: str, message: str) -> None:
    for call in (store.resolve, lambda ref: store.remove(ref, force=False, prune=True, in_use=lambda _: [])):
        with pytest.raises(NotFound) as caught:
            call(text)
        assert str(caught.value) == message


async def test_history_tells_steps_and_sizes_newest_first(store: ImageStore) -> None:
    steps = [
        {"created": "2024-01-01T00:00:00Z", "created_by": "ADD"},
        {"created_by": "CMD", "empty_layer": True, "comment": "c"},
        {"created_by": "COPY"},
    ]
    one = picture(history=steps)
    await load(store, docker_save_old(one))
    history = store.history("team/app:1")
    assert [(item["CreatedBy"], item["Size"], item["Created"], item["Comment"]) for item in history] == [
        ("COPY", len(b"application"), 0, ""),
        ("CMD", 0, 0, "c"),
        ("ADD", len(b"#!shellroot"), 1704067200, ""),
    ]
    assert [item["Id"] for item in history] == [one.id, "<missing>", "<missing>"]

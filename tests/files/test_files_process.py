"""The process that works on a container's files, on layers of the test's own: what is hostile gets nowhere."""

import dataclasses
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from logd.errors import InvalidParameter, NotFound
from logd.files.client import answered
from logd.files.request import Extraction, MountRequest, Place
from logd.images.limits import Limits

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path):
    """A container that does not run, of an image with one layer."""
    for name in ("image/etc", "image/app", "upper", "work", "rootfs", "host"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "image/etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\njoe:x:7:8::/:/bin/sh\n")
    (tmp_path / "host/secret").write_text("outside")
    return Place(
        rootfs=str(tmp_path / "rootfs"),
        point=str(tmp_path / "rootfs"),
        layers=[str(tmp_path / "image")],
        upper=str(tmp_path / "upper"),
        work=str(tmp_path / "work"),
    )


def entry(name, data=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in fields.items():
        setattr(member, key, value)
    return member, data


def tar(*entries):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in entries:
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


async def stream(data):
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


async def put(place, path, data, limits=Limits(), **options):  # noqa: B008 - it is frozen
    async with answered(
        "extract", place, path=path, body=stream(data), extraction=Extraction(**options), limits=limits
    ):
        pass


async def get(place, path, task="pack"):
    async with answered(task, place, path=path) as it:
        data = b"".join([chunk async for chunk in it.chunks()])
    return tarfile.open(fileobj=io.BytesIO(data))


async def names(place, path):
    return [member.name for member in await get(place, path)]


async def test_reading_writes_nothing_and_extracting_writes_to_the_containers_layer_only(place, tmp_path):
    place = dataclasses.replace(
        place, mounts=[MountRequest(source=str(tmp_path / "host"), destination="/not/made/yet", read_only=True)]
    )
    assert await names(place, "/not/made") == ["made", "made/yet", "made/yet/secret"]
    assert list((tmp_path / "upper").iterdir()) == []
    await put(place, "/app", tar(entry("f", b"new", uid=12, gid=13, mode=0o640, mtime=1_600_000_000)))
    written = (tmp_path / "upper/app/f").stat()
    assert (written.st_uid, written.st_gid, written.st_mode & 0o7777, written.st_mtime) == (
        12,
        13,
        0o640,
        1_600_000_000,
    )
    assert list((tmp_path / "image/app").iterdir()) == []
    assert not (tmp_path / "rootfs").is_mount()


async def test_files_become_the_containers_users_if_that_is_asked_for(place, tmp_path):
    await put(place, "/app", tar(entry("f", b"x", uid=99)), owner="joe")
    written = (tmp_path / "upper/app/f").stat()
    assert (written.st_uid, written.st_gid) == (7, 8)
    with pytest.raises(InvalidParameter, match="unable to find user nobody-there"):
        await put(place, "/app", tar(entry("f")), owner="nobody-there")


@pytest.mark.parametrize(
    "hostile",
    [
        entry("../../../../../../tmp/escaped"),
        entry("x/../../../../../escaped"),
        entry("link", type=tarfile.LNKTYPE, linkname="../../../etc/shadow"),
        entry("up/escaped"),
        entry("attribute", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"}),
    ],
    ids=["dots", "dots further on", "hard link", "through a file", "overlayfs's attribute"],
)
async def test_an_entry_that_leads_elsewhere_is_refused(place, tmp_path, hostile):
    with pytest.raises(InvalidParameter):
        await put(place, "/app", tar(entry("up", b"a file"), hostile))
    assert [path.name for path in (tmp_path / "upper/app").iterdir() if path.name != "attribute"] == ["up"]


async def test_a_link_leads_to_the_containers_files_and_never_to_the_hosts(place, tmp_path):
    os.symlink(tmp_path / "host", tmp_path / "image/absolute")
    os.symlink("../" * 40 + f"{tmp_path}/host", tmp_path / "image/climbing")
    for path in ("/absolute/secret", "/absolute/", "/climbing/secret", "/climbing/", f"/../../{tmp_path}/host/secret"):
        with pytest.raises(NotFound):
            await names(place, path)
        with pytest.raises(NotFound):
            await put(place, path, tar(entry("planted", b"x")))
    data = tar(entry("l", type=tarfile.SYMTYPE, linkname=str(tmp_path / "host")), entry("l/planted", b"x"))
    with pytest.raises(InvalidParameter):
        await put(place, "/app", data)
    assert os.listdir(tmp_path / "host") == ["secret"]


async def test_a_read_only_root_is_so_through_a_link_in_a_volume_too(place, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    os.symlink("/etc", volume / "link")
    place = dataclasses.replace(place, mounts=[MountRequest(source=str(volume), destination="/data")])
    await put(place, "/data", tar(entry("f", b"x")), read_only_root=True)
    with pytest.raises(InvalidParameter, match="read-only file system"):
        await put(place, "/data", tar(entry("link/planted", b"x")), read_only_root=True)
    assert sorted(os.listdir(volume)) == ["f", "link"]
    assert not (tmp_path / "upper/etc/planted").exists()


async def test_a_fifo_or_device_in_the_way_is_listed_and_not_opened(place, tmp_path):
    os.mkfifo(tmp_path / "image/app/fifo")
    os.mknod(tmp_path / "image/app/zero", 0o666 | 0o020000, os.makedev(1, 5))
    kinds = {member.name: member.type for member in await get(place, "/app")}
    assert kinds == {"app": tarfile.DIRTYPE, "app/fifo": tarfile.FIFOTYPE, "app/zero": tarfile.CHRTYPE}
    await put(place, "/app", tar(entry("fifo", b"a file"), entry("zero", b"a file")))
    assert (tmp_path / "upper/app/fifo").read_bytes() == (tmp_path / "upper/app/zero").read_bytes() == b"a file"


async def test_a_kind_is_kept_where_that_is_asked_for_and_changes_where_not(place, tmp_path):
    (tmp_path / "image/app/d/inner").mkdir(parents=True)
    (tmp_path / "image/app/f").write_text("x")
    with pytest.raises(InvalidParameter, match='cannot overwrite directory "/app/d" with non-directory "/app"'):
        await put(place, "/app", tar(entry("d", b"x")), keep_kinds=True)
    folder = entry("f", type=tarfile.DIRTYPE, mode=0o755)
    with pytest.raises(InvalidParameter, match='cannot overwrite non-directory "/app/f" with directory "/app"'):
        await put(place, "/app", tar(folder), keep_kinds=True)
    await put(place, "/app", tar(entry("d", b"x"), folder))
    assert {member.name: member.isdir() for member in await get(place, "/app/.")} == {
        ".": True,
        "./d": False,
        "./f": True,
    }


async def test_attributes_and_hard_links_and_any_name_come_back_as_they_were(place, tmp_path):
    strange = os.fsdecode(b"n\xc3\xa9 \xff\n")
    (tmp_path / "image/app" / strange).write_bytes(b"x" * 70_000)
    os.link(tmp_path / "image/app" / strange, tmp_path / "image/app/z")
    os.setxattr(tmp_path / "image/app/z", "user.k", b"\x00\xff")
    archive = await get(place, "/app")
    found = {member.name: member for member in archive}
    assert found["app/z"].linkname == f"app/{strange}"
    assert len(archive.extractfile(f"app/{strange}").read()) == 70_000
    raw = found[f"app/{strange}"].pax_headers["SCHILY.xattr.user.k"]
    assert raw.encode("utf-8", "surrogateescape") == b"\x00\xff"


async def test_a_bomb_ends_at_the_limits(place, tmp_path):
    import gzip

    small = Limits(ratio_from=1 << 20, max_ratio=50, max_bytes=64 << 20)
    bomb = gzip.compress(tar(entry("zeros", bytes(32 << 20))), 1)
    with pytest.raises(InvalidParameter, match="expands to more than 50 times its size"):
        await put(place, "/app", bomb, limits=small)
    with pytest.raises(InvalidParameter, match="larger than"):
        await put(place, "/app", tar(entry("zeros", bytes(65 << 20))), limits=small)


async def test_a_long_sparse_file_is_sent_whole_and_whoever_goes_early_ends_the_process(place, tmp_path):
    with (tmp_path / "image/app/sparse").open("wb") as file:
        file.truncate(10 << 30)
    received = 0
    async with answered("pack", place, path="/app/sparse") as it:
        process = it._process
        async for chunk in it.chunks():
            received += len(chunk)
            if received > 64 << 20:
                break
        peak_kb = int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0])
    assert peak_kb < 100 << 10
    assert process.returncode is not None


def test_nothing_can_be_imported_once_the_root_is_the_containers(place):
    script = (
        "import json, sys; from logd.files.request import Place; from logd.files.view import enter\n"
        "enter(Place(**json.loads(sys.argv[1])), None, writable=False)\n"
        "try: import this\nexcept ImportError: print('refused', __import__('os').listdir('/'))"
    )
    import json

    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(dataclasses.asdict(place))],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout.startswith("refused")
    assert "app" in done.stdout
    assert "usr" not in done.stdout


async def test_changes_are_what_differs_from_the_image_and_not_what_the_engine_put_there(place, tmp_path):
    image, upper = tmp_path / "image", tmp_path / "upper"
    (image / "old").mkdir()
    for name in ("gone", "kept", "touched"):
        (image / "app" / name).write_text("x")
    for name in ("app", "etc", "dev/pts", "old"):
        (upper / name).mkdir(parents=True)
    os.mknod(upper / "app/gone", 0o020000, 0)
    os.mknod(upper / "app/never", 0o020000, 0)
    os.setxattr(upper / "old", "trusted.overlay.opaque", b"y")
    (image / "old/hidden").write_text("x")
    (upper / "app/touched").write_text("longer")
    (upper / "old/new").write_text("x")
    for name in (".dockerenv", "etc/hosts", "etc/hostname"):
        (upper / name).touch()
    async with answered("changes", place) as it:
        found = [(change["Kind"], change["Path"]) for change in it.result["changes"]]
    expected = [(0, "/app"), (2, "/app/gone"), (0, "/app/touched"), (0, "/old"), (2, "/old/hidden"), (1, "/old/new")]
    assert found == expected
    layer = [member.name for member in await get(place, "", "layer")]
    assert layer == ["app", "app/.wh.gone", "app/touched", "old", "old/.wh..wh..opq", "old/new"]


async def test_a_name_that_would_hide_another_file_in_an_image_is_refused(place, tmp_path):
    (tmp_path / "upper/.wh.etc").touch()
    with pytest.raises(InvalidParameter, match=r"/.wh.etc: a name that begins with .wh. can't be in an image's layer"):
        await get(place, "", "layer")

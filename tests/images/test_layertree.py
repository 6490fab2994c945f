"""What a layer's tar becomes on disk, through the real unpacking process; what is hostile leaves nothing."""

import asyncio
import io
import os
import secrets
import stat
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
from image_archives import COMPRESS, entry, file, folder, hardlink, sha256, stream, symlink, tar

from logd.errors import InvalidParameter
from logd.images import worker
from logd.images.limits import Limits
from logd.images.store import ImageStore

NO_LIMITS = Limits()


async def unpack(folder_: Path, data: bytes, limits: Limits = NO_LIMITS, lower: Any = ()) -> dict[str, Any]:
    folder_.mkdir()
    return await worker.unpack_layer(folder_, stream(data), lower, limits, copy=folder_.parent / secrets.token_hex(4))


async def test_owner_mode_time_and_content_are_kept(tmp_path: Path) -> None:
    data = tar(
        folder("bin", mode=0o2755, uid=7, gid=8, mtime=1_500_000_001),
        file("bin/su", b"#!", mode=0o4755, uid=1000, gid=1001, pax_headers={"mtime": "1600000000.123456789"}),
        symlink("bin/sh", "/bin/busybox", uid=5, gid=6),
    )
    result = await unpack(tmp_path / "l", data)
    su, bin_, link = (tmp_path / "l/bin/su").stat(), (tmp_path / "l/bin").stat(), (tmp_path / "l/bin/sh").lstat()
    blob = result.pop("blob")
    assert result == {
        "diff_id": f"sha256:{sha256(data)}",
        "size": 2 + len("/bin/busybox"),
        "compressed": len(data),
        "tar": len(data),
    }
    assert blob["compression"] == "zstd"
    assert blob["copied"]
    assert (su.st_mode, su.st_uid, su.st_gid) == (stat.S_IFREG | 0o4755, 1000, 1001)
    assert su.st_mtime_ns == 1_600_000_000_123_456_789
    assert (bin_.st_mode, bin_.st_uid, bin_.st_gid) == (stat.S_IFDIR | 0o2755, 7, 8)
    assert bin_.st_mtime_ns == 1_500_000_001_000_000_000
    assert (link.st_uid, link.st_gid, os.readlink(tmp_path / "l/bin/sh")) == (5, 6, "/bin/busybox")
    assert link.st_mtime == 1_600_000_000


async def test_hard_links_share_an_inode_and_count_once(tmp_path: Path) -> None:
    result = await unpack(tmp_path / "l", tar(file("a", b"12345"), hardlink("d/b", "./a"), symlink("s", "a")))
    assert (tmp_path / "l/a").stat().st_ino == (tmp_path / "l/d/b").stat().st_ino
    assert result["size"] == 6


async def test_the_header_of_a_hard_link_counts_as_in_docker(tmp_path: Path) -> None:
    later = entry("b", tarfile.LNKTYPE, linkname="a", uid=5, gid=6, mode=0o4750, mtime=1_500_000_001)
    link = entry("t", tarfile.LNKTYPE, linkname="s", uid=7, gid=8, mode=0o600)
    await unpack(tmp_path / "l", tar(file("a", mode=0o600), later, symlink("s", "/etc/shadow"), link))
    there, kept = (tmp_path / "l/a").stat(), (tmp_path / "l/s").lstat()
    assert (there.st_mode, there.st_uid, there.st_gid) == (stat.S_IFREG | 0o4750, 5, 6)
    assert there.st_mtime == 1_500_000_001
    assert (kept.st_uid, kept.st_gid, os.readlink(tmp_path / "l/t")) == (7, 8, "/etc/shadow")


async def test_a_hard_link_leaves_the_capabilities_of_its_file(tmp_path: Path) -> None:
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    fields = {"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")}
    await unpack(tmp_path / "l", tar(file("a", b"x", mode=0o755, pax_headers=fields), hardlink("b", "a", mode=0o755)))
    assert os.getxattr(tmp_path / "l/b", "security.capability") == capability


async def test_a_hard_link_to_a_symbolic_link_is_a_link_to_the_link(tmp_path: Path) -> None:
    await unpack(tmp_path / "l", tar(symlink("s", "/etc/passwd"), hardlink("h", "s")))
    assert os.readlink(tmp_path / "l/h") == "/etc/passwd"


async def test_devices_and_fifos_are_made(tmp_path: Path) -> None:
    data = tar(
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        entry("disk", tarfile.BLKTYPE, devmajor=7, devminor=9, mode=0o660, gid=6),
        entry("fifo", tarfile.FIFOTYPE, mode=0o622),
    )
    await unpack(tmp_path / "l", data)
    null, disk, fifo = ((tmp_path / "l" / name).stat() for name in ("null", "disk", "fifo"))
    assert (null.st_mode, null.st_rdev) == (stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert (disk.st_mode, disk.st_rdev, disk.st_gid) == (stat.S_IFBLK | 0o660, os.makedev(7, 9), 6)
    assert fifo.st_mode == stat.S_IFIFO | 0o622


async def test_extended_attributes_are_kept_byte_for_byte(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "ping").write_bytes(b"x")
    os.mknod(source / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    capability = struct.pack("<IIIIII", 0x03000001, 1 << 10, 0, 0xFF, 0, 1000)  # of a user namespace: with a root id
    attributes = {
        "ping": {"security.capability": capability},
        "d": {"user.mime": b"\xff\0=\n", "trusted.note": b"kept"},
        "null": {"trusted.note": b"kept"},
    }
    for name, values in attributes.items():
        for key, value in values.items():
            os.setxattr(source / name, key, value)
    made = await asyncio.create_subprocess_exec(
        *("tar", "-c", "--xattrs", "--xattrs-include=*", "-C", str(source), "."), stdout=asyncio.subprocess.PIPE
    )
    await unpack(tmp_path / "l", (await made.communicate())[0])
    for name, values in attributes.items():
        for key, value in values.items():
            assert os.getxattr(tmp_path / "l" / name, key) == value


async def test_names_of_any_length_and_bytes_are_kept(tmp_path: Path) -> None:
    long = "/".join(["d" * 200] * 5) + "/" + "f" * 250
    strange = b"caf\xe9 \n\xff".decode("utf-8", "surrogateescape")
    for number, format_ in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        root = tmp_path / f"l{number}"
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w", format=format_, errors="surrogateescape") as archive:
            archive.addfile(entry(long))
            archive.addfile(entry("x", tarfile.SYMTYPE, linkname="t" * 300))
            if format_ == tarfile.GNU_FORMAT:
                archive.addfile(entry(strange))
        await unpack(root, output.getvalue())
        assert (root / long).exists()
        assert os.readlink(root / "x") == "t" * 300
    assert os.path.lexists(os.fsencode(tmp_path / "l1") + b"/caf\xe9 \n\xff")


async def test_a_sparse_file_keeps_its_holes(tmp_path: Path) -> None:
    source = tmp_path / "s"
    with source.open("wb") as output:
        output.truncate(64 << 20)
        output.seek(32 << 20)
        output.write(b"middle")
    for style in ("--format=gnu", "--format=pax"):
        made = await asyncio.create_subprocess_exec(
            "tar", "cSf", "-", style, "-C", str(tmp_path), "s", stdout=asyncio.subprocess.PIPE
        )
        data, _ = await made.communicate()
        assert len(data) < 1 << 20
        await unpack(tmp_path / style, data)
        there = tmp_path / style / "s"
        assert there.read_bytes() == source.read_bytes()
        assert there.stat().st_blocks * 512 < 1 << 20


async def test_whiteouts_become_overlayfs_marks(tmp_path: Path) -> None:
    data = tar(file("d/.wh.gone"), folder("o"), file("o/.wh..wh..opq"), file(".wh..wh.plnk"), file(".wh..wh.aufs/x"))
    lower = tmp_path / "lower"
    (lower / "d").mkdir(parents=True)
    (lower / "d/gone").touch()
    await unpack(tmp_path / "l", data, lower=[lower])
    gone = (tmp_path / "l/d/gone").stat()
    assert (stat.S_IFMT(gone.st_mode), gone.st_rdev) == (stat.S_IFCHR, 0)
    assert os.getxattr(tmp_path / "l/o", "trusted.overlay.opaque") == b"y"
    assert sorted(os.listdir(tmp_path / "l")) == ["d", "o"]


async def test_a_whiteout_of_what_no_lower_layer_shows_is_dropped(tmp_path: Path) -> None:
    bottom, middle = tmp_path / "bottom", tmp_path / "middle"
    for path in (bottom / "a", bottom / "b", bottom / "c", middle / "b", middle / "c"):
        path.mkdir(parents=True)
        (path / "x").touch()
    (middle / "c/x").unlink()
    os.setxattr(middle / "c", "trusted.overlay.opaque", b"y")
    marks = [file(f"{name}/.wh.x") for name in ("a", "b", "c", "d")]
    await unpack(tmp_path / "l", tar(*marks, file("b/.wh..wh..opq")), lower=[middle, bottom])
    left = sorted(str(path.relative_to(tmp_path / "l")) for path in (tmp_path / "l").rglob("x"))
    assert left == ["a/x"]  # b hides all by itself, c is hidden below, d is nowhere


async def test_a_whiteout_leaves_what_the_same_layer_has(tmp_path: Path) -> None:
    for number, order in enumerate(([0, 1, 2, 3], [2, 3, 0, 1])):
        members = [file("f", b"new"), file("d/x", b"new"), file(".wh.f"), file(".wh.d")]
        root = tmp_path / str(number)
        await unpack(root, tar(*(members[i] for i in order)))
        assert (root / "f").read_bytes() == b"new"
        assert (root / "d/x").read_bytes() == b"new"
        assert os.getxattr(root / "d", "trusted.overlay.opaque") == b"y"


async def test_the_last_of_equal_names_wins(tmp_path: Path) -> None:
    data = tar(
        *(file("a", b"1"), file("a", b"2"), folder("d"), file("d/x"), file("d", b"file"), file("e"), folder("e")),
        *(symlink("s", "a"), file("s", b"no link"), file("keep/x", b"1"), folder("keep", mode=0o700)),
    )
    await unpack(tmp_path / "l", data)
    assert (tmp_path / "l/a").read_bytes() == b"2"
    assert (tmp_path / "l/d").read_bytes() == b"file"
    assert (tmp_path / "l/e").is_dir()
    assert (tmp_path / "l/s").read_bytes() == b"no link"
    assert not (tmp_path / "l/s").is_symlink()
    assert (tmp_path / "l/keep").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "l/keep/x").exists()


async def test_entries_below_a_link_within_the_layer_land_where_it_points(tmp_path: Path) -> None:
    data = tar(
        folder("usr/lib"), symlink("lib", "usr/lib"), file("lib/x", b"1"), folder("lib/sub"), file("./lib/./sub/y")
    )
    await unpack(tmp_path / "l", data)
    assert (tmp_path / "l/usr/lib/x").read_bytes() == b"1"
    assert (tmp_path / "l/usr/lib/sub/y").exists()
    assert (tmp_path / "l/lib").is_symlink()


async def test_a_folder_that_the_tar_does_not_name_looks_as_in_the_layer_below(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    (lower / "tmp").mkdir(parents=True)
    (lower / "tmp").chmod(0o1777)
    os.chown(lower / "tmp", 11, 12)
    os.utime(lower / "tmp", ns=(5, 5))
    await unpack(tmp_path / "l", tar(file("tmp/x"), file("new/x")), lower=[lower])
    there = (tmp_path / "l/tmp").stat()
    assert (there.st_mode & 0o7777, there.st_uid, there.st_gid, there.st_mtime_ns) == (0o1777, 11, 12, 5)
    assert (tmp_path / "l/new").stat().st_mode & 0o7777 == 0o755


def bad_checksum() -> bytes:
    data = bytearray(tar(file("a", b"1"), file("b", b"2")))
    data[1024] ^= 0xFF  # the second header
    return bytes(data)


def giant_pax() -> bytes:
    header = entry("x", tarfile.XHDTYPE, size=1 << 30)
    return header.tobuf(tarfile.USTAR_FORMAT) + b"1 a=b\n" * 100


def nested_pax() -> bytes:
    header = entry("x", tarfile.XHDTYPE, size=10).tobuf(tarfile.USTAR_FORMAT)
    return (header + b"10 a=bcde\n".ljust(512, b"\0")) * 3000


def negative_size() -> bytes:
    return tar(entry("x", pax_headers={"size": "-1024"}), file("y", b"z"))


def pax(records: bytes) -> bytes:
    header = entry("x", tarfile.XHDTYPE, size=len(records)).tobuf(tarfile.USTAR_FORMAT)
    return header + records.ljust(512, b"\0") + tar(file("y", b"z"))


def endless_map_of_holes() -> bytes:
    header = bytearray(entry("s", tarfile.GNUTYPE_SPARSE, size=5).tobuf(tarfile.GNU_FORMAT))
    header[482] = 1  # more of the map follows, and so it says again and again
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + (bytes(504) + b"\1" + bytes(7)) * 20_000


def truncated() -> bytes:
    return tar(file("a", b"x" * 5000))[:2048]


HOSTILE = {
    "parent": (tar(file("../x")), "has '..' in it"),
    "parent within": (tar(file("a/../../x")), "has '..' in it"),
    "parent that stays within": (tar(file("a/../x")), "has '..' in it"),
    "parent as a folder": (tar(folder("..")), "has '..' in it"),
    "absolute": (tar(file("/etc/x")), "is an absolute name"),
    "absolute by PAX": (tar(file("x", pax_headers={"path": "/etc/x"})), "is an absolute name"),
    "through an absolute link": (tar(symlink("e", "/etc"), file("e/x")), "leads outside"),
    "through a climbing link": (tar(symlink("d/e", "../../etc"), file("d/e/x")), "leads outside"),
    "a climbing link": (tar(symlink("e", "../etc")), "leads outside"),
    "through two links": (
        tar(folder("d"), symlink("d/up", ".."), symlink("e", "d/up/.."), file("e/x")),
        "leads outside",
    ),
    "through a link to itself": (tar(symlink("e", "e"), file("e/x")), "symbolic links"),
    "through a hanging link": (tar(symlink("e", "nowhere"), file("e/x")), "is not a directory"),
    "whiteout through a link": (tar(symlink("e", "/etc"), file("e/.wh.passwd")), "leads outside"),
    "opaque through a link": (tar(symlink("e", "/etc"), file("e/.wh..wh..opq")), "leads outside"),
    "whiteout of the parent": (tar(file("d/.wh...")), "whiteout of nothing"),
    "whiteout of itself": (tar(file("d/.wh..")), "whiteout of nothing"),
    "whiteout of no name": (tar(file("d/.wh.")), "whiteout of nothing"),
    "below a whiteout": (tar(file(".wh.d/x")), "lies in a whiteout"),
    "hard link outside": (tar(hardlink("x", "../../etc/passwd")), "has '..' in it"),
    "absolute hard link": (tar(hardlink("x", "/etc/passwd")), "is an absolute name"),
    "hard link through a link": (tar(symlink("e", "/etc"), hardlink("x", "e/passwd")), "entry 'x'"),
    "hard link to a folder": (tar(folder("d"), hardlink("x", "d")), "to the directory 'd'"),
    "hard link to nothing": (tar(hardlink("x", "y")), "No such file"),
    "file as a folder": (tar(file("f"), file("f/x")), "is not a directory"),
    "root as a link": (tar(symlink(".", "/etc")), "the root of a layer"),
    "overlay's own attribute": (
        tar(folder("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})),
        "overlayfs's own",
    ),
    "a user that is none": (tar(entry("x", uid=2**32 - 1)), "its user 4294967295"),
    "name too long": (tar(file("n" * 300)), "File name too long"),
    "unknown type": (tar(entry("x", b"V")), "is not known"),
    "bad checksum": (bad_checksum(), "invalid tar header"),
    "1 GiB of PAX": (giant_pax(), "longer than"),
    "endless PAX": (nested_pax(), "RecursionError"),
    "a record of PAX without a value": (pax(b"9 pathab\n"), "is no PAX record"),
    "a record of PAX that is too long": (pax(b"99 path=a\n"), "is no PAX record"),
    "a record of PAX of no length": (pax(b"0 path=a\n"), "is no PAX record"),
    "a size that is no number": (pax(b"12 size=abc\n"), "is no PAX record"),
    "a time that is no number": (pax(b"13 mtime=nan\n"), "is no PAX record"),
    "a map of holes without end": (endless_map_of_holes(), "the headers of one entry are longer than"),
    "more behind the end": (tar(file("a"))[:1024] + tar(file("b")), "there is more behind a block of zeros"),
    "negative size": (negative_size(), "archive is refused"),  # Python 3.11.2's tarfile sees it by itself
    "truncated": (truncated(), "the archive ends"),
    "no tar": (b"hello world" * 100, "invalid tar header"),
    "nothing": (b"", "the archive is empty"),
    "truncated gzip": (COMPRESS["gzip"](tar(file("a", os.urandom(5000))))[:-9], "ends too early"),
    "truncated zstd": (COMPRESS["zstd"](tar(file("a", os.urandom(5000))))[:-9], "ends too early"),
    "truncated xz": (COMPRESS["xz"](tar(file("a", os.urandom(5000))))[:-9], "ends too early"),
    "gzip with reserved flags": (b"\x1f\x8b\x08\x20" + COMPRESS["gzip"](tar(file("a")))[4:], "damaged"),
    "garbage after gzip": (COMPRESS["gzip"](tar(file("a"))) + b"garbage", "damaged"),
    "damaged gzip": (COMPRESS["gzip"](tar(file("a", b"1" * 9999)))[:-6] + b"\0" * 6, "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_layer_is_refused_whole_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    data, message = HOSTILE[name]
    store = ImageStore(tmp_path / "images")
    with pytest.raises(InvalidParameter) as caught:
        await store.import_(stream(data), repository="evil")
    assert message in str(caught.value)
    assert [list((tmp_path / "images" / part).iterdir()) for part in ("l", "ingest", "trash")] == [[], [], []]
    assert store.list() == []


def bomb(kind: str) -> bytes:
    return COMPRESS[kind](tar(file("zero", bytes(64 << 20))))


@pytest.mark.parametrize(
    ("limits", "data", "message"),
    [
        (Limits(max_entries=10), tar(*(file(str(n)) for n in range(11))), "more than 10 entries"),
        (Limits(max_bytes=1 << 20), tar(file("x", bytes(2 << 20))), "larger than 1048576 bytes"),
        (Limits(max_ratio=100, ratio_from=1 << 20), bomb("gzip"), "more than 100 times"),
        (Limits(max_ratio=100, ratio_from=1 << 20), bomb("zstd"), "more than 100 times"),
        (Limits(max_ratio=100, ratio_from=1 << 20), bomb("xz"), "more than 100 times"),
    ],
)
async def test_a_layer_beyond_a_limit_is_refused(tmp_path: Path, limits: Limits, data: bytes, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        await unpack(tmp_path / "l", data, limits)


async def test_a_sparse_file_counts_with_its_holes(tmp_path: Path) -> None:
    fields = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "s",
        "GNU.sparse.realsize": str(1 << 62),
    }
    with pytest.raises(InvalidParameter, match="the files are larger"):
        await unpack(tmp_path / "l", tar(file("s", b"0\n".ljust(512, b"\0"), pax_headers=fields)))


@pytest.mark.parametrize("kind", COMPRESS)
async def test_a_layer_in_several_compressed_members_is_one(tmp_path: Path, kind: str) -> None:
    data = tar(file("a", os.urandom(300_000)), file("b", b"2"))
    squeezed = COMPRESS[kind](data[:100_001]) + COMPRESS[kind](data[100_001:])
    result = await unpack(tmp_path / "l", squeezed)
    assert result["diff_id"] == f"sha256:{sha256(data)}"
    assert (tmp_path / "l/b").read_bytes() == b"2"


async def test_thousands_of_nested_folders_come_and_go(tmp_path: Path) -> None:
    deep = "/".join("d" * 1900)
    store = ImageStore(tmp_path / "images")
    with pytest.raises(InvalidParameter):
        await store.import_(stream(tar(folder(deep), file("../x"))))
    assert list((tmp_path / "images/ingest").iterdir()) == []


async def test_the_symbolic_link_of_a_layer_is_never_followed_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    data = tar(symlink("a", str(outside)), symlink("b", "a"), file("b/x", b"!"))
    with pytest.raises(InvalidParameter, match="leads outside"):
        await unpack(tmp_path / "l", data)
    assert list(outside.iterdir()) == []

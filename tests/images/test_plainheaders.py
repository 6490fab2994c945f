"""What is read without tarfile is read as tarfile reads it, or not at all."""

import io
import random
import tarfile
from typing import Any

import pytest
from image_archives import entry, file, folder, hardlink, symlink, tar

from logd.images.plainheaders import BLOCK, read_plain

FIELDS = ("name", "mode", "uid", "gid", "size", "mtime", "chksum", "type", "linkname", "uname", "gname", "devmajor")
FIELDS = (*FIELDS, "devminor", "offset", "offset_data", "pax_headers", "sparse")
LONG = "long/" * 30 + "name-ü"
XATTR = {"SCHILY.xattr.security.capability": "\x01=\n7 a=b\n"}
ORDINARY = {
    "file": file("bin/su", b"12345", mode=0o4755, uid=1000, gid=7),
    "empty file": file("empty", b""),
    "directory": folder("a/b///"),
    "symbolic link": symlink("s", "../x"),
    "hard link": hardlink("h", "bin/su"),
    "time with a fraction": file("t", b"1", pax_headers={"mtime": "1600000000.123456789", "atime": "1.5"}),
    "time before 1970": file("t", b"1", pax_headers={"mtime": "-5.5"}),
    "attributes": file("x", b"1", pax_headers=XATTR),
    "long name": file(LONG, b"1"),
    "long directory": folder(f"{LONG}//"),
    "long link": symlink("s", LONG),
    "large owner": file("o", b"1", uid=3_000_000_000, gid=2**31),
}
UNUSUAL = {
    "device": entry("d", type=tarfile.CHRTYPE),
    "old file": entry("d", type=tarfile.AREGTYPE),
    "size in a record": file("f", b"1", pax_headers={"size": "1"}),
    "map of holes": file("f", b"1", pax_headers={"GNU.sparse.map": "0,1"}),
    "no UTF-8": file("\udcff\udcfe", b"1"),
    "character set": file("f", b"1", pax_headers={"hdrcharset": "BINARY"}),
    "records of others": file("f", b"1", pax_headers={"comment": "1"}),
    "many records": file("f", b"1", pax_headers={f"SCHILY.xattr.user.{n}": "1" * 100 for n in range(200)}),
}


def by_tarfile(data: bytes) -> tuple[dict[str, Any], int] | None:
    """Return what tarfile reads, and where it goes on; None if it refuses the header or ends there."""
    try:
        archive = tarfile.TarFile(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape")
        member = archive.next()
    except (tarfile.TarError, ValueError):
        return None
    return None if member is None else (_described(member), archive.offset)  # type: ignore[attr-defined]


def _described(member: tarfile.TarInfo) -> dict[str, Any]:
    return {name: getattr(member, name) for name in FIELDS}


def plain(data: bytes) -> tuple[dict[str, Any], int] | None:
    found = read_plain(memoryview(data), 0)
    if found is None:
        return None
    assert found[0].offset_data == found[1]
    return _described(found[0]), found[2]


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_ordinary_headers_are_read_as_tarfile_reads_them(name: str, format_: int) -> None:
    try:
        data = tar(ORDINARY[name], style=format_)
    except ValueError:
        pytest.skip("the format can't say it")
    is_gnu_long = data[156:157] in {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
    assert plain(data) == (None if is_gnu_long else by_tarfile(data))


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_is_left_to_tarfile(name: str) -> None:
    data = tar(UNUSUAL[name])
    assert by_tarfile(data) is not None
    assert read_plain(memoryview(data), 0) is None


@pytest.mark.parametrize("name", ORDINARY)
def test_a_part_of_the_headers_is_none(name: str) -> None:
    data = tar(ORDINARY[name])
    found = read_plain(memoryview(data), 0)
    assert found is not None
    for length in range(0, found[1], 256):
        assert read_plain(memoryview(data[:length]), 0) is None
    assert read_plain(memoryview(data[: found[1]]), 0) is not None


def test_damaged_headers_are_read_as_tarfile_reads_them_or_not_at_all() -> None:
    chance = random.Random(7)
    read = 0
    for _ in range(6000):
        data = bytearray(tar(chance.choice(list(ORDINARY.values()))))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data) // BLOCK * BLOCK) if chance.random() < 0.5 else chance.randrange(BLOCK)
            data[at] = chance.choice(b"\0\x80\xff /07x=\n1")
        for start in range(0, len(data), BLOCK):
            _correct_checksum(data, start)
        found = plain(bytes(data))
        if found is not None:
            read += 1
            assert found == by_tarfile(bytes(data)), bytes(data)
    assert read > 1000


def _correct_checksum(data: bytearray, start: int) -> None:
    """Make a block that may be a header one with a right checksum, so that it is read on."""
    block = data[start : start + BLOCK]
    if block[257:262] == b"ustar":
        block[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(block)


def test_a_wrong_checksum_is_never_read() -> None:
    data = bytearray(tar(file("f", b"12345")))
    for at in range(BLOCK):
        damaged = bytearray(data)
        damaged[at] ^= 0x20 if at not in range(148, 156) else 1
        assert read_plain(memoryview(bytes(damaged)), 0) is None or at in {154, 155}

"""COPY and ADD: which files, where they go, whose they are; and what keeps out of it."""

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest
import zstandard

ANCIENT = 1_577_836_800
TREE = {
    "a.txt": "a",
    "b.txt": "bb",
    "exec": ("#!/bin/sh\n", 0o755),
    "d/one": ("1", 0o600),
    "d/sub/two": "2",
    "d/link": Path("one"),
    "d/out": Path("/etc/passwd"),
    "d/empty": (None, 0o700),
}


def tar(*members) -> bytes:
    """A tar of (name, content): bytes for a file, None for a folder, str for a link; of user 7 and group 8."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.uid, member.gid, member.mode = 7, 8, 0o640
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o750
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content if isinstance(content, bytes) else b""))
    return output.getvalue()


def exported(builds, image="built") -> dict:
    """The image's files, by name."""
    container = builds.daemon.docker("create", image, "x").stdout.strip()
    data = builds.daemon.docker("export", container, text=False).stdout
    builds.daemon.docker("rm", container)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            member.name.strip("/"): (member, member.isreg() and archive.extractfile(member).read())
            for member in archive
        }


def shown(files, prefix) -> list:
    """What is below `prefix`: name, mode, owner."""
    found = sorted((name, one) for name, (one, _) in files.items() if f"{name}/".startswith(f"{prefix}/"))
    return [f"{name} {one.mode & 0o7777:o} {one.uid}:{one.gid}" for name, one in found]


def test_files_go_where_the_destination_says(builds):
    builds.build(
        "FROM scratch\n"
        "COPY a.txt /file\n"
        "COPY --chown=33:34 a.txt b.txt /many/new/\n"
        "COPY d /folder\n"
        'COPY ["*.txt", "/with space/"]\n'
        "COPY d/sub exec /mixed/\n"
        "WORKDIR /w\n"
        "COPY b.txt .\n"
        "ENV NAME=exec\n"
        "COPY ${NAME} ./there\n",
        files=TREE,
    )
    files = exported(builds)
    assert shown(files, "file") == ["file 644 0:0"]
    assert shown(files, "many") == [
        "many 755 33:34",
        "many/new 755 33:34",
        "many/new/a.txt 644 33:34",
        "many/new/b.txt 644 33:34",
    ]
    assert shown(files, "folder") == [
        "folder 755 0:0",
        "folder/empty 700 0:0",
        "folder/link 777 0:0",
        "folder/one 600 0:0",
        "folder/out 777 0:0",
        "folder/sub 755 0:0",
        "folder/sub/two 644 0:0",
    ]
    assert (files["folder/link"][0].linkname, files["folder/out"][0].linkname) == ("one", "/etc/passwd")
    assert [name for name in files if name.startswith("with space/")] == ["with space/a.txt", "with space/b.txt"]
    assert [name for name in sorted(files) if name.startswith("mixed/")] == ["mixed/exec", "mixed/two"]
    assert shown(files, "w/there") == ["w/there 755 0:0"]
    assert files["w/b.txt"][1] == b"bb"
    assert {files[name][0].mtime for name in ("file", "folder/one", "w/b.txt")} == {ANCIENT}
    assert builds.left() == []


def test_owners_are_found_in_the_image_and_links_of_the_image_are_followed(builds, steps):
    done = builds.build(
        "FROM busybox\n"
        "RUN mkdir -p /usr/lib /isdir && ln -s usr/lib /lib && echo old > /t && ln -s t /l\n"
        "COPY --chown=www-data:users a.txt /lib/\n"
        "COPY --chown=nobody d /lib/new/\n"
        "COPY --chown=77 a.txt /n\n"
        "COPY b.txt /l\n"
        "COPY b.txt /isdir\n"
        "RUN cd /usr/lib && stat -c '%n %U:%G' a.txt new/one && cat /t /isdir/b.txt; "
        "readlink /lib; readlink /l; stat -c %u:%g /n\n",
        files=TREE,
    )
    assert steps(done)[-5:] == ["a.txt www-data:users", "new/one nobody:nogroup", "bbbbusr/lib", "t", "77:77"]
    assert "no matching entries in passwd file" in builds.fails("FROM busybox\nCOPY --chown=nosuch a.txt /x\n")
    assert builds.fails("FROM busybox\nCOPY d /etc/passwd\n") == "COPY failed: /etc/passwd is not a directory"
    assert builds.containers() == builds.left() == []


COMPRESS = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


def test_add_unpacks_archives_whatever_their_name_and_copy_does_not(builds):
    files = {f"{name}.bin": compress(tar((name, b"1"), ("y", None), ("l", "x"))) for name, compress in COMPRESS.items()}
    builds.build(
        f"FROM scratch\nADD a.txt {' '.join(files)} no.tar word.gz /all/\nCOPY gzip.bin /copied\n",
        files={**files, "no.tar": "not one", "word.gz": gzip.compress(b"word"), "a.txt": "a"},
    )
    found = exported(builds)
    assert shown(found, "all") == [
        "all 755 0:0",
        "all/a.txt 644 0:0",
        "all/bzip2 640 7:8",
        "all/gzip 640 7:8",
        "all/l 777 7:8",
        "all/no.tar 644 0:0",
        "all/plain 640 7:8",
        "all/word.gz 644 0:0",
        "all/xz 640 7:8",
        "all/y 750 7:8",
        "all/zstd 640 7:8",
    ]
    assert (found["all/no.tar"][1], found["copied"][1]) == (b"not one", files["gzip.bin"])
    assert gzip.decompress(found["all/word.gz"][1]) == b"word"


def test_dockerignore_keeps_files_out_and_lets_some_in_again(builds):
    files = {
        ".dockerignore": "# comment\n*.log\n**/deep\n!**/deep/kept\nd/[ab]?\nlast/\n",
        "a.log": "",
        "d/a.log": "",
        "d/a1": "",
        "d/c1": "",
        "d/deep/gone": "",
        "d/deep/kept": "",
        "last/x": "",
    }
    with tarfile.open(
        builds.folder.parent / "context.tar", "w", format=tarfile.USTAR_FORMAT
    ) as archive:  # the command line would leave out some itself
        builds.write({**files, "Dockerfile": "FROM scratch\nCOPY . /c/\n"})
        archive.add(builds.folder, ".")
    builds.build(None, stdin=(builds.folder.parent / "context.tar").read_bytes())
    names = [name for name, (one, _) in exported(builds).items() if name.startswith("c/") and one.isreg()]
    assert sorted(names) == ["c/.dockerignore", "c/Dockerfile", "c/d/a.log", "c/d/c1", "c/d/deep/kept"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("COPY nope /", "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file"),
        ("COPY hidden /", "COPY failed: file not found in build context or excluded by .dockerignore: stat hidden:"),
        ("COPY ../x /", "COPY failed: forbidden path outside the build context: ../x ()"),
        ("COPY d/../../x /", "COPY failed: forbidden path outside the build context: d/../../x ()"),
        ("COPY *.nope /", "COPY failed: no source files were specified"),
        ("COPY a.txt b.txt /x", "When using COPY with more than one source file, the destination must be a directory"),
        ("COPY host /", "COPY failed: file not found in build context or excluded by .dockerignore: stat host: file"),
        ("COPY --from=7 a /", "invalid from flag value 7: index out of bounds"),
        ("COPY [a /", "COPY failed: syntax error in pattern"),
        ("ADD http://127.0.0.1:1/x /", "ADD of a URL is not supported"),
        ("ADD evil.tar /", "entry '../../evil' has '..' in it"),
        ("ADD evil2.tar /", "entry 'l/evil'"),
    ],
)
def test_what_cannot_be_copied_is_said(builds, line, said):
    files = {
        **TREE,
        "hidden": "",
        ".dockerignore": "hidden",
        "host": Path("/etc/hostname"),
        "evil.tar": tar(("../../evil", b"1")),
        "evil2.tar": tar(("l", "/etc"), ("l/evil", b"1")),
    }
    assert said in builds.fails(f"FROM scratch\n{line}\n", files=files)
    assert builds.containers() == builds.left() == []


def test_links_of_a_context_lead_to_nothing_outside_of_it(builds):
    """Followed in the context's own root: a link to /secret means the context's secret."""
    builds.build(
        "FROM scratch\nCOPY up /a\nCOPY root/a.txt /b\n",
        files={**TREE, "up": Path("../../../../a.txt"), "root": Path("/")},
    )
    found = exported(builds)
    assert (found["a"][1], found["b"][1]) == (b"a", b"a")


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", b"x")],
        [("/evil", b"x")],
        [("l", "/etc"), ("l/evil", b"x")],
    ],
    ids=["above", "absolute", "behind a link"],
)
def test_a_context_that_would_write_elsewhere_is_refused(builds, members):
    archive = tar(("Dockerfile", b"FROM scratch\nCOPY . /\n"), *members)
    done = builds.build(None, stdin=archive, check=False)
    assert done.returncode != 0
    assert b"the archive is refused" in done.stderr
    assert builds.left() == []

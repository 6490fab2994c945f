"""`logd cp` beside `docker cp` on one daemon, and what a hostile container sends."""

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from logd.cli.copying.packing import pack
from logd.cli.copying.places import Place, absolute, name_of, parse_side, place
from logd.cli.copying.unpacking import unpack
from logd.cli.main import cli
from logd.errors import InvalidParameter, LogdError

SOURCES = ("file", "folder", "folder/", "folder/.", "link", "link/", "link/.", "linked", "folder/sub/..", "nothing")
DESTINATIONS = ("new", "new/", "new/.", "there", "there/", "there/.", "over", "to-there", "to-new", "to-over", "no/new")
"""In a place with the folder `there`, the file `over`, and links to them and to what is not there."""
SAMPLE = (
    ("file", "new"), ("file", "to-over"), ("folder", "new/"), ("folder/.", "there"), ("link/.", "to-there"),
    ("folder", "over"), ("file", "new/"), ("nothing", "there"),
)  # fmt: skip
"""One of each kind; all pairs are compared with more time."""
MAKE = """
mkdir -p src/folder/sub; cd src; echo one > file; echo two > folder/inner; echo deep > folder/sub/deep
chmod 640 folder/inner; chmod 750 folder/sub; ln -s inner folder/link-inside; ln folder/inner folder/twin
ln -s folder link; ln -s file linked; ln -s /nowhere/else folder/dangling; touch -t 202001020304.05 folder/inner
cd ..
"""
PLACE = (
    "mkdir there; echo there > there/old; echo over > over; ln -s there to-there; ln -s new to-new; ln -s over to-over"
)


@pytest.fixture(scope="module")
def world(shared_busybox: Any) -> Iterator[Any]:
    """A daemon with a container that runs, with what is to be copied in /src."""
    shared_busybox.logd("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    shared_busybox.logd("exec", "box", "sh", "-ec", MAKE)
    yield shared_busybox
    shared_busybox.logd("rm", "-fv", "box")


def copy(world: Any, *arguments: str) -> int:
    """Copy in this process, and return the exit status."""
    error = failure(world, *arguments)
    return error.exit_code if error else 0


def failure(world: Any, *arguments: str) -> LogdError | None:
    done = CliRunner().invoke(cli, ["-H", world.host, "cp", *arguments], standalone_mode=False)
    assert done.exception is None or isinstance(done.exception, LogdError), done.exception
    return done.exception


def dockers_codes(world: Any, commands: list[str]) -> list[int]:
    """Run shell commands with `docker` in them, and return the exit status of each."""
    script = "\n".join(f"({command}) >/dev/null 2>&1; echo $?" for command in commands)
    done = subprocess.run(["sh", "-c", script], check=True, env=world.environment, capture_output=True, text=True)
    return [int(code) for code in done.stdout.split()]


def tree(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return all that is in a folder: kind, mode, time, whether there is another name for it, content."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        known = int(status.st_mtime) if path.name == "inner" else None
        found[str(path.relative_to(folder))] = (status.st_mode, known, status.st_nlink > 1, content)
    return found


def compare_out(world: Any, folder: Path, pairs: tuple[tuple[str, str], ...], *options: str) -> None:
    commands, places = [], []
    for number, pair in enumerate(pairs):
        ours, docker = (folder / f"{who}{number}" for who in ("ours", "docker"))
        for one in (ours, docker):
            one.mkdir()
            subprocess.run(["sh", "-c", PLACE], check=True, cwd=one)
        commands.append(f"cd {docker} && docker cp {' '.join(options)} box:/src/{pair[0]} {pair[1]}")
        places.append((pair, ours, docker))
    for (pair, ours, docker), code in zip(places, dockers_codes(world, commands), strict=True):
        status = copy(world, *options, f"box:/src/{pair[0]}", f"{ours}/{pair[1]}")
        assert (pair, status, tree(ours)) == (pair, code, tree(docker))


def compare_in(world: Any, folder: Path, pairs: tuple[tuple[str, str], ...], *options: str) -> None:
    subprocess.run(["sh", "-ec", f"{MAKE}"], check=True, cwd=folder)
    names = [f"{who}{number}" for who in ("ours", "docker") for number in range(len(pairs))]
    made = "; ".join(f"mkdir -p /to/{name}; cd /to/{name}; {PLACE}" for name in names)
    world.logd("exec", "box", "sh", "-ec", f"rm -rf /to; {made}")
    commands = [
        f"cd {folder} && docker cp {' '.join(options)} src/{source} box:/to/docker{number}/{destination}"
        for number, (source, destination) in enumerate(pairs)
    ]
    for number, (pair, code) in enumerate(zip(pairs, dockers_codes(world, commands), strict=True)):
        status = copy(world, *options, f"{folder}/src/{pair[0]}", f"box:/to/ours{number}/{pair[1]}")
        assert (pair, status) == (pair, code)
    shown = (
        "find . -exec stat -c '%n %f %u %g %h' {} + | sort; find . -name inner | xargs stat -c %Y; grep -r . . | sort"
    )
    script = "; ".join(f"echo {name}; cd /to/{name}; {shown}" for name in names)
    ours, docker = world.logd("exec", "box", "sh", "-c", script).stdout.split("docker0\n")
    assert [line for line in ours.splitlines() if not line.startswith("ours")] == [
        line for line in docker.splitlines() if not line.startswith("docker")
    ]


def test_what_comes_out_is_where_docker_puts_it(world: Any, tmp_path: Path) -> None:
    compare_out(world, tmp_path, SAMPLE)


def test_what_goes_in_is_where_docker_puts_it(world: Any, tmp_path: Path) -> None:
    compare_in(world, tmp_path, SAMPLE)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", [(), ("-L",), ("-a",)], ids=str)
@pytest.mark.parametrize("compare", [compare_out, compare_in])
def test_all_pairs_of_paths_are_where_docker_puts_them(
    world: Any, tmp_path: Path, compare: Callable[..., None], options: tuple[str, ...]
) -> None:
    compare(
        world, tmp_path, tuple((source, destination) for source in SOURCES for destination in DESTINATIONS), *options
    )


def test_a_link_is_followed_where_that_is_asked_for(world: Any, tmp_path: Path) -> None:
    assert copy(world, "-L", "box:/src/link", str(tmp_path)) == 0
    assert (tmp_path / "link" / "inner").read_bytes() == b"two\n"
    assert copy(world, "-L", str(tmp_path / "link" / "link-inside"), "box:/") == 0
    assert world.logd("exec", "box", "cat", "/link-inside").stdout == "two\n"


def test_an_archive_comes_and_goes_in_a_pipe(world: Any, tmp_path: Path) -> None:
    command = f"logd cp box:/src/folder - | tee {tmp_path}/a.tar | logd cp - box:/copy"
    world.logd("exec", "box", "mkdir", "/copy")
    environment = {
        **world.environment,
        "LOGD_HOST": world.host,
        "PATH": f"{Path(os.sys.executable).parent}:{os.environ['PATH']}",
    }
    subprocess.run(["sh", "-ec", command], check=True, env=environment)
    with tarfile.open(tmp_path / "a.tar") as sent:
        assert "folder/sub/deep" in sent.getnames()
    assert world.logd("exec", "box", "cat", "/copy/folder/inner").stdout == "two\n"
    assert "must be a directory" in str(failure(world, "-", "box:/src/file"))


def test_with_a_what_goes_in_belongs_to_the_containers_user(world: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    os.chown(tmp_path / "file", 1234, 1234)
    world.logd("create", "--name", "owned", "-u", "77:78", "busybox", "stat", "-c", "%u:%g", "/file")
    for options, owner in (((), "1234:1234"), (("-a",), "77:78")):
        assert copy(world, *options, str(tmp_path / "file"), "owned:/") == 0
        assert world.docker("start", "-a", "owned").stdout.strip() == owner
    world.logd("rm", "owned")


def test_what_can_not_be_copied_is_said_with_its_name(world: Any, tmp_path: Path) -> None:
    for arguments, code, words in (
        (("a:/x", "b:/y"), 125, "copying between containers is not supported"),
        (("/x", "/y"), 125, "must specify at least one container source"),
        (("", "box:/"), 125, "source can not be empty"),
        (("nobody:/x", str(tmp_path)), 1, "No such container: nobody"),
        (("box:/src/not", str(tmp_path)), 1, "Could not find the file /src/not"),
        ((str(tmp_path / "no\nlogd: fine"), "box:/"), 1, "no^Jlogd: fine: No such file"),
        (("box:/src/file", str(tmp_path / "no/such/x")), 1, "/no/such does not exist"),
    ):
        error = failure(world, *arguments)
        assert error is not None
        assert (error.exit_code, words in str(error)) == (code, True), error


# What a container sends


def archive(*members: tuple[str, bytes, str | bytes]) -> io.BytesIO:
    """Return a tar of (name, kind, content or target)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, value in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o7777
            if isinstance(value, bytes):
                member.size = len(value)
                tar.addfile(member, io.BytesIO(value))
            else:
                member.linkname = value
                tar.addfile(member)
    file.seek(0)
    return file


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """A folder to copy to, beside a secret, with a link that leads to the folder of the secret."""
    (tmp_path / "yard").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (tmp_path / "yard" / "way-out").symlink_to("../outside")
    (tmp_path / "yard" / "to-secret").symlink_to("../outside/secret")
    return tmp_path / "yard"


def send(yard: Path, *members: tuple[str, bytes, str | bytes]) -> None:
    unpack(archive(("top", tarfile.DIRTYPE, ""), *members), Place(str(yard), "."), has_name=True)


@pytest.mark.parametrize(
    "members",
    [
        (("top/../outside/new", tarfile.REGTYPE, b"evil"),),
        (("../outside/new", tarfile.REGTYPE, b"evil"),),
        (("top/way-out/new", tarfile.REGTYPE, b"evil"),),
        (("top/way-out/secret", tarfile.REGTYPE, b"evil"),),
        (("top/way-out", tarfile.DIRTYPE, ""), ("top/way-out/new", tarfile.REGTYPE, b"evil")),
        (("top/l", tarfile.SYMTYPE, "../outside"), ("top/l/new", tarfile.REGTYPE, b"evil")),
        (("top/l", tarfile.SYMTYPE, "/tmp"), ("top/l/sub", tarfile.DIRTYPE, "")),
        (("top/h", tarfile.LNKTYPE, "top/../outside/secret"),),
        (("top/h", tarfile.LNKTYPE, "top/way-out/secret"),),
        (("top/h", tarfile.LNKTYPE, "/etc/passwd"),),
        (("top/h", tarfile.LNKTYPE, "top"),),
        (("top", tarfile.SYMTYPE, "../outside"),),
    ],
    ids=lambda members: members[-1][0],
)
def test_nothing_is_written_or_linked_outside_of_the_destination(
    yard: Path, members: tuple[tuple[str, bytes, str | bytes], ...]
) -> None:
    before = tree(yard.parent / "outside")
    with pytest.raises(LogdError):
        send(yard, *members)
    assert tree(yard.parent / "outside") == before
    assert not any(path.is_file() and path.stat().st_nlink > 1 for path in yard.iterdir())


def test_a_file_takes_the_place_of_a_link_and_leaves_what_it_leads_to(yard: Path) -> None:
    send(yard, ("top/to-secret", tarfile.REGTYPE, b"new"), ("top/again", tarfile.LNKTYPE, "top/to-secret"))
    assert (yard / "to-secret").read_bytes() == (yard / "again").read_bytes() == b"new"
    assert (yard.parent / "outside" / "secret").read_text() == "secret"


def test_nobody_gets_rights_or_devices_from_a_container(yard: Path) -> None:
    with pytest.raises(LogdError, match=r"left out, as devices.*/yard/device and 1 more"):
        send(
            yard,
            ("top/tool", tarfile.REGTYPE, b"#!"),
            ("top/device", tarfile.BLKTYPE, ""),
            ("top/fifo", tarfile.FIFOTYPE, ""),
            ("top/last", tarfile.REGTYPE, b"last"),
        )
    assert stat.S_IMODE((yard / "tool").stat().st_mode) == 0o777
    assert {path.name for path in yard.iterdir()} == {"tool", "last", "way-out", "to-secret"}


def test_a_damaged_archive_is_told_of(yard: Path) -> None:
    for data in (b"x" * 10240, archive(("top/a", tarfile.REGTYPE, b"content" * 1000)).getvalue()[:2000]):
        with pytest.raises(LogdError, match="archive from the container is damaged"):
            unpack(io.BytesIO(data), Place(str(yard), "."), has_name=True)
    endless = tarfile.TarInfo("top/a")
    endless.pax_headers = {"mtime": "inf"}
    with pytest.raises(LogdError, match="archive from the container is damaged"):
        unpack(io.BytesIO(endless.tobuf(tarfile.PAX_FORMAT)), Place(str(yard), "."), has_name=True)
    with pytest.raises(LogdError, match=r"a\^\[\]0;evil\^G"):
        send(yard, ("top/a\x1b]0;evil\a/../b", tarfile.REGTYPE, b""))


# Paths


def test_a_path_with_a_colon_is_one_of_this_machine_if_it_begins_so() -> None:
    assert parse_side("source", "web:/etc") == ("web", "/etc")
    for word in ("/a:b", "./a:b", "../a:b", "a", "-"):
        assert parse_side("source", word) == ("", word)
    with pytest.raises(InvalidParameter, match="destination can not be empty"):
        parse_side("destination", "")


def test_the_end_of_a_path_stays_when_it_is_tidied() -> None:
    assert [absolute(path, "/w") for path in ("a", "a/", "a/.", "a/./", ".", "..", "a/..", "/", "//x//y")] == [
        "/w/a", "/w/a/", "/w/a/.", "/w/a/.", "/w/.", "/", "/w", "/", "/x/y",
    ]  # fmt: skip
    assert [name_of(path) for path in ("/w/a", "/w/a/", "/w/.", "/")] == ["a", "a", ".", "."]


def test_a_source_has_one_place_for_each_kind_of_destination() -> None:
    assert place("a", is_folder=True, destination="/d", kind="folder") == ("/d", "a")
    assert place(".", is_folder=True, destination="/d/new", kind=None) == ("/d", "new")
    with pytest.raises(LogdError, match="cannot copy directory: /d is a file"):
        place("a", is_folder=True, destination="/d", kind="file")
    with pytest.raises(LogdError, match="no such directory: /d/"):
        place("a", is_folder=False, destination="/d/", kind=None)


def test_a_file_that_becomes_shorter_is_not_sent_as_if_it_were_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100_000)
    pieces = pack(str(file), "file", follow=False)
    next(pieces)
    file.write_bytes(b"")
    with pytest.raises(LogdError, match="became shorter"):
        list(pieces)

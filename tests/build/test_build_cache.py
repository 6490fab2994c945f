"""What was built before is taken if all that goes into it is the same: names, modes, contents, arguments, settings."""

import gzip
import io
import os
import tarfile


def hits(done) -> list:
    """For each step whether it was taken from the cache."""
    return [" ---> Using cache" in step for step in done.stdout.split("\nStep ")[1:]]


def test_files_count_by_name_mode_and_content_and_not_by_time(builds):
    text = "FROM scratch\nCOPY f g /to/\nENV A=1\n"
    files = {"f": "one", "g": "two"}
    assert hits(builds.build(text, files=files)) == [False, False, False]
    first = builds.daemon.docker("inspect", "-f", "{{.Id}}", "built").stdout
    os.utime(builds.folder / "f")
    assert hits(builds.build(None)) == [False, True, True]
    assert builds.daemon.docker("inspect", "-f", "{{.Id}}", "built").stdout == first
    (builds.folder / "f").write_text("onE")
    assert hits(builds.build(None)) == [False, False, False]
    (builds.folder / "f").write_text("one")
    assert hits(builds.build(None)) == [False, True, True]
    (builds.folder / "g").chmod(0o600)
    assert hits(builds.build(None)) == [False, False, False]
    assert hits(builds.build("FROM scratch\nCOPY f g /else/\nENV A=1\n")) == [False, False, False]


def test_archives_count_by_what_is_in_them(builds):
    def archive(content: bytes) -> bytes:
        with io.BytesIO() as output:
            with tarfile.open(fileobj=output, mode="w") as tar:
                member = tarfile.TarInfo("x")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            return output.getvalue()

    text = "FROM scratch\nADD a.tar /to/\n"
    assert hits(builds.build(text, files={"a.tar": archive(b"1")})) == [False, False]
    assert hits(builds.build(text, files={"a.tar": archive(b"1")})) == [False, True]
    assert hits(builds.build(text, files={"a.tar": archive(b"2")})) == [False, False]


def test_commands_count_by_the_arguments_that_they_see(builds):
    text = "FROM busybox\nARG A=1\nRUN echo $A > /a\nENV B=2\n"
    assert hits(builds.build(text)) == [False, False, False, False]
    assert hits(builds.build(text, "--build-arg", "A=1", "--build-arg", "http_proxy=p")) == [False, True, True, True]
    assert hits(builds.build(text, "--build-arg", "A=2")) == [False, True, False, False]
    assert hits(builds.build(text)) == [False, True, True, True]
    assert hits(builds.build(text, "--no-cache")) == [False, False, False, False]


def test_a_context_comes_as_an_archive_or_a_dockerfile_alone(builds):
    with io.BytesIO() as output:
        with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in {"sub/Other": b"FROM scratch\nCOPY f /f\nENV FROM=tar\n", "f": b"x"}.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        archive = output.getvalue()
    done = builds.daemon.docker(
        "build", "-t", "built", "-f", "sub/Other", "-", stdin=gzip.compress(archive), text=False
    )
    assert b"Successfully tagged built:latest" in done.stdout
    assert "FROM=tar" in builds.config()["Env"]
    builds.build(None, stdin="FROM scratch\nENV FROM=stdin\n")
    assert "FROM=stdin" in builds.config()["Env"]
    builds.write({"f": "x"})
    builds.build(None, "-f", "-", stdin="FROM scratch\nCOPY f /f\nENV FROM=both\n")
    assert "FROM=both" in builds.config()["Env"]
    assert builds.left() == []


def test_what_is_no_context_is_refused(builds):
    def context(name: str, data: bytes, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
        with io.BytesIO() as output:
            with tarfile.open(fileobj=output, mode="w") as tar:
                member = tarfile.TarInfo(name)
                member.size, member.type, member.linkname = len(data), kind, target
                tar.addfile(member, io.BytesIO(data))
            return output.getvalue()

    post, empty = builds.post, context("x", b"")
    assert post("", empty)[0] == 400
    assert post("", b"no archive at all, but long enough to be looked at" * 20)[0] == 400
    assert b"no such file" in post("", empty)[1]
    assert b"Cannot locate specified Dockerfile: ../../etc/passwd" in post("dockerfile=../../etc/passwd", empty)[1]
    assert b"no such file" in post("", context("Dockerfile", b"", tarfile.SYMTYPE, "/etc/passwd"))[1]
    assert b"is longer than" in post("", context("Dockerfile", b"#" * (256 << 10) + b"\n"))[1]
    assert b"is longer than" in post("", context(".dockerignore", b"x\n" * (1 << 16)))[1]
    assert post("version=2", empty)[0] == 501
    assert post("remote=http://x/y", empty)[0] == 501
    assert post("t=a@sha256:" + "0" * 64, empty)[0] == 400
    assert post("buildargs=[", empty)[0] == 400
    assert builds.left() == []


def test_variables_that_double_each_other_are_bounded(builds):
    lines = "".join(f"ENV A{number + 1}=$A{number}$A{number}\n" for number in range(30))
    said = builds.fails(f"FROM scratch\nENV A0=0123456789\n{lines}")
    assert "variables make a text longer than" in said or "the settings of the image are longer than" in said

"""How builds end: with a program that runs, with a client that goes away, with a daemon that is killed."""

import io
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

LONG = "FROM busybox\nRUN echo running; sleep 98765\n"
PROGRAM = """
#include <stdio.h>
int main(int argc, char **argv) { printf("hello from %s, %d\\n", WHERE, argc); return 42; }
"""
DOCKERFILE = """
FROM compiler AS build
ARG WHERE=nowhere
WORKDIR /src
COPY hello.c .
RUN tcc "-DWHERE=\\"$WHERE\\"" -o /out/hello hello.c

FROM scratch
COPY --from=build /lib64 /lib64
COPY --from=build /lib/x86_64-linux-gnu/libc.so.6 /lib/x86_64-linux-gnu/
COPY --from=build --chown=1000:1000 /out/hello /bin/hello
USER 1000
ENTRYPOINT ["/bin/hello"]
CMD ["one"]
"""


def compiler(busybox_tar: bytes) -> bytes:
    """A root file system with a C compiler (Debian's tcc and libc6-dev) on the host's busybox."""
    tcc = shutil.which("tcc")
    assert tcc is not None, "the tests need tcc (make test installs it)"
    listing = subprocess.run(["ldd", tcc], check=True, capture_output=True, text=True).stdout
    libraries = [word for word in listing.split() if word.startswith("/")]
    folder = Path("/usr/lib/x86_64-linux-gnu")
    parts = [
        folder / name
        for name in ("crt1.o", "crti.o", "crtn.o", "ld-linux-x86-64.so.2", "libc.so", "libc_nonshared.a", "tcc")
    ]
    headers = [Path("/usr/include") / name for name in ("stdio.h", "features.h", "features-time64.h", "stdc-predef.h")]
    headers += [Path("/usr/include/x86_64-linux-gnu") / name for name in ("bits", "gnu", "sys/cdefs.h")]
    output = io.BytesIO(busybox_tar)
    with tarfile.open(fileobj=output, mode="a", format=tarfile.PAX_FORMAT, dereference=True) as archive:
        for name in (tcc, *libraries, *parts, *headers):
            archive.add(str(name))
        out = tarfile.TarInfo("out")
        out.type, out.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(out)
    return output.getvalue()


def until(condition, what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"not within 30 s: {what}"
        time.sleep(0.05)


def test_a_program_is_compiled_in_one_stage_and_runs_in_another(builds, busybox_tar):
    docker = builds.daemon.docker
    docker("import", "-", "compiler", stdin=compiler(busybox_tar), text=False)
    first = builds.build(DOCKERFILE, "--build-arg", "WHERE=here", files={"hello.c": PROGRAM})
    assert "Using cache" not in first.stdout
    done = docker("run", "--rm", "built", check=False)
    assert (done.stdout, done.returncode) == ("hello from here, 2\n", 42)
    second = builds.build(DOCKERFILE, "--build-arg", "WHERE=here")
    assert second.stdout.count("Using cache") == 10
    assert first.stdout.splitlines()[-2:] == second.stdout.splitlines()[-2:]
    third = builds.build(DOCKERFILE, "--build-arg", "WHERE=there")
    assert third.stdout.count("Using cache") == 5
    assert docker("run", "--rm", "built", "a", "b", check=False).stdout == "hello from there, 3\n"


def running(builds) -> "subprocess.Popen[bytes]":
    """A build whose command has begun."""
    builds.write({"Dockerfile": LONG})
    client = builds.daemon.docker_popen("build", str(builds.folder), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert client.stdout is not None
    while b"running" not in (line := client.stdout.readline()) or b"RUN" in line:
        assert line, "the build ended"
    return client


def test_a_client_that_goes_away_ends_the_command_and_its_container_goes(builds):
    with running(builds) as client:
        client.send_signal(signal.SIGKILL)
    until(lambda: not builds.containers() and not builds.left(), "container and context are gone")
    until(lambda: b"sleep\x0098765" not in commands(), "the command ends")


def test_a_killed_daemon_removes_what_builds_have_left_when_it_is_back(builds):
    with running(builds):
        builds.daemon.kill()
    builds.daemon.start()
    assert builds.containers() == builds.left() == []
    assert b"sleep\x0098765" not in commands()
    assert builds.daemon.mounts() == []
    builds.build("FROM busybox\nRUN echo again\n")


def commands() -> bytes:
    """The command lines of all processes."""
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes()
        except OSError:
            continue
    return found

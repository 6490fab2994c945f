"""The unmodified docker command line and a real daemon: load, run, tag, history, images, rmi, prune."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from image_archives import Picture, docker_save_old, file, folder, layout_members, pack, tar

RUN = {"Cmd": ["cat", "/greeting"], "Env": ["A=from the image"], "WorkingDir": "/tmp", "User": "1000:1000"}


@pytest.fixture(scope="module")
def shared(make_module_daemon: Callable[..., Any]) -> Any:
    return make_module_daemon().start()


@pytest.fixture
def daemon(shared: Any) -> Iterator[Any]:
    """A daemon that has no image before a test, nor after it."""
    yield shared
    if images := shared.docker("images", "-q").stdout.split():
        shared.docker("rmi", "--force", *set(images))


def image_on(busybox_tar: bytes, tags: list[str]) -> Picture:
    greeting = tar(folder("tmp", mode=0o1777), file("greeting", b"hello\n", mode=0o444))
    return Picture([busybox_tar, greeting], run=RUN, tags=tags)


def test_a_loaded_image_runs_with_its_config(daemon: Any, busybox_tar: bytes) -> None:
    one = image_on(busybox_tar, ["greet:1"])
    for data in (docker_save_old(one, squeeze="gzip"), pack(layout_members(one, squeeze="zstd"))):
        said = daemon.docker("load", stdin=data, text=False)
        assert b"Loaded image: greet:1" in said.stdout
    assert daemon.docker("run", "--rm", "greet:1").stdout == "hello\n"
    command = 'echo "$A $(pwd) $(id -u)"; rm -f /greeting || echo kept'
    assert daemon.docker("run", "--rm", "greet:1", "sh", "-c", command).stdout == "from the image /tmp 1000\nkept\n"


def test_docker_shows_tags_and_removes_images(daemon: Any, busybox_tar: bytes) -> None:
    one = image_on(busybox_tar, ["greet:1"])
    daemon.docker("load", stdin=docker_save_old(one), text=False)
    daemon.docker("tag", "greet:1", "localhost:5000/team/greet:2")
    listed = daemon.docker("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout.split("\n")
    assert sorted(listed) == ["", f"greet:1 {one.id}", f"localhost:5000/team/greet:2 {one.id}"]
    shown = json.loads(daemon.docker("image", "inspect", "greet:1").stdout)[0]
    assert shown["RootFS"]["Layers"] == one.diff_ids
    history = daemon.docker("history", "--format", "{{.CreatedBy}} {{.Size}}", "greet:1").stdout.split("\n")
    assert history[0] == "step 1 6B"

    refused = daemon.docker("rmi", one.id, check=False)
    assert "must be forced) - image is referenced in multiple repositories" in refused.stderr
    daemon.docker("create", "--name", "keeper", "greet:1")
    assert daemon.docker("rmi", "greet:1").stdout == "Untagged: greet:1\n"
    refused = daemon.docker("rmi", "localhost:5000/team/greet:2", check=False)
    assert "(must force) - container" in refused.stderr
    daemon.docker("rmi", "--force", "localhost:5000/team/greet:2")
    assert daemon.docker("images", "-q").stdout == ""
    assert daemon.docker("start", "--attach", "keeper").stdout == "hello\n"
    daemon.docker("rm", "keeper")
    deadline = time.monotonic() + 10
    while list((daemon.data_root / "images/l").iterdir()):
        assert time.monotonic() < deadline, "the layers go with the last container that has them"
        time.sleep(0.02)


def test_a_bad_archive_is_told_to_the_person(daemon: Any) -> None:
    failed = daemon.docker(
        "import", "-", "evil:1", stdin=tar(file("../../etc/cron.d/x", b"* * * * *")), text=False, check=False
    )
    assert failed.returncode != 0
    assert b"entry '../../etc/cron.d/x' has '..' in it" in failed.stderr
    failed = daemon.docker("load", stdin=tar(file("x")), text=False, check=False)
    assert b"neither of `docker save` nor an OCI image layout" in failed.stderr
    assert daemon.docker("images", "-q").stdout == ""


def test_prune_gives_back_what_nothing_uses(busybox: Any, busybox_tar: bytes) -> None:
    busybox.docker("load", stdin=docker_save_old(image_on(busybox_tar, [])), text=False)
    assert "Total reclaimed space: 6B" in busybox.docker("image", "prune", "--force").stdout
    assert busybox.docker("images", "--format", "{{.Repository}}").stdout == "busybox\n"

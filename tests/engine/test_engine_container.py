"""A container's state, its waiters and its file."""

import asyncio
import os

import pytest
from engine_samples import make_container, make_record

from logd.container import (
    FILE_NAME,
    VERSION,
    Container,
    MountPoint,
    State,
    UnreadableRecord,
    decode,
    encode,
    read_record,
    write_record,
)
from logd.mounted import Bind, Tmpfs, Volume


def test_a_record_comes_back_from_its_file_as_it_was(tmp_path):
    record = make_record(
        run=3,
        state=State(running=True, pid=42, started_ns=7, signal=9),
        mounts=[MountPoint("volume", "/v/_data", "/data", name="v", driver="local")],
        plan=[Volume("/data", "v", anonymous=True), Bind("/h", "/b", propagation="slave"), Tmpfs("/t", ("ro",))],
    )
    folder = tmp_path / record.id
    folder.mkdir()
    write_record(folder, encode(record))
    assert read_record(folder) == record
    assert (folder / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert os.listdir(folder) == [FILE_NAME]


def test_a_file_of_a_newer_version_is_refused_with_the_versions_named():
    newer = encode(make_record()).replace(b'"version": 2', b'"version": 4')
    with pytest.raises(
        UnreadableRecord, match=rf"^x.json: version 4, written by a newer logd \(this one reads {VERSION}\)"
    ):
        decode(newer, "x.json")


def test_the_record_of_an_older_logd_has_no_plan_and_all_its_volumes_go_with_the_container(tmp_path):
    mounts = [MountPoint("volume", "/v/_data", "/data", name="v", driver="local")]
    data = encode(make_record(mounts=mounts)).replace(b'"version": 2', b'"version": 1').replace(b'"plan": null,', b"")
    container = Container(decode(data, "x"), tmp_path, tmp_path)
    assert container.plan is None
    assert container.anonymous_volumes == container.volume_names == ["v"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"version": 1}', b'{"version": 1, "id": 5}'])
def test_a_damaged_file_is_named(data):
    with pytest.raises(UnreadableRecord, match=r"^/c/container.json: "):
        decode(data, "/c/container.json")


def test_fields_of_a_later_logd_with_the_same_version_are_passed_over():
    data = encode(make_record()).replace(b'"version": 2,', b'"version": 2, "later": {"a": 1},')
    assert decode(data, "x") == make_record()


def test_a_file_in_another_containers_folder_is_refused(tmp_path):
    folder = tmp_path / ("e" * 64)
    folder.mkdir()
    write_record(folder, encode(make_record()))
    with pytest.raises(UnreadableRecord, match="is of container 0123456789ab"):
        read_record(folder)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    record = make_record()
    write_record(tmp_path, encode(record))
    (tmp_path / f"{FILE_NAME}.tmp").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_record(tmp_path, encode(make_record(name="other")))
    assert decode((tmp_path / FILE_NAME).read_bytes(), "") == record


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State(), "created"),
        (State(error="no such file", exit_code=127), "created"),
        (State(running=True, started_ns=1), "running"),
        (State(running=True, paused=True, started_ns=1), "paused"),
        (State(started_ns=1, finished_ns=2), "exited"),
        (State(started_ns=1, removing=True), "removing"),
        (State(dead=True), "dead"),
    ],
)
def test_a_state_has_dockers_word(state, status):
    assert state.status == status


async def test_waiting_for_not_running_is_over_where_nothing_runs(tmp_path):
    container = make_container(tmp_path, state=State(started_ns=1, exit_code=7))
    assert await container.wait("not-running") == 7


async def test_waiters_are_told_at_the_exit_and_those_for_the_removal_at_the_removal(tmp_path):
    container = make_container(tmp_path, state=State(running=True, started_ns=1))
    not_running, next_exit, removed = (container.wait(one) for one in ("not-running", "next-exit", "removed"))
    container.state.running, container.state.exit_code = False, 3
    container.tell_waiters()
    assert [not_running.result(), next_exit.result(), removed.done()] == [3, 3, False]
    container.removed = True
    container.tell_waiters(removed=True)
    assert removed.result() == 3


async def test_waiting_for_the_next_exit_ends_with_the_removal_of_a_container_that_never_ran(tmp_path):
    container = make_container(tmp_path)
    waiter = container.wait("next-exit")
    container.tell_waiters(removed=True)
    assert waiter.result() == 0


async def test_a_start_that_fails_is_no_exit_for_those_who_wait_for_the_next_one(tmp_path):
    container = make_container(tmp_path, state=State(running=True, restarting=True, started_ns=1))
    not_running, next_exit = container.wait("not-running"), container.wait("next-exit")
    container.tell_waiters(exited=False)
    assert [not_running.done(), next_exit.done()] == [True, False]
    container.tell_waiters()
    assert next_exit.done()


async def test_while_the_output_is_being_stored_a_waiter_still_waits(tmp_path):
    container = make_container(tmp_path, state=State(started_ns=1))
    container.settling = True
    waiter = container.wait("not-running")
    assert not waiter.done()
    container.settling = False
    container.tell_waiters()
    assert waiter.done()


async def test_a_waiter_that_gave_up_is_forgotten(tmp_path):
    container = make_container(tmp_path, state=State(running=True))
    waiter = container.wait("next-exit")
    waiter.cancel()
    await asyncio.sleep(0)
    container.tell_waiters()
    assert waiter.cancelled()

"""`userns-remap` and the files of subordinate ids: what they mean, and what is said of mistakes."""

import re

import pytest

from logd.errors import InvalidParameter
from logd.idmap import OVERFLOW, IdRange, consecutive, inside, is_mapped, outside
from logd.runtime.subids import Owner, load, owners, parse

ALICE = Owner("alice", frozenset({"alice", "1001"}))


@pytest.fixture
def files(tmp_path):
    """Write both files and return their paths."""

    def write(subuid, subgid=None):
        paths = tmp_path / "subuid", tmp_path / "subgid"
        for path, text in zip(paths, (subuid, subuid if subgid is None else subgid), strict=True):
            path.write_text(text)
        return paths

    return write


def test_several_ranges_are_joined_in_their_order_and_other_lines_are_not_looked_at():
    text = "bob:1:2\nalice:300000:10\n\n# alice:9\nbroken\n1001:200000:5\nalice2:1:1\n"
    assert parse(text, ALICE, "f") == [(300000, 10), (200000, 5)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("alice:100000", "f, line 2: 'alice:100000' is not name:first:count"),
        ("alice:x:5", "'alice:x:5' is not name:first:count"),
        ("alice:-5:5", "'alice:-5:5' is not name:first:count"),
        ("alice:100000:0", "100000:0 are not ids from 1 to 4294967294"),
        ("alice:0:65536", "0:65536 are not ids from 1 to 4294967294 (0 is the host's root)"),
        ("alice:4294967290:10", "4294967290:10 are not ids"),
        ("alice:5:1\nalice:1:10", "f, line 3: 1:10 has ids that alice has already"),
    ],
)
def test_a_wrong_line_is_named(line, words):
    with pytest.raises(InvalidParameter, match=re.escape(words)):
        parse(f"bob:1:2\n{line}\n", ALICE, "f")


def test_more_ranges_than_a_namespace_can_have_are_refused():
    text = "".join(f"alice:{number}:1\n" for number in range(1, 200))
    with pytest.raises(InvalidParameter, match="199 ranges of alice"):
        parse(text, ALICE, "f")


@pytest.mark.parametrize(
    ("value", "user", "group"),
    [
        ("default", "dockremap", "dockremap"),
        ("alice", "alice", "alice"),
        ("alice:staff-of-alice", "alice", "staff-of-alice"),
        ("12345", "12345", "12345"),
        ("12345:54321", "12345", "54321"),
    ],
)
def test_each_form_of_the_setting_names_a_user_and_a_group(value, user, group):
    found = owners(value)
    assert [one.name for one in found] == [user, group]
    assert [one.name in one.keys for one in found] == [True, True]


def test_a_user_whom_the_host_knows_is_found_by_name_and_by_number():
    by_name, by_number = owners("daemon")[0], owners("1:1")[0]
    assert by_name.keys == by_number.keys == {"daemon", "1"}


@pytest.mark.parametrize("value", [":", "a:", ":b", "a:b:c", "a b", "a\n"])
def test_another_form_is_refused_with_those_that_are_accepted(value):
    with pytest.raises(InvalidParameter, match="accepted: default, USER, USER:GROUP, UID or UID:GID"):
        owners(value)


def test_root_and_nothing_are_no_mapping(files):
    assert [load(value, *files("root:1:5\n")) for value in ("", "root", "0")] == [None, None, None]


def test_users_and_groups_have_mappings_of_their_own(files):
    idmap = load("alice:crowd", *files("alice:100000:10\nalice:500:90\n", "crowd:7000:200\nalice:1:1\n"))
    assert idmap.uids == (IdRange(0, 100000, 10), IdRange(10, 500, 90))
    assert idmap.gids == (IdRange(0, 7000, 200),)
    assert idmap.root == (100000, 7000)


def test_missing_ids_are_told_with_the_line_to_add(files, tmp_path):
    subuid, subgid = files("alice:100000:65536\n", "")
    with pytest.raises(InvalidParameter, match=rf"{subgid} has no ids for alice: add a line like alice:100000:65536"):
        load("alice", subuid, subgid)
    with pytest.raises(InvalidParameter, match="nothing-here has no ids for dockremap"):
        load("default", tmp_path / "nothing-here", subgid)


def test_an_id_goes_out_and_back_and_one_that_is_not_mapped_is_nobodys():
    ranges = consecutive([(100000, 10), (500, 90)])
    assert [outside(ranges, number) for number in (0, 9, 10, 99)] == [100000, 100009, 500, 589]
    assert [inside(ranges, outside(ranges, number)) for number in range(100)] == list(range(100))
    assert [inside(ranges, number) for number in (0, 499, 590, 100010)] == [OVERFLOW] * 4
    assert is_mapped(ranges, 99)
    assert not is_mapped(ranges, 100)
    with pytest.raises(ValueError, match="Container ID 100 cannot be mapped"):
        outside(ranges, 100)

"""Users and groups are those of the container's own files, in Docker's sense."""

import os

import pytest

from logd.errors import InvalidParameter
from logd.runtime.users import User, lookup, resolve_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# no entry
alice:x:1000:100::/home/alice:/bin/sh
1000:x:7:7::/seven:
:::
short:x:1
"""
GROUP = b"root:x:0:\nwheel:x:10:root,alice\nusers:x:100:\nstaff:x:50:alice\nnobody\n"


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, (0, 10), "/root")),
        ("alice", User(1000, 100, (100, 10, 50), "/home/alice")),
        ("1000", User(1000, 100, (100, 10, 50), "/home/alice")),  # a number is never a name
        ("alice:staff", User(1000, 50, (50,), "/home/alice")),
        ("alice:77", User(1000, 77, (77,), "/home/alice")),
        ("4321", User(4321, 0, (0,), "/")),
        ("4321:10", User(4321, 10, (10,), "/")),
        (":staff", User(0, 50, (50,), "/root")),
        ("alice:staff:x", User(1000, 50, (50,), "/home/alice")),
        ("2147483647", User(2147483647, 0, (0,), "/")),
    ],
)
def test_a_user_is_looked_up_as_docker_does(text, user):
    assert lookup(PASSWD, GROUP, text) == user


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bob", "unable to find user bob: no matching entries in passwd file"),
        ("alice:nope", "unable to find group nope: no matching entries in group file"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("1:2147483648", "uids and gids must be in range"),
        ("-1", "uids and gids must be in range"),
        ("4294967296", "uids and gids must be in range"),  # 2**32 is 0 in 32 bits
        ("99999999999999999999", "unable to find user"),
    ],
)
def test_a_user_that_can_not_be_is_refused(text, words):
    with pytest.raises(InvalidParameter, match=words):
        lookup(PASSWD, GROUP, text)


def test_an_entry_of_the_file_may_not_exceed_the_range_either():
    with pytest.raises(InvalidParameter, match="range"):
        lookup(b"evil:x:4294967296:0::/:\n", b"", "evil")


def test_groups_are_added():
    assert lookup(PASSWD, GROUP, "alice:staff", ["wheel", "5"]).groups == (50, 10, 5)
    with pytest.raises(InvalidParameter, match="Unable to find group x: no matching entries in group file"):
        lookup(PASSWD, GROUP, "alice", ["x"])


def test_a_passwd_that_leads_outside_is_looked_up_inside(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "outside").write_text("spy:x:1:1::/:\n")
    (tmp_path / "etc/passwd").symlink_to("/etc/real")
    (tmp_path / "etc/real").write_text("mine:x:5:6::/m:\n")
    (tmp_path / "etc/group").symlink_to("../../../../../../etc/group-elsewhere")
    assert resolve_user(tmp_path, "mine") == User(5, 6, (6,), "/m")


def test_a_fifo_or_no_file_at_all_has_no_entries(tmp_path):
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    with pytest.raises(InvalidParameter, match="unable to find user root"):
        resolve_user(tmp_path, "root")
    assert resolve_user(tmp_path, "") == User(0, 0, (0,), "/")

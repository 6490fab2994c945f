"""Ids in extended attributes of a container with a user namespace, in both directions."""

import struct

import pytest

from logd.files.ids import Ids
from logd.idmap import OVERFLOW, IdMap, consecutive

IDS = Ids(IdMap(uids=consecutive([(100000, 1000)]), gids=consecutive([(200000, 1000)])))
RAW = 1 << 13
OF_ROOT = struct.pack("<5I", 0x0200_0001, RAW, 0, 0, 0)
ACL = "system.posix_acl_access"


def with_root(root):
    return struct.pack("<6I", 0x0300_0001, RAW, 0, 0, 0, root)


def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_capabilities_of_the_containers_root_are_to_the_host_those_of_its_user():
    assert IDS.attribute_outside("security.capability", OF_ROOT) == with_root(100000)
    assert IDS.attribute_inside("security.capability", with_root(100000)) == OF_ROOT
    assert IDS.attribute_outside("security.capability", with_root(5)) == with_root(100005)


def test_capabilities_that_have_no_effect_in_the_container_are_left_out():
    assert IDS.attribute_inside("security.capability", OF_ROOT) is None


def test_users_and_groups_of_an_acl_are_translated_and_nothing_else_of_it():
    inside = acl((1, 6, 0xFFFF_FFFF), (2, 7, 5), (4, 4, 0xFFFF_FFFF), (8, 5, 6), (32, 0, 0xFFFF_FFFF))
    outside = acl((1, 6, 0xFFFF_FFFF), (2, 7, 100005), (4, 4, 0xFFFF_FFFF), (8, 5, 200006), (32, 0, 0xFFFF_FFFF))
    assert IDS.attribute_outside(ACL, inside) == outside
    assert IDS.attribute_inside(ACL, outside) == inside
    assert IDS.attribute_inside(ACL, acl((2, 7, 1))) == acl((2, 7, OVERFLOW))
    with pytest.raises(ValueError, match="Container ID 5000 cannot"):
        IDS.attribute_outside(ACL, acl((2, 7, 5000)))


@pytest.mark.parametrize(("name", "value"), [("user.note", b"\x01"), (ACL, b"odd"), ("security.capability", b"short")])
def test_what_has_no_ids_stays_as_it_is(name, value):
    assert IDS.attribute_outside(name, value) == value


def test_without_a_mapping_everything_stays_as_it_is():
    assert Ids().inside(5, 6) == Ids().outside(5, 6) == (5, 6)
    assert Ids().attribute_outside("security.capability", OF_ROOT) == OF_ROOT

"""Files of the kernel that are opened once and read again and again."""

import os

import pytest

from logd.sampling.kept import Gone, KeptFile, KeptFiles, nothing, read_once


def test_every_read_gives_the_present_content_through_one_descriptor(tmp_path, descriptors):
    path = tmp_path / "usage"
    path.write_bytes(b"1\n")
    file = KeptFile(str(path))
    before = descriptors()
    assert file.read() == b"1\n"
    path.write_bytes(b"22\n")
    assert file.read() == b"22\n"
    assert descriptors() == before
    file.close()
    file.close()
    assert descriptors() == before - 1


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 4095, 4096, 4097, 8192, 100_000])
def test_a_file_of_any_size_is_read_whole_each_time(tmp_path, size):
    path = tmp_path / "memory.stat"
    content = os.urandom(size)
    path.write_bytes(content)
    file = KeptFile(str(path))
    assert file.read() == file.read() == content
    path.write_bytes(b"short")
    assert file.read() == b"short"
    file.close()


def test_a_file_that_the_kernel_gives_out_in_parts_is_read_whole():
    with open("/proc/self/maps", "rb") as own:  # in records, a page at once
        count = len(own.read().splitlines())
    assert len(read_once("/proc/self/maps")) > 4096
    assert abs(len(read_once("/proc/self/maps").splitlines()) - count) < 10


def test_the_descriptor_is_not_inherited(tmp_path):
    (tmp_path / "usage").write_bytes(b"1\n")
    file = KeptFile(str(tmp_path / "usage"))
    assert not os.get_inheritable(file._descriptor)
    file.close()


def test_a_file_of_a_removed_cgroup_is_gone(own_cgroup):
    folder = sorted(own_cgroup.folders)[0]
    file = KeptFile(str(folder / "cgroup.procs"))
    assert file.read() == b""
    own_cgroup.remove()
    with pytest.raises(Gone):
        file.read()
    file.close()


def test_a_file_that_this_host_does_not_have_is_empty_for_ever(tmp_path):
    files = KeptFiles()
    assert files.open(str(tmp_path / "memory.peak")) is nothing
    assert files.open(str(tmp_path / "no/such/folder")) is nothing
    assert (len(files), nothing(), read_once(str(tmp_path / "memory.peak"))) == (0, b"", b"")

"""The /dev/null that runtimes get: as good as the host's, and not the host's."""

import os
import stat

from logd.runtime.null import open_null


def test_it_takes_everything_and_gives_nothing_and_whose_it_is_is_no_concern_of_the_hosts() -> None:
    null, before = open_null(), os.stat(os.devnull)
    try:
        assert os.write(null, b"words") == 5
        assert os.read(null, 1) == b""
        status = os.fstat(null)
        assert (stat.S_ISCHR(status.st_mode), status.st_rdev) == (True, before.st_rdev)
        assert (status.st_dev, status.st_ino) != (before.st_dev, before.st_ino)
        os.fchown(null, 1000, 1000)
        again = os.open(f"/proc/self/fd/{null}", os.O_RDWR)
        assert os.read(again, 1) == b""
        os.close(again)
        after = os.stat(os.devnull)
        assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    finally:
        os.close(null)

"""Parts of networks that no host of a test is in, another one for each daemon and each process of tests."""

import itertools
import os

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2
_NUMBERS = range(os.getpid() % 128, 1 << 30)

POOLS = ({"base": f"10.213.{_WORKER * 128 + number % 128}.0/24", "size": 27} for number in _NUMBERS)
"""For networks that are made, and for a test's own links."""
WIDE_POOLS = ({"base": f"198.{18 + _WORKER}.{number % 16 * 16}.0/20", "size": 22} for number in itertools.count())
"""For default bridges: RFC 2544's network for tests, 1021 containers each."""

"""Parts of networks that no host of a test is in, another one for each daemon and each process of tests."""

import itertools
import os
from collections.abc import Iterator

WORKERS = 4
"""So many processes of tests may run at once."""
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS


def _shares(parts: int, first: int = 0) -> Iterator[int]:
    """Give the numbers of this process's share of so many parts of a network, over and over."""
    share = parts // WORKERS
    return (_WORKER * share + number % share for number in itertools.count(first))


POOLS = ({"base": f"10.213.{number}.0/24", "size": 27} for number in _shares(256, os.getpid()))
"""For networks that are made, and for a test's own links."""
WIDE_POOLS = ({"base": f"198.{18 + number // 16}.{number % 16 * 16}.0/20", "size": 22} for number in _shares(32))
"""For default bridges: RFC 2544's network for tests, 1021 containers each."""

"""What delivery does with a destination that fails for a while: nothing that is not to blame is set aside."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from logd.driver import Batch, CommonOptions, LogDriver, opt, whole
from logd.forward import destination
from logd.record import STDOUT
from logd.testing.bench import Bench


@dataclass(frozen=True, kw_only=True)
class FailingOptions(CommonOptions):
    failures: int = opt(whole(0))


class Failing(LogDriver[FailingOptions]):
    """Can always be opened; the first so many batches fail."""

    name = "failing"
    options_type = FailingOptions
    got: list[bytes]

    async def open(self) -> None:
        pass

    async def send(self, batch: Batch) -> None:
        self.count = getattr(self, "count", 0) + 1
        if self.count <= self.options.failures:
            raise ConnectionResetError("it hangs")
        Failing.got += [one.line for one in batch.records()]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("failures", range(4, 16))
async def test_no_record_is_set_aside_whenever_a_destination_that_failed_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    monkeypatch.setattr(destination, "FIRST_BACKOFF_S", 0.001)
    monkeypatch.setattr(destination, "LONGEST_BACKOFF_S", 0.001)
    Failing.got = []
    async with Bench(tmp_path, Failing, {"failures": str(failures)}) as bench:
        box = bench.container()
        box.prints((STDOUT, b"line %d" % number) for number in range(4))
        bench.deliver(box)
        await bench.finish()
        assert sorted(Failing.got) == [b"line 0", b"line 1", b"line 2", b"line 3"]
        assert box.account["dropped"] == {}

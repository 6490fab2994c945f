"""The conformance suite: a driver that is right passes, and each mistake is found by the test that is about it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

NAUGHTY = Path(__file__).with_name("naughty.py")
MISTAKES = {
    "Plain": "half_an_answer",  # lets an error out that is no OSError
    "DoesNotWait": "destination_that_hangs",
    "TakesHalfAnAnswer": "half_an_answer",
    "AcknowledgesTooSoon": "reset_in_the_middle",
    "TakesACancellationForSuccess": "destination_that_hangs",
    "KeepsAConnectionThatIsBroken": "destination_is_away",
    "LeavesOutEmptyLines": "odd_lines",
    "StripsLines": "odd_lines",
    "CutsLongLines": "long_line",
    "SplitsJoinedRecords": "record_joined",
    "MixesTheStreams": "both_streams",
    "TurnsBatchesRound": "both_streams",
    "SendsTwice": "both_streams",
    "RemembersTheFirstContainer": "share_the_destination",
}


class Run:
    """pytest as it runs. `outcome` returns the names of the tests by how they ended."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-q", "--tb=line", *arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=NAUGHTY.parent, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def outcome(self) -> dict[str, set[str]]:
        printed, _ = self._process.communicate(timeout=100)
        found: dict[str, set[str]] = {"PASSED": set(), "FAILED": set(), "ERROR": set()}
        for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) \S+?::(.*?)(?: - .*)?$", printed, re.MULTILINE):
            found[outcome].add(name)
        assert found["PASSED"] or found["FAILED"], printed
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def found() -> Iterator[tuple[dict[str, set[str]], dict[str, set[str]]]]:
    """What became of the driver that is right and of those with a mistake; most of it is waiting, so both at once."""
    words = " or ".join(f"(Test{driver} and {test})" for driver, test in MISTAKES.items())
    with closing(Run(f"{NAUGHTY}::TestRight")) as right, closing(Run(str(NAUGHTY), "-k", words)) as mistaken:
        yield right.outcome(), mistaken.outcome()


def test_a_driver_that_is_right_passes(found: tuple[dict[str, set[str]], ...]) -> None:
    right, _ = found
    assert right["FAILED"] | right["ERROR"] == set()
    assert len(right["PASSED"]) >= 30


@pytest.mark.parametrize(("driver", "test"), MISTAKES.items())
def test_a_mistake_is_found_by_the_test_that_is_about_it(
    found: tuple[dict[str, set[str]], ...], driver: str, test: str
) -> None:
    _, mistaken = found
    assert [one for one in mistaken["FAILED"] if one.startswith(f"Test{driver}::") and test in one]

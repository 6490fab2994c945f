"""The conformance suite: a driver that is right passes, and each mistake is found by the test that is about it."""

import re
import subprocess
import sys
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


def run(*arguments: str) -> dict[str, set[str]]:
    """Run pytest; return the names of the tests by their outcome."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-q", "--tb=line", *arguments]
    done = subprocess.run(command, check=False, cwd=NAUGHTY.parent, capture_output=True, text=True, timeout=100)
    found: dict[str, set[str]] = {"PASSED": set(), "FAILED": set(), "ERROR": set()}
    for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) \S+?::(.*?)(?: - .*)?$", done.stdout, re.MULTILINE):
        found[outcome].add(name)
    assert found["PASSED"] or found["FAILED"], done.stdout + done.stderr
    return found


def test_a_driver_that_is_right_passes() -> None:
    found = run(f"{NAUGHTY}::TestRight")
    assert found["FAILED"] | found["ERROR"] == set()
    assert len(found["PASSED"]) >= 30


@pytest.fixture(scope="module")
def mistaken() -> set[str]:
    words = " or ".join(f"(Test{driver} and {test})" for driver, test in MISTAKES.items())
    return run(str(NAUGHTY), "-k", words)["FAILED"]


@pytest.mark.parametrize(("driver", "test"), MISTAKES.items())
def test_a_mistake_is_found_by_the_test_that_is_about_it(mistaken: set[str], driver: str, test: str) -> None:
    assert [one for one in mistaken if one.startswith(f"Test{driver}::") and test in one]

"""Run cases in turns, and print minimum, median and maximum of what they measure, with the ratio to a peer's median."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

Measures = dict[str, float]
Case = tuple[str, Callable[[], Measures]]


class Results:
    """What a run of the benchmark has measured so far; printed and kept as JSON after every workload."""

    def __init__(self, path: Path, header: dict[str, str]) -> None:
        self.path = path
        self.kept: dict[str, object] = {"header": header, "workloads": {}}

    def interleave(
        self, title: str, cases: list[Case], rounds: int, goals: dict[str, list[tuple[str, str, float]]]
    ) -> None:
        """Measure each case `rounds` times, A B C A B C …

        `goals`: measure → [(our case, the peer's case, ratio)]; a negative ratio is "at most", a positive "at least".
        """
        rows: dict[str, dict[str, list[float]]] = {label: {} for label, _ in cases}
        for number in range(rounds):
            for label, measure in cases:
                try:
                    found = measure()
                except Exception as error:  # one engine that fails must not take the rest along; it is said below
                    rows[label].setdefault("failed", []).append(1.0)
                    print(f"{time.strftime('%H:%M:%S')} {label}: FAILED: {error}", file=sys.stderr, flush=True)
                    continue
                text = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
                print(f"{time.strftime('%H:%M:%S')} {number + 1}/{rounds} {label}: {text}", file=sys.stderr, flush=True)
                for name, value in found.items():
                    rows[label].setdefault(name, []).append(value)
        workloads = self.kept["workloads"]
        assert isinstance(workloads, dict)
        workloads[title] = rows
        self.path.write_text(json.dumps(self.kept, indent=1))
        print_table(title, rows, goals)


def print_table(
    title: str, rows: dict[str, dict[str, list[float]]], goals: dict[str, list[tuple[str, str, float]]]
) -> None:
    """Print one workload: a line a case and measure, then each goal with the ratio that was reached."""
    print(f"\n## {title}\n")
    print("| case | measure | min | median | max |\n|---|---|---:|---:|---:|")
    for label, measures in rows.items():
        for name, values in measures.items():
            print(f"| {label} | {name} | {min(values):.4g} | {statistics.median(values):.4g} | {max(values):.4g} |")
    for measure, wanted in goals.items():
        for ours, peer, goal in wanted:
            mine, theirs = rows.get(ours, {}).get(measure), rows.get(peer, {}).get(measure) if peer else [1.0]
            if not mine or not theirs:
                print(f"\n- {measure}: {ours} against {peer}: not measured")
                continue
            base = statistics.median(theirs)
            low, middle, high = (pick(mine) / base for pick in (min, statistics.median, max))
            kept = middle >= goal if goal > 0 else middle <= -goal
            word = "at least" if goal > 0 else "at most"
            against = f" / {peer}" if peer else ""
            verdict = "kept" if kept else "MISSED"
            reached = f"{middle:.3g} ({low:.3g} to {high:.3g})"
            print(f"\n- {measure}: {ours}{against} = {reached}; goal {word} {abs(goal)}: {verdict}")
    sys.stdout.flush()

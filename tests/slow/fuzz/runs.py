"""Runs of the fuzzing process, with a report that can reproduce every failure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT
from tests.slow.fuzz.worker import TARGETS, hex_dump

MOST_BREAKS = 10
"""Number of hanging or crashing processes that ends a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Input that failed, with a traceback or the exit of the process as `message`."""

    index: int
    kind: str
    message: str


@dataclass(slots=True, kw_only=True)
class Report:
    """Outcomes by kind of mutant, and the inputs that failed."""

    target: str
    tally: dict[str, Counter[str]] = field(default_factory=dict)
    largest_growth_bytes: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def n_inputs(self) -> int:
        return sum(outcomes.total() for outcomes in self.tally.values())

    def __str__(self) -> str:
        outcomes = sum(self.tally.values(), start=Counter())
        kinds = ", ".join(f"{kind} {outcomes.total()}" for kind, outcomes in self.tally.items())
        by_outcome = ", ".join(f"{outcome} {n}" for outcome, n in outcomes.most_common())
        return (
            f"{self.target}: {self.n_inputs} inputs, memory grew by {self.largest_growth_bytes >> 20} MiB at most\n"
            f"  by kind: {kinds}\n  by outcome: {by_outcome}"
        )

    def explain(self, folder: Path) -> str:
        """Describe the first failures with their input, and write all failing inputs to the folder."""
        target = TARGETS[self.target]()
        lines = [f"{len(self.failures)} of {self.target} failed; inputs are in {folder}"]
        for number, failure in enumerate(self.failures):
            content = target.make(failure.index).content
            (folder / f"{self.target}-{failure.index}").write_bytes(content)
            if number < 5:
                lines += [f"--- {failure.kind}, index {failure.index}, {len(content)} bytes", failure.message.strip()]
                lines += [hex_dump(content, most_bytes=256)]
                lines += [f"reproduce it: python -m tests.slow.fuzz.worker {self.target} --show {failure.index}"]
        return "\n".join(lines)


def fuzz(target: str, n_inputs: int, folder: Path) -> Report:
    """Try mutants 0 to `n_inputs` in a separate process, and continue in a new one after a crash."""
    report, first = Report(target=target), 0
    while first < n_inputs and len(report.failures) < MOST_BREAKS:
        command = [sys.executable, "-m", "tests.slow.fuzz.worker", target, "--folder", str(folder)]
        command += ["--first", str(first), "--stop", str(n_inputs)]
        # the process limits its inputs itself; this limits its start and warm-up
        limit_s = 120 + n_inputs * TARGETS[target]().slowest_s
        ended = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=limit_s, check=False
        )
        if ended.returncode == 0:
            first = n_inputs
        else:
            broken = int((folder / "progress").read_bytes()) if (folder / "progress").exists() else first
            kind = TARGETS[target]().make(broken).kind
            message = f"the process ended with {ended.returncode}\n{ended.stderr[-4000:]}"
            report.failures.append(Failure(index=broken, kind=kind, message=message))
            first = broken + 1
        _add_outcomes(report, folder)
    report.failures.sort(key=lambda failure: failure.index)
    return report


def _add_outcomes(report: Report, folder: Path) -> None:
    """Add the outcomes that a process wrote to the folder."""
    if not (folder / "outcomes").exists():
        return
    for line in map(json.loads, (folder / "outcomes").read_text().splitlines()):
        report.tally.setdefault(line["kind"], Counter())[line["outcome"]] += 1
        report.largest_growth_bytes = max(report.largest_growth_bytes, line["growth_bytes"])
        if line["message"]:
            report.failures.append(Failure(index=line["index"], kind=line["kind"], message=line["message"]))
    (folder / "outcomes").unlink()

"""Runs: what each run did to a cube and how fast, from its history of commits."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from galstore.cube.history import Commit, read_history
from galstore.cube.reader import open_cube


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """Commits that one run made one after another; commits without a run, such as those of scoring, by operation."""

    run: str
    operations: dict[str, int]
    """Commits by operation."""
    first: datetime
    last: datetime
    n_registered: int
    """Objects that it added."""
    n_settled: int
    """Cutouts that it stored or quarantined, less those that it made pending again."""
    n_predicted: int
    """Predictions that it wrote."""

    @property
    def seconds(self) -> float:
        """Between its first and its last commit; 0 for one commit."""
        return (self.last - self.first).total_seconds()

    @property
    def settled_per_s(self) -> float | None:
        """Cutouts a second between its commits; None where that says nothing."""
        return self.n_settled / self.seconds if self.n_settled > 0 and self.seconds > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        times = {"first": self.first.isoformat(), "last": self.last.isoformat()}
        return {**asdict(self), **times, "seconds": self.seconds, "settled_per_s": self.settled_per_s}


def summarise_runs(path: str, most: int = 12) -> list[RunSummary]:
    """The last runs of a cube, newest first, as far as its history goes back.

    Parameters
    ----------
    path
        Place of the cube.
    most
        Runs; two snapshots are read for each.
    """
    # the repository's first, empty commit has no operation, and is older than the cube in it
    history = [one for one in read_history(path) if one.operation]
    groups = [list(group) for _, group in groupby(history, key=lambda one: one.run or one.operation)]
    summaries, place = [], 0
    for commits in groups[:most]:
        place += len(commits)
        before = history[place] if place < len(history) else None
        # where the commit before was expired, nobody knows what this one added
        if before is not None or commits[-1].operation == "create":
            summaries.append(_summary(path, commits, before))
    return summaries


def _summary(path: str, commits: list[Commit], before: Commit | None) -> RunSummary:
    """Of commits of one run, newest first."""
    newest, oldest = commits[0], commits[-1]
    registered, settled = _counts(path, newest.snapshot)
    registered_before, settled_before = _counts(path, before.snapshot if before else None)
    return RunSummary(
        run=newest.run,
        operations=dict(Counter(one.operation or one.message for one in reversed(commits))),
        first=oldest.time,
        last=newest.time,
        n_registered=registered - registered_before,
        n_settled=settled - settled_before,
        n_predicted=sum(int(one.details.get("n_objects", 0)) for one in commits if one.operation == "predict"),
    )


def _counts(path: str, snapshot: str | None) -> tuple[int, int]:
    """Registered and settled objects as of a snapshot; none before there was a cube."""
    if snapshot is None:
        return 0, 0
    counts = open_cube(path, snapshot_id=snapshot).counts()
    return counts.registered, counts.stored + counts.quarantined

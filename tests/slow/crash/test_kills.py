"""SIGKILL at any time: no acknowledged object is lost or doubled, and another run completes the cube."""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import dataclass
from pathlib import Path

import distributed
import pytest

from tests.slow.crash.runs import (
    KillCounts,
    KilledCube,
    Launcher,
    Run,
    Survey,
    killed_after,
    started_alone,
    wait_for,
    wait_until_gone,
    wait_until_idle,
)
from tests.support.s3 import BUCKET, delete_objects, relayed, s3_variables

STEPS = ("opened", "changed", "committed")
OPERATIONS = ("register", "close delivery", "fill")
N_KILLS, N_KILLS_LONG = 4, 100
"""Per kind of store."""

MOST_PUTS = 60
"""Number of write requests to S3 in the creation and the first commits of a cube; a run is killed at one of them."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Planned kill of a run.

    `where` is "anywhere" in time, at a "step" of a commit, at a write "request" to S3, "with its workers" or "without
    its workers"; in the last two cases the run starts the workers.
    """

    where: str
    step: str = ""
    operation: str = ""

    def __str__(self) -> str:
        return f"at {self.operation} {self.step}" if self.step else self.where

    @property
    def wants_new_cube(self) -> bool:
        return self.operation in OPERATIONS[:2]


def planned_kills(n: int, *, remote: bool) -> list[Kill]:
    """Plan n kills: half of them at each step of each kind of commit in turn, the others elsewhere."""
    named = itertools.cycle(Kill("step", step, operation) for operation in OPERATIONS for step in STEPS)
    if remote:
        named = itertools.islice(named, 5, None)  # with few kills, the two stores begin at different steps
    own = ["with its workers", "without its workers"]
    first, second = reversed(own) if remote else own
    some = ["anywhere", "request" if remote else "anywhere", "anywhere", "anywhere"]
    elsewhere = itertools.cycle(Kill(where) for where in (*some, first, *some, second))
    return [next(named if number % 4 < 2 else elsewhere) for number in range(n)]


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("store", ["local", "s3"])
def test_no_kill_loses_or_doubles_an_object(
    store: str,
    tmp_path: Path,
    survey: Survey,
    s3_endpoint: str,
    lasting_workers: distributed.Client,
    launcher: Launcher,
    long_run: bool,
) -> None:
    started_s = time.monotonic()
    series = _KillSeries(store == "s3", tmp_path, survey, s3_endpoint, lasting_workers, launcher)
    for kill in planned_kills(N_KILLS_LONG if long_run else N_KILLS, remote=store == "s3"):
        series.survive(kill)
        if series.kill_counts.kills.total() % 25 == 0:
            print(f"\n{store}, so far: {series.kill_counts}", flush=True)
    series.complete()
    print(f"\n{store}: {series.kill_counts}; {time.monotonic() - started_s:.0f} s")
    assert (series.kill_counts.n_lost, series.kill_counts.n_doubled) == (0, 0)


class _KillSeries:
    """Series of kills. A new cube follows each complete one."""

    def __init__(
        self,
        remote: bool,
        folder: Path,
        survey: Survey,
        s3_endpoint: str,
        workers: distributed.Client,
        launcher: Launcher,
    ) -> None:
        self.kill_counts = KillCounts()
        self._remote, self._folder, self._survey, self._s3 = remote, folder, survey, s3_endpoint
        self._workers, self._launcher = workers, launcher
        self._random = random.Random(2019)
        self._cube = self._new_cube()
        # kills are spread over the duration of the first run
        started_s = time.monotonic()
        self.complete()
        self._usual_s = time.monotonic() - started_s

    def survive(self, kill: Kill) -> None:
        """Kill one run, and check its cube."""
        if kill.wants_new_cube and self._cube.is_registered:
            self.complete()
        while not self._is_killed(kill):
            # the run ended before the kill
            self._cube.check_complete()
            self._cube = self._new_cube()
            self.kill_counts.n_escaped += 1
        self.kill_counts.kills[str(kill)] += 1
        wait_until_idle(self._workers)
        cube = self._cube.check()
        if cube is None and self._remote:
            # half of a creation, which only the user can delete on S3
            delete_objects(self._s3, self._cube.path.removeprefix(f"s3://{BUCKET}/"))

    def complete(self) -> None:
        """Run without a kill, and check the complete cube."""
        assert not self._start().was_killed()
        self._cube.check_complete()
        self._cube = self._new_cube()

    def _is_killed(self, kill: Kill) -> bool:
        if kill.where == "step":
            return self._start("--die-at", f"{kill.step}:{kill.operation}:{self._draw_occurrence(kill)}").was_killed()
        if kill.where == "request":
            return self._is_killed_at_request(self._random.randint(1, MOST_PUTS), answered=self._random.random() < 0.5)
        if kill.where == "anywhere":
            return self._is_killed_in_time()
        return self._is_killed_alone(with_workers=kill.where == "with its workers")

    def _is_killed_in_time(self) -> bool:
        started_s = time.monotonic()
        run = self._start()
        with killed_after(self._draw_moment_s(), run.kill):
            killed = run.was_killed()
        if not killed:
            # the first run was slower
            self._usual_s = min(self._usual_s, time.monotonic() - started_s)
        return killed

    def _draw_occurrence(self, kill: Kill) -> int:
        """Draw the occurrence of the step; some of the three pages or blocks may exist already."""
        if kill.operation == "close delivery":
            return 1
        return self._random.randint(1, 2 if kill.step == "committed" else 3)

    def _draw_moment_s(self) -> float:
        """Draw the seconds from the start of a run, uniform over its expected duration."""
        return self._random.uniform(0, self._usual_s * max(0.2, self._cube.share_pending))

    def _is_killed_at_request(self, n: int, *, answered: bool) -> bool:
        """Kill a run at its n-th write request, before or after the server executes it."""
        n_left = itertools.count(n, -1)
        with relayed(self._s3) as relay:
            run: Run | None = None

            def kill_at_last(method: str, _path: str) -> bool:
                if method == "PUT" and next(n_left) == 1:
                    wait_for(lambda: run is not None, "the run's pid")
                    run.kill()
                    return True
                return False

            if answered:
                relay.loses_answer = kill_at_last
            else:
                relay.drops_request = kill_at_last
            run = self._launcher.start(self._arguments(), s3_variables(relay.endpoint))
            return run.was_killed()

    def _is_killed_alone(self, *, with_workers: bool) -> bool:
        """Kill a run while workers that it started fill the cube."""
        n_requests = self._survey.n_requests()
        with started_alone(self._cube.arguments("--workers", "2"), self._folder / "alone.log") as run:
            wait_for(lambda: run.is_over() or self._survey.n_requests() > n_requests, "its workers to request cutouts")
            with killed_after(self._draw_moment_s(), run.kill_group if with_workers else run.kill):
                killed = run.was_killed()
            wait_until_gone(run.pid)
        return killed

    def _start(self, *more: str) -> Run:
        return self._launcher.start(self._arguments(*more))

    def _arguments(self, *more: str) -> list[str]:
        return self._cube.arguments("--scheduler", self._workers.scheduler.address, *more)

    def _new_cube(self) -> KilledCube:
        name = f"cube-{self.kill_counts.n_cubes}"
        path = f"s3://{BUCKET}/{self._folder.name}/{name}" if self._remote else str(self._folder / name)
        return KilledCube(path, self._folder, self._survey, self.kill_counts)

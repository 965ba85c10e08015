"""SIGKILL at any moment: nothing acknowledged is lost, no object is twice, and a further run completes the cube."""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import dataclass
from pathlib import Path

import distributed
import pytest

from tests.slow.crash.runs import (
    Launcher,
    Life,
    Run,
    Survey,
    Tally,
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
"""On each of two kinds of store."""

MOST_PUTS = 60
"""Requests to S3 that write, in a run that is killed at one of them: a new cube's creation and first commits."""


@dataclass(frozen=True, slots=True)
class Kill:
    """How a run will be killed.

    `where`: "anywhere" in time, at a "step" of a commit, at a "request" to S3 that writes, "with its workers" or
    "without its workers", where it started them.
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
    """Half of them at each step of each kind of commit in turn, two at a time, the others anywhere else."""
    named = itertools.cycle(Kill("step", step, operation) for operation in OPERATIONS for step in STEPS)
    if remote:
        named = itertools.islice(named, 5, None)  # few kills in all: the two stores begin at different steps
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
    ordeal = _Ordeal(store == "s3", tmp_path, survey, s3_endpoint, lasting_workers, launcher)
    for kill in planned_kills(N_KILLS_LONG if long_run else N_KILLS, remote=store == "s3"):
        ordeal.survive(kill)
        if ordeal.tally.kills.total() % 25 == 0:
            print(f"\n{store}, so far: {ordeal.tally}", flush=True)
    ordeal.complete()
    print(f"\n{store}: {ordeal.tally}; {time.monotonic() - started_s:.0f} s")
    assert (ordeal.tally.n_lost, ordeal.tally.n_doubled) == (0, 0)


class _Ordeal:
    """Cubes that are killed while they grow; a new one begins where one is complete."""

    def __init__(
        self,
        remote: bool,
        folder: Path,
        survey: Survey,
        s3_endpoint: str,
        workers: distributed.Client,
        launcher: Launcher,
    ) -> None:
        self.tally = Tally()
        self._remote, self._folder, self._survey, self._s3 = remote, folder, survey, s3_endpoint
        self._workers, self._launcher = workers, launcher
        self._random = random.Random(2019)
        self._life = self._new_life()
        # the first run is left alone: how long it takes is how long kills are spread over
        started_s = time.monotonic()
        self.complete()
        self._usual_s = time.monotonic() - started_s

    def survive(self, kill: Kill) -> None:
        """Kill one run, and check what it left."""
        if kill.wants_new_cube and self._life.is_registered:
            self.complete()
        while not self._is_killed(kill):
            # it was done before its time came
            self._life.check_complete()
            self._life = self._new_life()
            self.tally.n_escaped += 1
        self.tally.kills[str(kill)] += 1
        wait_until_idle(self._workers)
        cube = self._life.check()
        if cube is None and self._remote:
            # half of a creation: on S3 nobody but the user can take it away
            delete_objects(self._s3, self._life.path.removeprefix(f"s3://{BUCKET}/"))

    def complete(self) -> None:
        """Let the cube's last run end."""
        assert not self._start().was_killed()
        self._life.check_complete()
        self._life = self._new_life()

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
            # the machine was busier when the first run was timed
            self._usual_s = min(self._usual_s, time.monotonic() - started_s)
        return killed

    def _draw_occurrence(self, kill: Kill) -> int:
        """Which time the step is reached: of three pages or blocks, of which some may be there already."""
        if kill.operation == "close delivery":
            return 1
        return self._random.randint(1, 2 if kill.step == "committed" else 3)

    def _draw_moment_s(self) -> float:
        """Seconds from the start of a run, uniform over what it needs."""
        return self._random.uniform(0, self._usual_s * max(0.2, self._life.share_pending))

    def _is_killed_at_request(self, n: int, *, answered: bool) -> bool:
        """Killed when it sends its n-th request to write, before or after the server obeys."""
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
        """Killed while its own workers fill the cube."""
        n_requests = self._survey.n_requests()
        with started_alone(self._life.arguments("--workers", "2"), self._folder / "alone.log") as run:
            wait_for(lambda: run.is_over() or self._survey.n_requests() > n_requests, "its workers to ask for cutouts")
            with killed_after(self._draw_moment_s(), run.kill_group if with_workers else run.kill):
                killed = run.was_killed()
            wait_until_gone(run.pid)
        return killed

    def _start(self, *more: str) -> Run:
        return self._launcher.start(self._arguments(*more))

    def _arguments(self, *more: str) -> list[str]:
        return self._life.arguments("--scheduler", self._workers.scheduler.address, *more)

    def _new_life(self) -> Life:
        name = f"cube-{self.tally.n_cubes}"
        path = f"s3://{BUCKET}/{self._folder.name}/{name}" if self._remote else str(self._folder / name)
        return Life(path, self._folder, self._survey, self.tally)

"""Runs: what the server believes is under way, set right where the process that did it is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.service.directory import Home
from flows.service.processes import end_orphans, living_flow_runs, wait_until
from flows.service.services import POOL, worker_name

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

START_S = 90.0
"""A run that a worker has taken, and that is not running after so long, is not going to."""

GONE = "its process is gone: it was killed, or the machine went down. The next run goes on from the last commit."
ENDED = "ended by `galstore down`; the next run goes on from the last commit"


def runs_under_way(client: SyncPrefectClient) -> list[FlowRun]:
    """Flow runs of the pool that a worker has taken and that have not ended."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType

    types = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
        limit=200,
    )


class DeadRuns:
    """Finds runs whose process is gone; twice seen so, since a process starts a little later than its run."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._suspects: dict[str, float] = {}

    def settle(self, client: SyncPrefectClient) -> int:
        """Tell the server the truth about them; how many there were. Other machines' workers are left alone."""
        if self._has_other_workers(client):
            return 0
        alive = living_flow_runs(self._home)
        seen_s = time.monotonic()
        dead = [run for run in runs_under_way(client) if str(run.id) not in alive]
        self._suspects = {str(run.id): self._suspects.get(str(run.id), seen_s) for run in dead}
        settled = [run for run in dead if seen_s - self._suspects[str(run.id)] >= _patience_s(run)]
        for run in settled:
            client.set_flow_run_state(run.id, _truth_about(run), force=True)
        end_orphans(self._home)
        return len(settled)

    def _has_other_workers(self, client: SyncPrefectClient) -> bool:
        workers = client.read_workers_for_work_pool(POOL)
        ours = worker_name(self._home)
        return any(one.name != ours and str(getattr(one.status, "value", one.status)) == "ONLINE" for one in workers)


def _patience_s(run: FlowRun) -> float:
    return START_S if run.state is not None and run.state.is_pending() else 4.0


def _truth_about(run: FlowRun) -> State:
    from prefect.states import Cancelled, Crashed, Scheduled

    if run.state is not None and run.state.is_pending():
        return Scheduled(message="its worker ended before it began; it is due again")
    if run.state is not None and run.state.is_cancelling():
        return Cancelled(message=GONE)
    return Crashed(message=GONE)


def end_runs(client: SyncPrefectClient, *, wait_s: float, tell: Callable[[str], None]) -> None:
    """Let runs under way finish, cancel those that take too long, and leave none that only seems to run."""
    from prefect.states import Cancelled, Cancelling

    runs = runs_under_way(client)
    if runs and wait_s > 0:
        tell(f"{len(runs)} flow run(s) under way get {wait_s:.0f} s to finish")
        wait_until(lambda: not runs_under_way(client), within_s=wait_s, every_s=1.0)
    for run in runs_under_way(client):
        tell(f"flow run {run.name} is cancelled")
        client.set_flow_run_state(run.id, Cancelling(message=ENDED), force=True)
    wait_until(lambda: not runs_under_way(client), within_s=20.0, every_s=1.0)
    for run in runs_under_way(client):
        client.set_flow_run_state(run.id, Cancelled(message=ENDED), force=True)

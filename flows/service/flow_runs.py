"""Flow runs of the pool: correct the states of runs without a process, and stop runs that are under way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.service.directory import ServiceDirectory
from flows.service.processes import running_flow_runs, stop_orphans, wait_until
from flows.service.services import POOL, worker_name

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

START_S = 90.0
"""Longest time between a worker taking a run and the start of its process."""

LOST = "its process was killed, or the machine went down. The next run resumes from the last commit."
STOPPED = "stopped by `galstore down`; the next run resumes from the last commit"


def active_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Return the flow runs that a worker has taken and that have not ended."""
    from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter

    states = ["PENDING", "RUNNING", "CANCELLING"]
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": states}}}),
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [POOL]}}),
        limit=200,
    )


class DeadRuns:
    """Detector of runs without a process; it needs two looks, because a process starts a little later than its run."""

    def __init__(self, directory: ServiceDirectory) -> None:
        self._directory = directory
        self._missing_since_s: dict[str, float] = {}

    def correct(self, client: SyncPrefectClient) -> int:
        """Correct the states of dead runs and return their number; do nothing if other machines have workers."""
        if self._has_other_workers(client):
            return 0
        running = running_flow_runs(self._directory)
        now_s = time.monotonic()
        missing = [run for run in active_runs(client) if str(run.id) not in running]
        self._missing_since_s = {str(run.id): self._missing_since_s.get(str(run.id), now_s) for run in missing}
        dead = [run for run in missing if now_s - self._missing_since_s[str(run.id)] >= _grace_s(run)]
        for run in dead:
            client.set_flow_run_state(run.id, _corrected_state(run), force=True)
        stop_orphans(self._directory)
        return len(dead)

    def _has_other_workers(self, client: SyncPrefectClient) -> bool:
        own = worker_name(self._directory)
        return any(
            worker.name != own and str(getattr(worker.status, "value", worker.status)) == "ONLINE"
            for worker in client.read_workers_for_work_pool(POOL)
        )


def _grace_s(run: FlowRun) -> float:
    return START_S if run.state is not None and run.state.is_pending() else 4.0


def _corrected_state(run: FlowRun) -> State:
    from prefect.states import Cancelled, Crashed, Scheduled

    if run.state is not None and run.state.is_pending():
        return Scheduled(message="its worker ended before the run started; it is scheduled again")
    if run.state is not None and run.state.is_cancelling():
        return Cancelled(message=LOST)
    return Crashed(message=LOST)


def stop_runs(client: SyncPrefectClient, *, wait_s: float, report: Callable[[str], None]) -> None:
    """Wait for active runs, then cancel the remaining ones."""
    from prefect.states import Cancelled, Cancelling

    runs = active_runs(client)
    if runs and wait_s > 0:
        report(f"waiting up to {wait_s:.0f} s for {len(runs)} flow run(s)")
        wait_until(lambda: not active_runs(client), within_s=wait_s, every_s=1.0)
    for run in active_runs(client):
        report(f"cancelling flow run {run.name}")
        client.set_flow_run_state(run.id, Cancelling(message=STOPPED), force=True)
    wait_until(lambda: not active_runs(client), within_s=20.0, every_s=1.0)
    for run in active_runs(client):
        client.set_flow_run_state(run.id, Cancelled(message=STOPPED), force=True)

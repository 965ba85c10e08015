"""Status of the deployments, as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from rich.table import Table


def deployment_table() -> Table:
    """Tabulate the last run, the active runs and the next run of each deployment."""
    from prefect.client.orchestration import get_client
    from rich.table import Table

    table = Table("deployment", "last run", "state", "active", "next run", box=None, pad_edge=False)
    with get_client(sync_client=True) as client:
        for deployment in sorted(client.read_deployments(), key=lambda deployment: deployment.name):
            last = _runs(client, deployment.name, ended=True)
            others = _runs(client, deployment.name, ended=False)
            active = [run for run in others if run.state is not None and not run.state.is_scheduled()]
            starts = [run.next_scheduled_start_time for run in others if run not in active]
            due = [start for start in starts if start]
            table.add_row(
                deployment.name,
                f"{last[0].end_time:%Y-%m-%d %H:%M} UTC" if last and last[0].end_time else "-",
                last[0].state_name or "-" if last else "-",
                ", ".join(run.state_name or "" for run in active) or "-",
                f"{min(due):%Y-%m-%d %H:%M} UTC" if due else "-",
            )
    return table


def _runs(client: SyncPrefectClient, name: str, *, ended: bool) -> list[FlowRun]:
    from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
    from prefect.client.schemas.objects import TERMINAL_STATES, StateType
    from prefect.client.schemas.sorting import FlowRunSort

    types = [state for state in StateType if (state in TERMINAL_STATES) == ended]
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter.model_validate({"name": {"any_": [name]}}),
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": types}}}),
        sort=FlowRunSort.END_TIME_DESC if ended else FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=1 if ended else 20,
    )

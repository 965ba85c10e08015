"""Deploying: `prefect.yaml` with recipe and places filled in goes to the server, with pool and automations."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.service.directory import Home
from flows.service.processes import wait_until
from flows.service.services import POOL
from schemas.errors import RecipeError, ServiceError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

DEPLOYMENT_FILE = "prefect.yaml"
SCHEDULING_S = 120.0
SILENCE_S = 90
"""A run without a heartbeat for so long is taken for dead; one comes every 30 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What `galstore up` was told; kept, so that the next one needs to be told nothing.

    Attributes
    ----------
    recipe, overrides
        Parameters of every deployment; None = as `prefect.yaml` says.
    """

    recipe: str | None = None
    overrides: tuple[str, ...] | None = None

    @classmethod
    def remembered(cls, home: Home) -> Choice:
        try:
            kept = json.loads(_choice_file(home).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return cls()
        return cls(recipe=kept["recipe"], overrides=None if kept["overrides"] is None else tuple(kept["overrides"]))

    def remember(self, home: Home) -> None:
        _choice_file(home).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def _choice_file(home: Home) -> Path:
    return home.folder / "choice.json"


def find_deployment_file(folder: Path) -> Path:
    """The `prefect.yaml` of a folder, or the one that galstore comes with."""
    package = Path(__file__).resolve().parents[1]
    for path in (folder / DEPLOYMENT_FILE, package.parent / DEPLOYMENT_FILE, package / DEPLOYMENT_FILE):
        if path.is_file():
            return path
    raise RecipeError(f"there is no {DEPLOYMENT_FILE} in {folder}: write one, or start from galstore's own")


def fill_in(text: str, choice: Choice, folder: Path) -> dict[str, Any]:
    """What is deployed: recipe and overrides as chosen, runs in this folder.

    Parameters
    ----------
    text
        A `prefect.yaml`.
    choice
        Goes over what the file says.
    folder
        Where relative paths of recipes start.

    Raises
    ------
    RecipeError
        It is not YAML, or has no deployments.
    """
    import yaml

    try:
        described = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{DEPLOYMENT_FILE} is not YAML: {error}") from error
    if not isinstance(described, dict) or not described.get("deployments"):
        raise RecipeError(f"{DEPLOYMENT_FILE} has no deployments: see the one that galstore comes with")
    described.pop("definitions", None)
    # without YAML's anchors, which share one dictionary among deployments
    described = json.loads(json.dumps(described).replace("{{ $PWD }}", json.dumps(str(folder))[1:-1]))
    for deployment in described["deployments"]:
        parameters = deployment.setdefault("parameters", {})
        if choice.recipe is not None:
            parameters["recipe"] = choice.recipe
        if choice.overrides is not None:
            parameters["overrides"] = list(choice.overrides)
    return dict(described)


def deploy(home: Home, described: dict[str, Any], port: int) -> None:
    """Deploy all that is described.

    Raises
    ------
    ServiceError
        Prefect refuses it.
    """
    import yaml

    home.deployed_file.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "prefect",
        "--no-prompt",
        "deploy",
        "--all",
        "--prefect-file",
        str(home.deployed_file),
    ]
    done = subprocess.run(  # noqa: S603 - our own program
        command, cwd=home.folder, env=home.environment(port), capture_output=True, text=True, check=False
    )
    home.log_file("deploy").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode != 0:
        told = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip(" ╭╰─│╮╯")]
        raise ServiceError(
            f"Prefect refused {DEPLOYMENT_FILE}: {' '.join(told[-4:])}; all of it: {home.log_file('deploy')}"
        )


def ensure_pool(client: SyncPrefectClient) -> None:
    """Make the work pool, and let it work again where `galstore down` paused it."""
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        return
    if pool.is_paused:
        client.update_work_pool(POOL, WorkPoolUpdate(is_paused=False))


def pause_pool(client: SyncPrefectClient) -> None:
    """No further run begins."""
    from prefect.client.schemas.actions import WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    try:
        client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
    except ObjectNotFound:
        return  # `up` did not come that far


def ensure_automations() -> None:
    """A run whose heartbeats stop is marked as crashed, on whichever machine it was."""
    from prefect.automations import Automation, EventTrigger, Posture, ResourceSpecification
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState

    ends = ("Completed", "Failed", "TimedOut", "Cancelled", "Crashed", "AwaitingRetry", "AwaitingConcurrencySlot")
    wanted = Automation(
        name="galstore: runs that have gone silent",
        description="Marks a flow run as crashed when its heartbeats stop; the next run goes on from the last commit.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_S),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"no heartbeat for {SILENCE_S} s")],
    )
    try:
        asyncio.run(Automation.aread(name=wanted.name))
    except ValueError:
        asyncio.run(wanted.acreate())


def await_schedules(client: SyncPrefectClient) -> dict[str, int]:
    """Wait until every deployment with an active schedule has a run scheduled; how many each has.

    Raises
    ------
    ServiceError
        The server looks healthy and schedules nothing.
    """
    active = {
        str(one.id): one.name
        for one in client.read_deployments()
        if not one.paused and any(schedule.active for schedule in one.schedules)
    }
    counts: dict[str, int] = {}

    def all_scheduled() -> bool:
        counts.clear()
        counts.update({name: _count_scheduled(client, deployment_id) for deployment_id, name in active.items()})
        return all(counts.values())

    if not wait_until(all_scheduled, within_s=SCHEDULING_S, every_s=1.0):
        silent = ", ".join(sorted(name for name, n in counts.items() if not n))
        raise ServiceError(
            f"the server runs, but schedules nothing for {silent}: is SQLAlchemy older than 2.1, as constraints.txt "
            "has it? The server's log says more"
        )
    return counts


def _count_scheduled(client: SyncPrefectClient, deployment_id: str) -> int:
    from uuid import UUID

    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    return client.count_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[UUID(deployment_id)])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(
                type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING])
            )
        ),
    )


def absolute_recipe(recipe: str, names: Sequence[str]) -> str:
    """A recipe's file by its whole path, since runs may start elsewhere; a name as it is."""
    return recipe if recipe in names else str(Path(recipe).absolute())

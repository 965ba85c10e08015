"""Deployments of a service: `prefect.yaml` with recipe and paths filled in, the work pool and the automations."""

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

from flows.service.directory import ServiceDirectory
from flows.service.processes import wait_until
from flows.service.services import POOL
from schemas.errors import RecipeError, ServiceError

if TYPE_CHECKING:
    from prefect.automations import EventTrigger
    from prefect.client.orchestration import SyncPrefectClient

DEPLOYMENT_FILE = "prefect.yaml"
SCHEDULING_S = 120.0
SILENCE_S = 90
"""Time without heartbeats after which a run counts as crashed; heartbeats come every 30 s."""

WEBHOOK_BLOCK = "galstore-failures"
WEBHOOK_PAYLOAD = """{
  "flow": {{ flow.name | tojson }},
  "run": {{ flow_run.name | tojson }},
  "state": {{ flow_run.state.name | tojson }},
  "message": {{ (flow_run.state.message or "") | tojson }},
  "url": {{ flow_run | ui_url | tojson }},
  "text": {{ (flow.name ~ " ended as " ~ flow_run.state.name ~ ": " ~ (flow_run.state.message or "")) | tojson }}
}"""
"""JSON; Slack, Mattermost and others show `text`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedRecipe:
    """Recipe of all deployments, stored for the next `galstore up`; None = as in `prefect.yaml`."""

    recipe: str | None = None
    overrides: tuple[str, ...] | None = None

    @classmethod
    def load(cls, directory: ServiceDirectory) -> DeployedRecipe:
        try:
            stored = json.loads((directory.folder / "choice.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return cls()
        overrides = stored["overrides"]
        return cls(recipe=stored["recipe"], overrides=None if overrides is None else tuple(overrides))

    def save(self, directory: ServiceDirectory) -> None:
        (directory.folder / "choice.json").write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def find_deployment_file(folder: Path) -> Path:
    """Return the `prefect.yaml` of a folder, or the one that is part of galstore."""
    package = Path(__file__).resolve().parents[1]
    for path in (folder / DEPLOYMENT_FILE, package.parent / DEPLOYMENT_FILE, package / DEPLOYMENT_FILE):
        if path.is_file():
            return path
    raise RecipeError(f"{folder} has no {DEPLOYMENT_FILE}: write one, or copy galstore's own")


def fill_deployments(text: str, deployed: DeployedRecipe, folder: Path) -> dict[str, Any]:
    """Fill the recipe and the working folder of the runs into the text of a `prefect.yaml`.

    Raises
    ------
    RecipeError
        The text is not YAML, or lacks deployments.
    """
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{DEPLOYMENT_FILE} is not YAML: {error}") from error
    if not isinstance(content, dict) or not content.get("deployments"):
        raise RecipeError(f"{DEPLOYMENT_FILE} has no deployments: see the one that is part of galstore")
    content.pop("definitions", None)
    # through JSON: YAML's anchors would share one dictionary among deployments
    filled: dict[str, Any] = json.loads(json.dumps(content).replace("{{ $PWD }}", json.dumps(str(folder))[1:-1]))
    for deployment in filled["deployments"]:
        parameters = deployment.setdefault("parameters", {})
        if deployed.recipe is not None:
            parameters["recipe"] = deployed.recipe
        if deployed.overrides is not None:
            parameters["overrides"] = list(deployed.overrides)
    return filled


def deploy(directory: ServiceDirectory, content: dict[str, Any], port: int) -> None:
    """Deploy all deployments of a filled `prefect.yaml`; raise a `ServiceError` if Prefect refuses it."""
    import yaml

    file, log = directory.deployed_file, directory.log_file("deploy")
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)],
        cwd=directory.folder,
        env=directory.environment(port),
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    log.write_text(output, encoding="utf-8")
    if done.returncode != 0:
        lines = [line.strip() for line in output.splitlines() if line.strip(" ╭╰─│╮╯")]
        raise ServiceError(f"Prefect refused {DEPLOYMENT_FILE}: {' '.join(lines[-4:])}; full output: {log}")


def ensure_pool(client: SyncPrefectClient) -> None:
    """Create the work pool, or resume it after `galstore down`."""
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
    """Prevent further runs from starting."""
    from prefect.client.schemas.actions import WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    try:
        client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))
    except ObjectNotFound:
        return  # `galstore up` failed before it created the pool


def ensure_automations() -> None:
    """Create the automation that marks runs without heartbeats as crashed, on any machine."""
    from prefect.automations import Automation
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState

    ends = ("Completed", "Failed", "TimedOut", "Cancelled", "Crashed", "AwaitingRetry", "AwaitingConcurrencySlot")
    automation = Automation(
        name="galstore: mark runs without heartbeats as crashed",
        description="Marks a flow run as crashed when its heartbeats stop; the next run resumes from the last commit.",
        trigger=_run_trigger(SILENCE_S, ("heartbeat", *ends), after=("heartbeat",)),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"no heartbeat for {SILENCE_S} s")],
    )
    try:
        asyncio.run(Automation.aread(name=automation.name))
    except ValueError:
        asyncio.run(automation.acreate())


async def _notify(address: str) -> None:
    from prefect.automations import Automation
    from prefect.blocks.webhook import Webhook
    from prefect.events.actions import CallWebhook
    from pydantic import SecretStr

    block_id = await Webhook(url=SecretStr(address)).save(WEBHOOK_BLOCK, overwrite=True)
    automation = Automation(
        name="galstore: notify of failures",
        description="Posts to the webhook block galstore-failures; `galstore notify URL` sets the address.",
        trigger=_run_trigger(0, ("Failed", "TimedOut", "Crashed")),
        actions=[CallWebhook(block_document_id=block_id, payload=WEBHOOK_PAYLOAD)],
    )
    try:
        known = await Automation.aread(name=automation.name)
    except ValueError:
        await automation.acreate()
        return
    automation.id = known.id
    await automation.aupdate()


def notify_by_webhook(address: str) -> None:
    """Post a message to a web address when a run fails, crashes or times out; replace the previous address."""
    asyncio.run(_notify(address))


def _run_trigger(within_s: int, expect: Sequence[str], after: Sequence[str] = ()) -> EventTrigger:
    """Return a trigger for events of a flow run, or for their absence during `within_s` seconds after others."""
    from prefect.automations import EventTrigger, Posture, ResourceSpecification

    return EventTrigger(
        after={f"prefect.flow-run.{event}" for event in after},
        expect={f"prefect.flow-run.{event}" for event in expect},
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive if after else Posture.Reactive,
        threshold=1,
        within=timedelta(seconds=within_s),
    )


def await_schedules(client: SyncPrefectClient) -> dict[str, int]:
    """Wait until each deployment with an active schedule has runs; return their number by deployment."""
    active = {
        str(deployment.id): deployment.name
        for deployment in client.read_deployments()
        if not deployment.paused and any(schedule.active for schedule in deployment.schedules)
    }
    counts: dict[str, int] = {}

    def all_scheduled() -> bool:
        counts.clear()
        counts.update({name: _count_scheduled(client, deployment_id) for deployment_id, name in active.items()})
        return all(counts.values())

    if not wait_until(all_scheduled, within_s=SCHEDULING_S, every_s=1.0):
        missing = ", ".join(sorted(name for name, n in counts.items() if not n))
        raise ServiceError(
            f"the server runs, but schedules no runs of {missing}: check that SQLAlchemy is older than 2.1, as in "
            "constraints.txt, and read the server's log"
        )
    return counts


def _count_scheduled(client: SyncPrefectClient, deployment_id: str) -> int:
    from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter

    states = ["SCHEDULED", "PENDING", "RUNNING"]
    return client.count_flow_runs(
        deployment_filter=DeploymentFilter.model_validate({"id": {"any_": [deployment_id]}}),
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": states}}}),
    )


def absolute_recipe(recipe: str, names: Sequence[str]) -> str:
    """Return the absolute path of a recipe file, because runs may start in another folder; names are unchanged."""
    return recipe if recipe in names else str(Path(recipe).absolute())

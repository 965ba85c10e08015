"""Artifacts in Prefect's UI: counts, reasons, throughput, metrics, progress, and a link to the report.

Each costs one request of about 20 ms. A server that does not respond costs a log line, never the run.
Outside of a flow run nothing is sent.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

logger = logging.getLogger(__name__)

N_DRIFTS = 8
"""Number of columns in the table of drift."""

PROGRESS_EVERY_S = 5.0
"""Minimum time between two updates of a progress bar in the UI, seconds."""


def publish_ingest(cube_path: str, *, n_new: int, n_requests: int) -> None:
    """Publish the counts of a cube and its quarantine by reason."""
    if not in_flow_run():
        return
    from galstore.cube.history import summarise_runs
    from galstore.cube.inventory import take_inventory
    from galstore.cube.reader import open_cube

    inventory = take_inventory(open_cube(cube_path))
    counts = inventory.counts
    runs = [run for run in summarise_runs(cube_path, 3) if run.run == current_run_id()]
    rate = next((run.settled_per_s for run in runs if run.settled_per_s), None)
    rows = {
        "registered": counts.registered,
        "stored": counts.stored,
        "quarantined": counts.quarantined,
        "pending": counts.pending,
        "catalog rows rejected": sum(inventory.rejected_by_catalog.values()),
        "new in this run": n_new,
        "requests of this run": n_requests,
    }
    description = f"stored + quarantined + pending = registered: {'yes' if counts.add_up else '**NO**'}."
    if rate:
        description += f" Throughput {rate:,.0f} cutouts per second between the commits of this run."
    counts_table = [{"objects": name, "number": f"{n:,}"} for name, n in rows.items()]
    tables = [_table("ingest-counts", counts_table, description)]
    if inventory.quarantined_by_reason:
        ordered = sorted(inventory.quarantined_by_reason.items(), key=lambda item: -item[1])
        tables.append(
            _table(
                "quarantine-by-reason",
                [{"reason": reason.replace("_", " "), "objects": f"{n:,}"} for reason, n in ordered],
                f"Quarantined objects by reason. All of them: `galstore quarantine {cube_path}`.",
            )
        )
    _send(*tables)


def publish_training(model_id: str, folder: Path, *, trained: bool) -> None:
    """Publish a model's metrics on the validation galaxies."""
    if not in_flow_run():
        return
    from modeling.models.model_store import find_model

    model = find_model(folder.parent, model_id)
    rows = [
        {"rows": name, **{key: _number(value) for key, value in numbers.items()}}
        for name, numbers in model.metrics.items()
    ]
    origin = "trained in this run" if trained else "trained earlier on the same training set"
    _send(_table("training-metrics", rows, f"Model `{model_id}`, {origin}."))


def publish_scores(model_id: str, *, n_scored: int, predictions: Path | None) -> None:
    """Publish the number of scored objects and the path of the new catalog's predictions."""
    if not in_flow_run():
        return
    rows = [{"what": "scored in this run", "objects": f"{n_scored:,}"}]
    description = f"Model `{model_id}`."
    if predictions is not None:
        rows += [
            {"what": f"new catalog: {status.replace('_', ' ')}", "objects": f"{n:,}"}
            for status, n in _statuses(predictions).items()
        ]
        description += f" Predictions: `{predictions}`."
    _send(_table("score-counts", rows, description))


def publish_report(summary: Mapping[str, Any]) -> None:
    """Publish every predictor's metrics, the columns that drifted, and links to the report's pages."""
    if not in_flow_run():
        return
    verdict, paths = summary["verdict"], summary["paths"]
    artifacts = [
        _table("report-metrics", [_metrics_row(*item) for item in summary["predictors"].items()], verdict),
        _link("report", Path(paths["report"]), "Report of the model", verdict),
        _link("data-quality", Path(paths["quality"]), "Data quality", "Counts, drift, coverage, quarantine."),
        _link("predictions", Path(paths["predictions_page"]), "Predictions", "Predictions of the new catalog, flags."),
    ]
    drifts = [drift for drift in summary["quality"]["drift"] if drift["psi"] is not None][:N_DRIFTS]
    if drifts:
        lines = [
            {
                "column": drift["column"],
                "drift": drift["verdict"],
                "psi": _number(drift["psi"]),
                "ks": _number(drift["ks"]),
            }
            for drift in drifts
        ]
        artifacts.append(_table("column-drift", lines, "Columns that moved most between known and new objects."))
    _send(*artifacts)


def _metrics_row(name: str, metrics: Mapping[str, Any] | str) -> dict[str, Any]:
    if isinstance(metrics, str):
        return {"predictor": name, "rmse": "", "nmad": "", "bias": "", "galaxies": metrics}
    numbers = {key: _number(metrics[key]) for key in ("rmse", "nmad", "bias")}
    return {"predictor": name, **numbers, "galaxies": metrics["n"]}


def _statuses(predictions: Path) -> dict[str, int]:
    import pyarrow.parquet

    if not predictions.is_file():
        return {}
    names = pyarrow.parquet.read_schema(predictions).names
    if "status" not in names:
        return {}
    counted = pyarrow.parquet.read_table(predictions, columns=["status"]).column("status").value_counts().to_pylist()
    return {str(row["values"]): int(row["counts"]) for row in sorted(counted, key=lambda row: -row["counts"])}


def _number(value: float | None) -> str:
    if value is None:
        return "n/a"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Artifact:
    """Artifact in Prefect's storage form: a table as JSON, or a link as Markdown."""

    key: str
    kind: Literal["table", "markdown"]
    content: str
    description: str


def _table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> _Artifact:
    content = json.dumps([dict(row) for row in rows])
    return _Artifact(key=key, kind="table", content=content, description=description)


def _link(key: str, path: Path, text: str, description: str) -> _Artifact:
    # browsers do not follow links from a server's page to a file; the path can be copied
    content = f"[{text}]({path.absolute().as_uri()})\n\n`{path.absolute()}`"
    return _Artifact(key=key, kind="markdown", content=content, description=description)


def _send(*artifacts: _Artifact) -> None:
    # one connection for all, closed afterwards; Prefect's own functions leave theirs open
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate

    with log_server_errors(", ".join(artifact.key for artifact in artifacts)), get_client(sync_client=True) as client:
        for artifact in artifacts:
            client.create_artifact(
                ArtifactCreate(
                    key=artifact.key,
                    type=artifact.kind,
                    description=artifact.description,
                    data=artifact.content,
                    **run_ids(),
                )
            )


class ProgressArtifact:
    """Progress bar in Prefect's UI. Work that ends within seconds does not show one.

    Methods may be called from any thread.

    Parameters
    ----------
    title
        Name of the work; the artifact's key is made from it.
    total
        Number of units.
    every_s
        Minimum time between two updates, seconds.
    """

    def __init__(self, title: str, total: int, *, every_s: float = PROGRESS_EVERY_S) -> None:
        self._title, self._total, self._n_done = title, max(1, total), 0
        self._lock = threading.Lock()
        self._every_s, self._sent_s = every_s, time.monotonic()
        self._artifact_id: UUID | None = None
        # other threads do not see the run's context
        self._run = run_ids() if in_flow_run() else None

    def advance(self, n: int) -> None:
        """Add finished units."""
        with self._lock:
            self._n_done += n
            now_s = time.monotonic()
            if self._run is None or now_s - self._sent_s < self._every_s:
                return
            self._sent_s = now_s
            self._update()

    def close(self) -> None:
        """Send the last state."""
        with self._lock:
            if self._artifact_id is not None:
                self._update()

    def _update(self) -> None:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

        percent = min(100.0, 100 * self._n_done / self._total)
        description = f"{self._title}: {self._n_done:,} of {self._total:,}"
        with log_server_errors("progress"), get_client(sync_client=True) as client:
            if self._artifact_id is None:
                fields: dict[str, Any] = {
                    "key": _key(self._title),
                    "type": "progress",
                    "description": description,
                    "data": percent,
                }
                self._artifact_id = client.create_artifact(ArtifactCreate(**fields, **(self._run or {}))).id
            else:
                client.update_artifact(self._artifact_id, ArtifactUpdate(data=percent, description=description))


def in_flow_run() -> bool:
    """Return True inside a Prefect flow or task run."""
    # commands without a flow, such as verify, do not import Prefect for this
    context = sys.modules.get("prefect.context")
    return context is not None and bool(context.FlowRunContext.get() or context.TaskRunContext.get())


def run_ids() -> dict[str, Any]:
    """Return the ids of the current flow run and task run, as fields of an artifact."""
    from prefect.utilities.context import get_task_and_flow_run_ids

    task_run_id, flow_run_id = get_task_and_flow_run_ids()
    return {"task_run_id": task_run_id, "flow_run_id": flow_run_id}


def current_run_id() -> str:
    """Return the id of the current Prefect flow run, stored with every commit; a random id outside of a run."""
    from prefect.runtime import flow_run

    return str(flow_run.root_flow_run_id or flow_run.id or uuid4())


def _key(title: str) -> str:
    """Return an artifact key: lower case letters, digits and dashes.

    Examples
    --------
    >>> _key("scoring, mean over 8 views")
    'progress-scoring'
    """
    words = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in title.lower()).split()
    return "-".join(["progress", *words[:1]])


@contextmanager
def log_server_errors(key: str) -> Iterator[None]:
    """Log errors of Prefect's server instead of raising them: a lost artifact must not fail a run."""
    import httpx
    from prefect.exceptions import PrefectException

    try:
        yield
    except (PrefectException, httpx.HTTPError, OSError) as error:
        logger.warning("Prefect's server did not store artifact %s: %s", key, error)

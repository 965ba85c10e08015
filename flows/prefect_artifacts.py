"""Run artifacts: what Prefect's UI shows of a run: counts, reasons, throughput, metrics, and a link to the report.

Each is one request of some 20 ms to the server. A server that does not answer costs the run a line of log, not its
result; outside of a flow run nothing is sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.progress import forgiven, in_flow_run, run_ids
from flows.runtime import current_run_id

N_DRIFTS = 8
"""Columns in the table of drift."""


def publish_ingest(cube_path: str, *, n_new: int, n_requests: int) -> None:
    """Counts of a cube, and its quarantine by reason, after an ingest."""
    if not in_flow_run():
        return
    from galstore.cube.inventory import take_inventory
    from galstore.cube.reader import open_cube
    from galstore.cube.runs import summarise_runs

    inventory = take_inventory(open_cube(cube_path))
    counts = inventory.counts
    ours = [one for one in summarise_runs(cube_path, 3) if one.run == current_run_id()]
    rate = next((one.settled_per_s for one in ours if one.settled_per_s), None)
    rows = {
        "registered": counts.registered,
        "stored": counts.stored,
        "quarantined": counts.quarantined,
        "pending": counts.pending,
        "catalog rows rejected": sum(inventory.rejected_by_catalog.values()),
        "new in this run": n_new,
        "requests of this run": n_requests,
    }
    told = f"stored + quarantined + pending = registered: {'yes' if counts.add_up else '**NO**'}."
    if rate:
        told += f" Throughput {rate:,.0f} cutouts a second between this run's commits."
    tables = [_table("ingest-counts", [{"objects": name, "number": f"{n:,}"} for name, n in rows.items()], told)]
    if inventory.quarantined_by_reason:
        ordered = sorted(inventory.quarantined_by_reason.items(), key=lambda item: -item[1])
        tables.append(
            _table(
                "quarantine-by-reason",
                [{"reason": reason.replace("_", " "), "objects": f"{n:,}"} for reason, n in ordered],
                f"Cutouts that were refused; the whole list: `galstore quarantine {cube_path}`.",
            )
        )
    _send(*tables)


def publish_training(model_id: str, folder: Path, *, trained: bool) -> None:
    """Metrics of the validation galaxies of a model."""
    if not in_flow_run():
        return
    from modeling.models.model_store import find_model

    model = find_model(folder.parent, model_id)
    rows = [
        {"rows": name, **{key: _number(value) for key, value in numbers.items()}}
        for name, numbers in model.metrics.items()
    ]
    told = "trained in this run" if trained else "trained before on this very training set, not trained again"
    _send(_table("training-metrics", rows, f"Model `{model_id}`, {told}."))


def publish_scores(model_id: str, *, n_scored: int, predictions: Path | None) -> None:
    """How many objects were scored, and where the new catalog's predictions are."""
    if not in_flow_run():
        return
    rows = [{"what": "scored in this run", "objects": f"{n_scored:,}"}]
    told = f"Model `{model_id}`."
    if predictions is not None:
        rows += [
            {"what": f"new catalog: {status.replace('_', ' ')}", "objects": f"{n:,}"}
            for status, n in _statuses(predictions).items()
        ]
        told += f" Predictions: `{predictions}`."
    _send(_table("score-counts", rows, told))


def publish_report(summary: Mapping[str, Any]) -> None:
    """Metrics of every predictor, what drifted, and links to the report's pages."""
    if not in_flow_run():
        return
    rows = [
        {"predictor": name, "rmse": _number(one["rmse"]), "nmad": _number(one["nmad"]), "bias": _number(one["bias"]),
         "galaxies": one["n"]}
        if isinstance(one, Mapping)
        else {"predictor": name, "rmse": "", "nmad": "", "bias": "", "galaxies": one}
        for name, one in summary["predictors"].items()
    ]  # fmt: skip
    told = summary["verdict"]
    artifacts = [
        _table("report-metrics", rows, told),
        _link("report", Path(summary["paths"]["report"]), "Report of the model", told),
        _link(
            "data-quality", Path(summary["paths"]["quality"]), "Data quality", "Counts, drift, coverage, quarantine."
        ),
        _link(
            "predictions", Path(summary["paths"]["predictions_page"]), "Predictions", "What the model says, and flags."
        ),
    ]
    drifts = [one for one in summary["quality"]["drift"] if one["psi"] is not None][:N_DRIFTS]
    if drifts:
        lines = [
            {"column": one["column"], "drift": one["verdict"], "psi": _number(one["psi"]), "ks": _number(one["ks"])}
            for one in drifts
        ]
        what = "Objects that came since, against those before: the columns that moved most."
        artifacts.append(_table("column-drift", lines, what))
    _send(*artifacts)


def _statuses(predictions: Path) -> dict[str, int]:
    import pyarrow.parquet

    if not predictions.is_file():
        return {}
    names = pyarrow.parquet.read_schema(predictions).names
    if "status" not in names:
        return {}
    counted = pyarrow.parquet.read_table(predictions, columns=["status"]).column("status").value_counts().to_pylist()
    return {str(one["values"]): int(one["counts"]) for one in sorted(counted, key=lambda one: -one["counts"])}


def _number(value: float | None) -> str:
    if value is None:
        return "n/a"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """One artifact: a table as JSON, or a link as Markdown, which is how Prefect keeps them."""

    key: str
    kind: Literal["table", "markdown"]
    content: str
    description: str


def _table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> _Shown:
    content = json.dumps([dict(row) for row in rows])
    return _Shown(key=key, kind="table", content=content, description=description)


def _link(key: str, path: Path, text: str, description: str) -> _Shown:
    # a browser does not follow a link from a server's page to a file: its path is there to be copied
    content = f"[{text}]({path.absolute().as_uri()})\n\n`{path.absolute()}`"
    return _Shown(key=key, kind="markdown", content=content, description=description)


def _send(*artifacts: _Shown) -> None:
    """Send artifacts of the run under way over one connection, which is closed: Prefect's functions leave theirs."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate

    with forgiven(", ".join(one.key for one in artifacts)), get_client(sync_client=True) as client:
        for one in artifacts:
            sent = ArtifactCreate(
                key=one.key, type=one.kind, description=one.description, data=one.content, **run_ids()
            )
            client.create_artifact(sent)

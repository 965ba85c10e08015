"""The flows as they are deployed: with a time limit, so that a run that hangs ends by itself.

Each does the work of the flow of its name; that is imported once the run is under way, so that deploying and starting
are quick. The limit is `GALSTORE_TIME_LIMIT_S`, set for each deployment in `prefect.yaml`.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any

from prefect import flow

TIME_LIMIT_S = float(os.environ.get("GALSTORE_TIME_LIMIT_S", "0")) or None
"""Seconds that a run may take; None = as long as it likes."""

GRACE_S = 60.0
"""A run that is stuck where no Python runs cannot be interrupted; it is killed so long after its limit."""


def kill_when_stuck(*_: Any) -> None:
    """Kill this process some time after the limit; as it is a daemon's, the timer ends with the run."""
    if TIME_LIMIT_S is not None:
        watchdog = threading.Timer(TIME_LIMIT_S + GRACE_S, os.kill, (os.getpid(), signal.SIGKILL))
        watchdog.daemon = True
        watchdog.start()


_LIMITED: dict[str, Any] = {"timeout_seconds": TIME_LIMIT_S, "on_running": [kill_when_stuck]}


@flow(name="ingest", **_LIMITED)
def ingest(
    recipe: str = "demo", overrides: list[str] | None = None, retry_quarantined: list[str] | None = None
) -> dict[str, Any]:
    """Register the survey's catalog and pull every cutout that is still pending.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file.
    overrides
        `section.key=value`.
    retry_quarantined
        Reasons of quarantine whose objects are asked for again; "all" for every reason.
    """
    from flows.ingest import ingest as work

    return work.fn(recipe, overrides, retry_quarantined)


@flow(name="train", **_LIMITED)
def train(recipe: str = "demo", overrides: list[str] | None = None) -> dict[str, Any]:
    """Train the recipe's network on the cube's labelled objects.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file.
    overrides
        `section.key=value`.
    """
    from flows.train import train as work

    return work.fn(recipe, overrides)


@flow(name="score", **_LIMITED)
def score(recipe: str = "demo", overrides: list[str] | None = None, catalog: str | None = None) -> dict[str, Any]:
    """Score the held-out galaxies and a new catalog.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file.
    overrides
        `section.key=value`.
    catalog
        CSV, ECSV, FITS, VOTable or Parquet with object_id, ra, dec; the recipe's own by default.
    """
    from flows.score import score as work

    named = [] if catalog is None else [f"score.catalog={json.dumps(catalog)}"]
    return work.fn(recipe, [*(overrides or []), *named])


@flow(name="report", **_LIMITED)
def report(recipe: str = "demo", overrides: list[str] | None = None) -> dict[str, Any]:
    """Write the report of a recipe's model and predictions.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file.
    overrides
        `section.key=value`.
    """
    from flows.report import report as work

    return work.fn(recipe, overrides)

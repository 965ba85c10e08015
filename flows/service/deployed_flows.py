"""The flows as they are deployed: patient with services that fail, and with a time limit for runs that hang.

Each does the work of the flow of its name; that is imported once the run is under way, so that deploying and starting
are quick. Both are set for each deployment in `prefect.yaml`: `GALSTORE_PATIENCE_S` and `GALSTORE_TIME_LIMIT_S`.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any

from prefect import Flow, flow, get_run_logger
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from schemas.errors import ServiceError

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


PATIENCE_S = float(os.environ.get("GALSTORE_PATIENCE_S", "0"))
"""Seconds for which a service that fails is tried again, beyond the retries of single tasks."""

_LIMITED: dict[str, Any] = {"timeout_seconds": TIME_LIMIT_S, "on_running": [kill_when_stuck]}


def _patiently(work: Flow[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Do a flow's work within this run; again while a service fails, and at once no more if the input is wrong."""
    trying = Retrying(
        retry=retry_if_exception_type(ServiceError),
        wait=wait_exponential(multiplier=30, max=900),
        stop=stop_after_delay(PATIENCE_S),
        before_sleep=_tell_pause,
        reraise=True,
    )
    return trying(work.fn, *arguments)


def _tell_pause(trial: RetryCallState) -> None:
    error = trial.outcome.exception() if trial.outcome else None
    get_run_logger().warning("%s; another try in %.0f s", error, trial.upcoming_sleep)


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

    return _patiently(work, recipe, overrides, retry_quarantined)


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

    return _patiently(work, recipe, overrides)


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
    return _patiently(work, recipe, [*(overrides or []), *named])


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

    return _patiently(work, recipe, overrides)

"""Flows of the deployments, with the time limit and the retries that `prefect.yaml` sets for each of them.

A flow's work is imported when its run starts, so that deploying is quick.
"""

from __future__ import annotations

import inspect
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from prefect import Flow
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from flows.runtime import Summary, load_recipe
from schemas.errors import ServiceError
from schemas.recipes import Recipe

GRACE_S = 60.0
"""A run that does not respond to its time limit, for example in a C library, is killed this much later."""

logger = logging.getLogger(__name__)


def deployed_flow(work: Callable[..., Summary]) -> Flow[..., Summary]:
    """Build the flow of a deployment from a function of a recipe.

    The flow takes the recipe as two values that a person can type, `recipe` (a name or the path of a TOML file) and
    `overrides` (`section.key=value`). `GALSTORE_TIME_LIMIT_S` limits the seconds of a run; 0 = no limit. While a
    service fails, the work is retried for `GALSTORE_PATIENCE_S` seconds, in addition to the retries of single tasks.
    Further keyword arguments of `work` become parameters of the flow.
    """
    time_limit_s = float(os.environ.get("GALSTORE_TIME_LIMIT_S", "0")) or None
    patience_s = float(os.environ.get("GALSTORE_PATIENCE_S", "0"))

    def run(recipe: str = "demo", overrides: list[str] | None = None, **options: object) -> Summary:
        log_to_prefect()
        retrying = Retrying(
            retry=retry_if_exception_type(ServiceError),
            wait=wait_exponential(multiplier=30, max=900),
            stop=stop_after_delay(patience_s),
            before_sleep=_log_pause,
            reraise=True,
        )
        return retrying(work, load_recipe(recipe, overrides), **options)

    def kill_when_stuck(flow: object, flow_run: object, state: object) -> None:  # noqa: ARG001 - Prefect's signature
        if time_limit_s is not None:
            watchdog = threading.Timer(time_limit_s + GRACE_S, os.kill, (os.getpid(), signal.SIGKILL))
            watchdog.daemon = True  # a run that ends in time takes the timer with it
            watchdog.start()

    run.__name__, run.__doc__ = work.__name__, work.__doc__
    run.__dict__["__signature__"] = _typed_signature(run, work)
    return Flow(run, name=work.__name__, timeout_seconds=time_limit_s, on_running=[kill_when_stuck])


def _typed_signature(run: Callable[..., Summary], work: Callable[..., Summary]) -> inspect.Signature:
    # Prefect derives the form of a run's parameters from it
    own = list(inspect.signature(run, eval_str=True).parameters.values())[:2]
    options = list(inspect.signature(work, eval_str=True).parameters.values())[1:]
    return inspect.Signature([*own, *(option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options)])


def log_to_prefect() -> None:
    """Enable INFO lines of our loggers: Prefect attaches its handler to them (`prefect.yaml`), but sets no level."""
    for package in ("galstore", "modeling", "flows"):
        logging.getLogger(package).setLevel(logging.INFO)


def _log_pause(attempt: RetryCallState) -> None:
    error = attempt.outcome.exception() if attempt.outcome else None
    logger.warning("%s; retry in %.0f s", error, attempt.upcoming_sleep)


@deployed_flow
def ingest(recipe: Recipe, retry_quarantined: list[str] | None = None) -> Summary:
    """Register the survey's catalog and pull every pending cutout.

    Parameters
    ----------
    retry_quarantined
        Reasons of quarantine whose objects are requested again; "all" for every reason.
    """
    from flows.ingest import ingest as flow

    return flow.fn(recipe, retry_quarantined)


@deployed_flow
def train(recipe: Recipe) -> Summary:
    """Train the recipe's network on the cube's labelled objects."""
    from flows.train import train as flow

    return flow.fn(recipe)


@deployed_flow
def score(recipe: Recipe, catalog: str | None = None) -> Summary:
    """Score the held-out galaxies and a new catalog.

    Parameters
    ----------
    catalog
        CSV, ECSV, FITS, VOTable or Parquet with object_id, ra, dec; by default the catalog of the recipe.
    """
    from flows.score import score as flow

    return flow.fn(recipe if catalog is None else recipe.with_values({"score.catalog": Path(catalog)}))


@deployed_flow
def report(recipe: Recipe) -> Summary:
    """Write the report of the recipe's model and predictions."""
    from flows.report import report as flow

    return flow.fn(recipe)

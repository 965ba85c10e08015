"""The flows as they are deployed: with a time limit, so that a run that hangs ends by itself.

The limit is `GALSTORE_TIME_LIMIT_S`, set for each deployment in `prefect.yaml`.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from prefect import flow

from flows import ingest as ingest_module
from flows import report as report_module
from flows import score as score_module
from flows import train as train_module

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

ingest = ingest_module.ingest.with_options(**_LIMITED)
train = train_module.train.with_options(**_LIMITED)
report = report_module.report.with_options(**_LIMITED)


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
    named = [] if catalog is None else [f"score.catalog='{catalog}'"]
    return score_module.score.fn(recipe, [*(overrides or []), *named])

"""Run: ingest, train, score and report, in this order."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.ingest import ingest
from flows.report import report
from flows.runtime import survey_address
from flows.score import score
from flows.train import train


@flow(name="run")
def run(recipe: str = "demo", overrides: list[str] | None = None) -> dict[str, Any]:
    """Take a survey all the way to a scored catalog and a report; every step does only what is missing.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file.
    overrides
        `section.key=value`.
    """
    with survey_address(recipe, overrides):
        return {
            "ingest": ingest(recipe, overrides),
            "train": train(recipe, overrides),
            "score": score(recipe, overrides),
            "report": report(recipe, overrides),
        }

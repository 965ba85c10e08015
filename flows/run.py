"""Flow `run`: ingest, train, score and report."""

from __future__ import annotations

from prefect import flow

from flows.ingest import ingest
from flows.report import report
from flows.runtime import Summary, survey_address
from flows.score import score
from flows.train import train
from schemas.recipes import Recipe


@flow(name="run")
def run(recipe: Recipe, survey_url: str | None = None) -> Summary:
    """Take a survey to a scored catalog and a report; finished work is skipped.

    Parameters
    ----------
    recipe
        Recipe of the run.
    survey_url
        Address of the recipe's emulator if it runs already.

    Returns
    -------
    dict
        Results of the flows `ingest`, `train`, `score` and `report`.
    """
    with survey_address(recipe, survey_url) as base_url:
        return {
            "ingest": ingest(recipe, survey_url=base_url),
            "train": train(recipe),
            "score": score(recipe, base_url),
            "report": report(recipe),
        }

"""Flow `score`: register a new catalog, pull its cutouts, and predict it and the held-out galaxies."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.engine.scoring import Engine, prediction_attributes, score_blocks, score_here
from flows.ingest import pull_cutouts, register_catalog_file
from flows.outputs import (
    held_out_rows,
    model_folder,
    predictions_id,
    predictions_path,
    scoring_member_ids,
    training_set_of,
)
from flows.prefect_artifacts import publish_scores
from flows.runtime import TRANSIENT_FAILURES, Summary, dask_client, progress_bar, survey_address
from galstore.cube.predictions import unscored_rows
from galstore.cube.reader import open_cube
from galstore.export.predictions import write_scored_catalog
from galstore.survey.cutout_service import cutout_service_of
from schemas.cube import BLOCK_ROWS
from schemas.recipes import Recipe

if TYPE_CHECKING:
    from modeling.scoring.scorer import Scorer

logger = logging.getLogger(__name__)


@flow(name="score")
def score(recipe: Recipe, survey_url: str | None = None) -> Summary:
    """Score the held-out galaxies and the new catalog that the recipe names.

    Parameters
    ----------
    recipe
        Recipe of the run.
    survey_url
        Address of the recipe's emulator if it runs already.

    Returns
    -------
    dict
        Id of the model, number of objects scored in this run, and path of the new catalog's predictions.
    """
    cube = open_cube(recipe.store.path)
    training_set = training_set_of(recipe, cube)
    member_ids = scoring_member_ids(recipe, training_set)
    model_id = predictions_id(member_ids)
    rows = held_out_rows(training_set)
    objects = None
    if recipe.score.catalog is not None:
        objects = pull_new_catalog(recipe, recipe.score.catalog, survey_url)
        cube = open_cube(recipe.store.path)
        rows = np.union1d(rows, cube.rows_of(objects["object_id"].to_numpy()))
    n_scored = score_rows(recipe, member_ids, rows)
    path = None if objects is None else publish_predictions(recipe, model_id, objects)
    publish_scores(model_id, n_scored=n_scored, predictions=path)
    return {"model_id": model_id, "n_scored": n_scored, "predictions": None if path is None else str(path)}


def pull_new_catalog(recipe: Recipe, catalog: Path, survey_url: str | None = None) -> pd.DataFrame:
    """Register a new catalog and pull its cutouts; return its objects in file order."""
    with survey_address(recipe, survey_url) as base_url:
        _, objects = register_catalog_file(recipe, catalog)
        rows = open_cube(recipe.store.path).rows_of(objects["object_id"].to_numpy())
        pull_cutouts(recipe, cutout_service_of(recipe.survey, base_url), rows)
    return objects


@task(cache_policy=NO_CACHE, **TRANSIENT_FAILURES)
def score_rows(recipe: Recipe, member_ids: Sequence[str], rows: npt.NDArray[np.int64]) -> int:
    """Score the rows without a prediction of these models; a retry continues after the last commit."""
    cube = open_cube(recipe.store.path)
    model_id = predictions_id(member_ids)
    rows = unscored_rows(cube, model_id, rows)
    if not rows.size:
        logger.info("predictions of model %s: all stored, nothing to score", model_id)
        return 0
    scorer = open_scorer(recipe, member_ids)
    scorer.require_scale(cube.scale)
    with (
        progress_bar(f"scoring, mean over {recipe.score.views} views", rows.size) as progress,
        scoring_engine(recipe, scorer, n_tasks=math.ceil(rows.size / BLOCK_ROWS)) as engine,
    ):
        return score_blocks(
            recipe.store.path,
            model_id,
            rows,
            engine,
            attributes=prediction_attributes(scorer),
            blocks_per_commit=recipe.dask.blocks_per_commit,
            progress=progress,
        )


def open_scorer(recipe: Recipe, member_ids: Sequence[str]) -> Scorer:
    from modeling.models.checkpoint import load_model
    from modeling.scoring.scorer import Scorer

    return Scorer(
        predictions_id=predictions_id(member_ids),
        members=tuple(load_model(model_folder(recipe, member_id)) for member_id in member_ids),
        views=recipe.score.views,
        batch_size=recipe.score.batch_size,
    )


@contextmanager
def scoring_engine(recipe: Recipe, scorer: Scorer, *, n_tasks: int) -> Iterator[Engine]:
    """Yield the function that scores blocks: in this process, or on Dask workers if the recipe asks for them."""
    if not (recipe.dask.scheduler or recipe.score.workers):
        yield partial(score_here, scorer)
        return
    from flows.engine.workers import THREADS_PER_WORKER, score_on_workers

    section = recipe.dask.model_copy(update={"workers": recipe.score.workers})
    with dask_client(section, n_tasks=n_tasks, threads_per_worker=THREADS_PER_WORKER) as client:
        yield partial(score_on_workers, scorer, client, is_own_cluster=not recipe.dask.scheduler)


def publish_predictions(recipe: Recipe, model_id: str, objects: pd.DataFrame) -> Path:
    """Write the new catalog's predictions as Parquet, unless the file is up to date."""
    cube = open_cube(recipe.store.path)
    path = predictions_path(recipe)
    counts = write_scored_catalog(path, cube, model_id, objects)
    by_status = ", ".join(f"{n} {status}" for status, n in counts.items())
    logger.info("predictions of %d objects (%s): %s", len(objects), by_status, path)
    return path

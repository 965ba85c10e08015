"""Score: a new catalog is registered, its cutouts are pulled, and a model predicts it and the held-out galaxies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.engine.scoring import Engine, attributes_of, score_blocks, score_here
from flows.ingest import pull_cutouts, register_catalog_file
from flows.outputs import held_out_rows, model_folder, predictions_id, predictions_path, scoring_member_ids
from flows.prefect_artifacts import publish_scores
from flows.runtime import PASSING_FAILURES, console, dask_client, load_recipe, progress_bar, survey_address
from galstore.cube.predictions import unscored_rows
from galstore.cube.reader import open_cube
from galstore.export.predictions import write_scored_catalog
from galstore.survey.cutout_service import cutout_service_of
from schemas.cube import BLOCK_ROWS
from schemas.recipes import Recipe

if TYPE_CHECKING:
    from modeling.scoring.scorer import Scorer


@flow(name="score")
def score(recipe: str = "demo", overrides: list[str] | None = None) -> dict[str, Any]:
    """Score the held-out galaxies and, if the recipe names one, a new catalog.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file.
    overrides
        `section.key=value`.

    Returns
    -------
    dict
        The model's id, how many objects were scored now, and the path of the new catalog's predictions.
    """
    loaded = load_recipe(recipe, overrides)
    cube = open_cube(loaded.store.path)
    member_ids = scoring_member_ids(loaded, cube)
    model_id = predictions_id(member_ids)
    rows = held_out_rows(loaded, cube)
    objects = None
    if loaded.score.catalog is not None:
        objects = pull_new_catalog(loaded, loaded.score.catalog, recipe, overrides)
        cube = open_cube(loaded.store.path)
        rows = np.union1d(rows, cube.rows_of(objects["object_id"].to_numpy()))
    n_scored = score_rows(loaded, member_ids, rows)
    path = None if objects is None else publish_predictions(loaded, model_id, objects)
    publish_scores(model_id, n_scored=n_scored, predictions=path)
    return {"model_id": model_id, "n_scored": n_scored, "predictions": None if path is None else str(path)}


def pull_new_catalog(recipe: Recipe, catalog: Path, name: str, overrides: list[str] | None) -> pd.DataFrame:
    """Register the catalog that is to be scored and pull its cutouts; its objects come back in file order."""
    with survey_address(name, overrides) as base_url:
        _, objects = register_catalog_file(recipe, catalog)
        rows = open_cube(recipe.store.path).rows_of(objects["object_id"].to_numpy())
        pull_cutouts(recipe, cutout_service_of(recipe.survey, base_url), rows)
    return objects


@task(cache_policy=NO_CACHE, **PASSING_FAILURES)
def score_rows(recipe: Recipe, member_ids: Sequence[str], rows: npt.NDArray[np.int64]) -> int:
    """Predict what these models have not predicted yet; a try after a failure goes on where the last commit stands."""
    cube = open_cube(recipe.store.path)
    model_id = predictions_id(member_ids)
    rows = unscored_rows(cube, model_id, rows)
    if not rows.size:
        console.print(f"predictions of model {model_id}: all there, nothing scored again")
        return 0
    scorer = open_scorer(recipe, member_ids)
    scorer.require_scale(cube.scale)
    with (
        progress_bar(f"scoring, mean over {recipe.score.views} views", rows.size) as progress,
        scoring_engine(recipe, scorer, n_tasks=math.ceil(rows.size / BLOCK_ROWS)) as engine,
    ):
        return score_blocks(
            recipe.store.path, model_id, rows, engine, attributes=attributes_of(scorer),
            blocks_per_commit=recipe.dask.blocks_per_commit, progress=progress,
        )  # fmt: skip


def open_scorer(recipe: Recipe, member_ids: Sequence[str]) -> Scorer:
    """Load the models that score."""
    from modeling.models.checkpoint import load_model
    from modeling.scoring.scorer import Scorer

    return Scorer(
        predictions_id=predictions_id(member_ids),
        members=tuple(load_model(model_folder(recipe, one)) for one in member_ids),
        views=recipe.score.views,
        batch_size=recipe.score.batch_size,
    )


@contextmanager
def scoring_engine(recipe: Recipe, scorer: Scorer, *, n_tasks: int) -> Iterator[Engine]:
    """What scores blocks: this process, or the Dask workers that the recipe asks for."""
    if not (recipe.dask.scheduler or recipe.score.workers):
        yield partial(score_here, scorer)
        return
    from flows.engine.workers import THREADS_PER_WORKER, score_on_workers

    section = recipe.dask.model_copy(update={"workers": recipe.score.workers})
    with dask_client(section, n_tasks=n_tasks, threads_per_worker=THREADS_PER_WORKER) as client:
        yield partial(score_on_workers, scorer, client, is_own_cluster=not recipe.dask.scheduler)


def publish_predictions(recipe: Recipe, model_id: str, objects: pd.DataFrame) -> Path:
    """Write the new catalog's predictions as Parquet, unless the very same are there."""
    cube = open_cube(recipe.store.path)
    path = predictions_path(recipe)
    counts = write_scored_catalog(path, cube, model_id, objects)
    told = ", ".join(f"{n} {status}" for status, n in counts.items())
    console.print(f"predictions of {len(objects)} objects ({told}): {path}")
    return path

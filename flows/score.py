"""Score: a new catalog is registered, its cutouts are pulled, and a model predicts it and the held-out galaxies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.artefacts import held_out_rows, model_folder, predictions_path, scoring_model_id
from flows.ingest import pull_cutouts, register_catalog_file
from flows.runtime import ProgressBar, console, load_recipe, progress_bar, survey_address
from galstore.blocks import blocks_with, waves_of
from galstore.predictions import prediction_catalog, unscored_rows, write_prediction_catalog, write_predictions
from galstore.reader import Cube, open_cube
from galstore.services.skyserver import SkyServer
from schemas.catalog import COLUMN
from schemas.recipes import Recipe

if TYPE_CHECKING:
    from modeling.model import Model


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
    model_id = scoring_model_id(loaded, cube)
    rows = held_out_rows(loaded, cube)
    objects = None
    if loaded.score.catalog is not None:
        objects = pull_new_catalog(loaded, loaded.score.catalog, recipe, overrides)
        cube = open_cube(loaded.store.path)
        rows = np.union1d(rows, cube.rows_of(objects["object_id"].to_numpy()))
    n_scored = score_rows(loaded, cube, model_id, rows)
    path = None if objects is None else publish_predictions(loaded, model_id, objects)
    return {"model_id": model_id, "n_scored": n_scored, "predictions": None if path is None else str(path)}


def pull_new_catalog(recipe: Recipe, catalog: Path, name: str, overrides: list[str] | None) -> pd.DataFrame:
    """Register the catalog that is to be scored and pull its cutouts; its objects come back in file order."""
    with survey_address(name, overrides) as base_url:
        _, objects = register_catalog_file(recipe, catalog)
        rows = open_cube(recipe.store.path).rows_of(objects["object_id"].to_numpy())
        pull_cutouts(recipe, SkyServer(base_url=base_url, data_release=recipe.survey.data_release), rows)
    return objects


def score_rows(recipe: Recipe, cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> int:
    """Predict what this model has not predicted yet; one task and one commit a wave of blocks."""
    rows = unscored_rows(cube, model_id, rows)
    if not rows.size:
        console.print(f"predictions of model {model_id}: all there, nothing scored again")
        return 0
    from modeling.models.checkpoint import load_model

    model = load_model(model_folder(recipe, model_id))
    model.require_scale(cube.scale)
    wanted = np.zeros(cube.n_objects, dtype=bool)
    wanted[rows] = True
    with progress_bar(f"scoring, mean over {recipe.score.views} views", rows.size) as progress:
        for wave in waves_of(blocks_with(wanted), recipe.dask.blocks_per_wave):
            score_wave(
                recipe, cube, model, [block.start + np.flatnonzero(wanted[block.rows]) for block in wave], progress
            )
    return int(rows.size)


@task(cache_policy=NO_CACHE)
def score_wave(
    recipe: Recipe, cube: Cube, model: Model, rows_by_block: list[npt.NDArray[np.int64]], progress: ProgressBar
) -> None:
    """Predict the objects of some blocks and commit them together."""
    from modeling.predict import predict

    predictions = []
    for rows in rows_by_block:
        pixels = cube.read_pixels(model.config.level, rows)
        predictions.append(predict(model, pixels, views=recipe.score.views, batch_size=recipe.score.batch_size))
        progress.advance(rows.size)
    write_predictions(
        recipe.store.path,
        model.config.model_id,
        np.concatenate(rows_by_block),
        {
            "mean": np.concatenate([one.mean for one in predictions]),
            "view_spread": np.concatenate([one.view_spread for one in predictions]),
        },
        attributes={
            "target": model.config.target,
            "units": COLUMN[model.config.target].unit,
            "training_set": model.config.training_set,
            "level": model.config.level,
            "views": recipe.score.views,
        },
        embeddings=np.concatenate([one.embedding for one in predictions]),
    )


def publish_predictions(recipe: Recipe, model_id: str, objects: pd.DataFrame) -> Path:
    """Write the new catalog's predictions as Parquet, unless the very same are there."""
    cube = open_cube(recipe.store.path)
    catalog = prediction_catalog(cube, model_id, objects)
    path = predictions_path(recipe)
    write_prediction_catalog(
        path, catalog, provenance={"model_id": model_id, "target": recipe.train.target, "snapshot": cube.snapshot_id}
    )
    counts = catalog["status"].value_counts()
    told = ", ".join(f"{n} {status}" for status, n in counts.items())
    console.print(f"predictions of {len(catalog)} objects ({told}): {path}")
    return path

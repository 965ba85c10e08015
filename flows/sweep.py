"""Flow `sweep`: train at each level of the cube and evaluate on the same held-out galaxies."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from prefect import flow

from flows.engine.simulated_limits import simulated_limits
from flows.outputs import cached_table, model_folder, trained_model_id, training_set_of, write_csv
from flows.runtime import Summary
from flows.train import pixels_of, train
from galstore.cube.reader import Cube, open_cube
from galstore.features.training_set import TrainingSet
from schemas.cube import LEVELS
from schemas.errors import RecipeError
from schemas.features import Split
from schemas.fingerprints import fingerprint
from schemas.recipes import Recipe

logger = logging.getLogger(__name__)

NETWORK = "network"
COLUMNS = ("predictor", "level", "rmse", "nmad", "n", "model_id")
"""Columns of sweep.csv. Baselines use no images: their level is 0 and their model id is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelPlan:
    """Level of a sweep with its recipe and model."""

    level: int
    recipe: Recipe
    model_id: str
    folder: Path
    """Folder of the model."""
    training_set: TrainingSet

    @property
    def is_trained(self) -> bool:
        return self.folder.is_dir()

    @property
    def predictions_file(self) -> Path:
        """Cached predictions of the held-out galaxies; the name follows from everything they depend on."""
        name = fingerprint(model=self.model_id, views=self.recipe.score.views)
        return self.recipe.output.folder / "sweep" / "held_out" / f"{self.level}px-{name}.csv"


def plan_sweep(recipe: Recipe, levels: Sequence[int]) -> tuple[LevelPlan, ...]:
    """Plan the levels of a sweep, finest first, with the model of each, trained or not.

    Raises
    ------
    RecipeError
        `levels` is empty, has a duplicate, or has a level that the cube does not have.
    """
    if not levels or len(set(levels)) < len(levels) or not set(levels) <= set(LEVELS):
        raise RecipeError(
            f"levels {', '.join(map(str, levels)) or '(none)'}: give some of {', '.join(map(str, LEVELS))}, each once"
        )
    cube = open_cube(recipe.store.path)
    return tuple(_plan_level(recipe.with_values({"network.level": level}), cube) for level in sorted(levels)[::-1])


def _plan_level(recipe: Recipe, cube: Cube) -> LevelPlan:
    training_set = training_set_of(recipe, cube)
    model_id = trained_model_id(recipe, training_set)
    return LevelPlan(
        level=recipe.network.level,
        recipe=recipe,
        model_id=model_id,
        folder=model_folder(recipe, model_id),
        training_set=training_set,
    )


@flow(name="sweep")
def sweep(recipe: Recipe, levels: Sequence[int] = LEVELS) -> list[Summary]:
    """Train the recipe's network at each level, and evaluate each on the recipe's held-out galaxies.

    Trained models and cached predictions are reused, so that a killed sweep resumes.

    Parameters
    ----------
    recipe
        Recipe of the run; its `network.level` is ignored.
    levels
        Sides of the images, px.

    Returns
    -------
    list of dict
        Rows of `sweep/sweep.csv` in the recipe's output folder, written after each level.
        `sweep/predictions.csv` has each held-out galaxy's label and all predictions of it.
    """
    plans = plan_sweep(recipe, levels)
    finest = plans[0]
    cube = finest.training_set.cube
    held_out = held_out_labels(finest.training_set)
    baselines = predict_baselines(finest.recipe, cube, finest.training_set)
    curve: dict[int, pd.DataFrame] = {}
    for done, plan in enumerate(plans, start=1):
        if not plan.is_trained:
            train(plan.recipe)
        curve[plan.level] = cached_table(plan.predictions_file, partial(predict_held_out, plan, cube))
        table = evaluate_sweep(plans[:done], held_out, curve, baselines)
        folder = finest.recipe.output.folder / "sweep"
        write_csv(folder / "sweep.csv", table)
        write_csv(folder / "predictions.csv", predictions_table(held_out, curve, baselines))
        row = table[(table["predictor"] == NETWORK) & (table["level"] == plan.level)].iloc[0]
        logger.info(
            "%d of %d levels: %3d px, RMSE %.4f, NMAD %.4f", done, len(plans), plan.level, row["rmse"], row["nmad"]
        )
    return [{str(key): value for key, value in row.items()} for row in table.to_dict(orient="records")]


def held_out_labels(training_set: TrainingSet) -> pd.DataFrame:
    """Return `object_id` and `true` of the labelled held-out galaxies."""
    indices = training_set.labelled(training_set.evaluation_split)
    return pd.DataFrame({"object_id": training_set.object_ids[indices], "true": training_set.labels[indices]})


def predict_held_out(plan: LevelPlan, cube: Cube) -> pd.DataFrame:
    """Predict the held-out galaxies with a level's network; columns `object_id`, `predicted`."""
    from modeling.models.checkpoint import load_model
    from modeling.scoring.predict import predict_pixels

    training_set, settings = plan.training_set, plan.recipe.score
    indices = training_set.labelled(training_set.evaluation_split)
    model = load_model(plan.folder)
    model.require_scale(cube.scale)
    pixels = pixels_of(plan.recipe, cube, training_set.rows[indices])
    predicted = predict_pixels(model, pixels, views=settings.views, batch_size=settings.batch_size).mean
    return pd.DataFrame({"object_id": training_set.object_ids[indices], "predicted": predicted})


def predict_baselines(recipe: Recipe, cube: Cube, training_set: TrainingSet) -> Mapping[str, npt.NDArray[np.float64]]:
    """Predict with baselines that use no images: mean, random forest and, on a simulated sky, the oracle.

    A baseline that cannot be fitted is omitted, and the reason is logged.
    """
    from modeling.evaluation.baselines import FOREST_COLUMNS, predict_forest, predict_mean

    fit, held_out = training_set.indices(Split.TRAIN), training_set.labelled(training_set.evaluation_split)
    fit = fit[np.isfinite(training_set.labels[fit])]
    magnitudes = cube.read_catalog(FOREST_COLUMNS).iloc[training_set.rows]
    labels = training_set.labels[fit]
    predicted = {}
    for name, baseline in {
        "mean": predict_mean(labels, held_out.size),
        "forest": predict_forest(magnitudes.iloc[fit], labels, magnitudes.iloc[held_out], seed=recipe.train.seed),
    }.items():
        if baseline.note:
            logger.info("%s: %s", name, baseline.note)
        if baseline.predicted is not None:
            predicted[name] = baseline.predicted
    limits = simulated_limits(recipe, training_set.object_ids[held_out])
    if limits is not None:
        predicted |= {"oracle": limits["oracle"].to_numpy(), "colours": limits["total_colours"].to_numpy()}
    return predicted


def evaluate_sweep(
    plans: Sequence[LevelPlan],
    held_out: pd.DataFrame,
    curve: Mapping[int, pd.DataFrame],
    baselines: Mapping[str, npt.NDArray[np.float64]],
) -> pd.DataFrame:
    """Build the rows of sweep.csv: networks, finest level first, then baselines."""
    from modeling.evaluation.baselines import Baseline

    true = held_out["true"].to_numpy()
    rows: list[tuple[object, ...]] = []
    named = [(NETWORK, plan.level, plan.model_id, curve[plan.level]["predicted"].to_numpy()) for plan in plans]
    for name, level, model_id, predicted in [*named, *((name, 0, "", p) for name, p in baselines.items())]:
        result = Baseline(name=name, predicted=predicted).against(true)
        if not isinstance(result, str):
            rows.append((name, level, result.rmse, result.nmad, result.n, model_id))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def predictions_table(
    held_out: pd.DataFrame,
    curve: Mapping[int, pd.DataFrame],
    baselines: Mapping[str, npt.NDArray[np.float64]],
) -> pd.DataFrame:
    """Build a table with one row for each held-out galaxy: id, label, and a column for each level and baseline."""
    by_level = {f"{NETWORK}_{level}": table["predicted"].to_numpy() for level, table in curve.items()}
    return held_out.assign(**by_level, **baselines)

"""Sweep: the same training at each level of the cube, judged on the same held-out galaxies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from prefect import flow

from flows.csv_cache import kept_table, write_csv
from flows.outputs import model_folder, trained_model_id, training_set_of
from flows.runtime import console, load_recipe
from flows.train import pixels_of, train
from galstore.cube.reader import Cube, open_cube
from galstore.features.training_set import TrainingSet
from schemas.cube import LEVELS
from schemas.errors import RecipeError
from schemas.features import Split
from schemas.fingerprints import fingerprint
from schemas.recipes import Recipe

NETWORK = "network"
COLUMNS = ("predictor", "level", "rmse", "nmad", "n", "model_id")
"""Of sweep.csv. Baselines see no image: their level is 0 and they have no model's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelPlan:
    """One level of a sweep: the recipe at it, and the model that this recipe trains."""

    level: int
    recipe: Recipe
    overrides: tuple[str, ...]
    """Those that make the recipe, `network.level` included."""
    model_id: str
    folder: Path
    """Of the model."""
    training_set: TrainingSet

    @property
    def is_trained(self) -> bool:
        return self.folder.is_dir()

    @property
    def kept(self) -> Path:
        """Where its predictions of the held-out galaxies are kept; the name follows from all they depend on."""
        name = fingerprint(model=self.model_id, views=self.recipe.score.views)
        return self.recipe.output.folder / "sweep" / "held_out" / f"{self.level}px-{name}.csv"


def plan_sweep(recipe: str, overrides: Sequence[str] | None, levels: Sequence[int]) -> tuple[LevelPlan, ...]:
    """The levels of a sweep, the finest first, with the model of each, trained or not.

    Raises
    ------
    RecipeError
        No levels, one that comes twice, or one that the cube does not have.
    """
    if not levels or len(set(levels)) < len(levels) or not set(levels) <= set(LEVELS):
        raise RecipeError(
            f"levels {', '.join(map(str, levels)) or '(none)'}: give some of {', '.join(map(str, LEVELS))}, each once"
        )
    cube = open_cube(load_recipe(recipe, overrides).store.path)
    plans = []
    for level in sorted(levels, reverse=True):
        at_level = (*(overrides or ()), f"network.level={level}")
        loaded = load_recipe(recipe, at_level)
        training_set = training_set_of(loaded, cube)
        model_id = trained_model_id(loaded, training_set)
        plans.append(
            LevelPlan(
                level=level, recipe=loaded, overrides=at_level, model_id=model_id,
                folder=model_folder(loaded, model_id), training_set=training_set,
            )
        )  # fmt: skip
    return tuple(plans)


@flow(name="sweep")
def sweep(
    recipe: str = "demo", overrides: list[str] | None = None, levels: Sequence[int] = LEVELS
) -> list[dict[str, Any]]:
    """Train the recipe's network at each level, and judge each on the recipe's held-out galaxies.

    A model that is there is not trained again, and what it predicted is not predicted again: a sweep that was killed
    goes on where it was.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file; its `network.level` does not count.
    overrides
        `section.key=value`.
    levels
        Sides of the images, px.

    Returns
    -------
    list of dict
        The rows of `sweep/sweep.csv` in the recipe's output folder, which is written after each level.
        `sweep/predictions.csv` holds each held-out galaxy's label and what everyone predicts for it.
    """
    plans = plan_sweep(recipe, overrides, levels)
    finest = plans[0]
    cube = finest.training_set.cube
    held_out = held_out_labels(finest.training_set)
    baselines = predict_baselines(finest.recipe, cube, finest.training_set)
    curve: dict[int, pd.DataFrame] = {}
    for done, plan in enumerate(plans, start=1):
        if not plan.is_trained:
            train(recipe, list(plan.overrides))
        curve[plan.level] = kept_table(plan.kept, partial(predict_held_out, plan, cube))
        table = judge_sweep(plans[:done], held_out, curve, baselines)
        folder = finest.recipe.output.folder / "sweep"
        write_csv(folder / "sweep.csv", table)
        write_csv(folder / "predictions.csv", predictions_table(held_out, curve, baselines))
        judged = table[(table["predictor"] == NETWORK) & (table["level"] == plan.level)].iloc[0]
        console.print(
            f"{done} of {len(plans)} levels: {plan.level:3d} px, RMSE {judged['rmse']:.4f}, NMAD {judged['nmad']:.4f}"
        )
    return [{str(key): value for key, value in row.items()} for row in table.to_dict(orient="records")]


def judges(training_set: TrainingSet) -> npt.NDArray[np.int64]:
    """Positions of the held-out galaxies that have the label that is scored."""
    indices = training_set.indices(training_set.evaluation_split)
    return indices[np.isfinite(training_set.labels[indices])]


def held_out_labels(training_set: TrainingSet) -> pd.DataFrame:
    """`object_id` and `true` of the galaxies that judge."""
    indices = judges(training_set)
    return pd.DataFrame({"object_id": training_set.object_ids[indices], "true": training_set.labels[indices]})


def predict_held_out(plan: LevelPlan, cube: Cube) -> pd.DataFrame:
    """What a level's network predicts for the held-out galaxies: `object_id`, `predicted`."""
    from modeling.models.checkpoint import load_model
    from modeling.scoring.predict import predict_pixels

    training_set, settings = plan.training_set, plan.recipe.score
    indices = judges(training_set)
    model = load_model(plan.folder)
    model.require_scale(cube.scale)
    pixels = pixels_of(plan.recipe, cube, training_set.rows[indices])
    predicted = predict_pixels(model, pixels, views=settings.views, batch_size=settings.batch_size).mean
    return pd.DataFrame({"object_id": training_set.object_ids[indices], "predicted": predicted})


def predict_baselines(recipe: Recipe, cube: Cube, training_set: TrainingSet) -> Mapping[str, npt.NDArray[np.float64]]:
    """What those predict who see no pixel: the mean, the random forest and, of a simulated sky, the oracle.

    A baseline that cannot be fitted is left out, and the reason is told.
    """
    from modeling.evaluation.baselines import FOREST_COLUMNS, predict_forest, predict_mean

    fit, held_out = training_set.indices(Split.TRAIN), judges(training_set)
    fit = fit[np.isfinite(training_set.labels[fit])]
    magnitudes = cube.read_catalog(FOREST_COLUMNS).iloc[training_set.rows]
    labels = training_set.labels[fit]
    predicted = {}
    for name, baseline in {
        "mean": predict_mean(labels, held_out.size),
        "forest": predict_forest(magnitudes.iloc[fit], labels, magnitudes.iloc[held_out], seed=recipe.train.seed),
    }.items():
        if baseline.note:
            console.print(f"{name}: {baseline.note}")
        if baseline.predicted is not None:
            predicted[name] = baseline.predicted
    if recipe.sky_is_simulated and recipe.emulator is not None and recipe.train.target == "oh_p50":
        from galstore.emulator.sky.oracle import oracle_predictions
        from galstore.emulator.sky.simulated import SimulatedSky

        played = recipe.emulator
        sky = SimulatedSky(seed=played.seed, n_galaxies=played.n_galaxies, n_new=played.n_new)
        known = oracle_predictions(sky, training_set.object_ids[held_out])
        predicted |= {"oracle": known["oracle"].to_numpy(), "colours": known["total_colours"].to_numpy()}
    return predicted


def judge_sweep(
    plans: Sequence[LevelPlan],
    held_out: pd.DataFrame,
    curve: Mapping[int, pd.DataFrame],
    baselines: Mapping[str, npt.NDArray[np.float64]],
) -> pd.DataFrame:
    """The rows of sweep.csv: the curve, the finest level first, then the baselines."""
    from modeling.evaluation.baselines import Baseline

    true = held_out["true"].to_numpy()
    rows: list[tuple[Any, ...]] = []
    named = [(NETWORK, one.level, one.model_id, curve[one.level]["predicted"].to_numpy()) for one in plans]
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
    """One row a held-out galaxy: its id, its label, and a column for each level and each baseline."""
    by_level = {f"{NETWORK}_{level}": table["predicted"].to_numpy() for level, table in curve.items()}
    return held_out.assign(**by_level, **baselines)

"""Outputs of a recipe: their ids, which follow from the content of their parents, and their paths."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from flows.runtime import Summary, output_path
from galstore.atomic_write import atomic_file
from galstore.cube.reader import Cube
from galstore.features.frozen_set import build_training_set
from galstore.features.training_set import TrainingSet, draw_training_set
from modeling.models.model_store import STORE, find_model
from schemas.errors import WeightsError
from schemas.fingerprints import fingerprint
from schemas.recipes import Recipe

REPORT_FORM = 2
"""Version of the report's content; reports of older versions are written again. Increase it with new pages."""


def training_set_of(recipe: Recipe, cube: Cube) -> TrainingSet:
    """Draw the training set that a recipe describes from this snapshot of the cube."""
    return draw_training_set(cube, recipe.train.targets, features=_features(recipe), split=recipe.split)


def freeze_training_set(recipe: Recipe, cube: Cube, training_set: TrainingSet) -> str:
    """Store a model's training set in the cube and return its name."""
    name = f"train-{training_set.content_hash[:12]}"
    build_training_set(
        recipe.store.path,
        name,
        recipe.train.targets,
        features=_features(recipe),
        split=recipe.split,
        snapshot_id=cube.snapshot_id,
    )
    return name


def _features(recipe: Recipe) -> list[str]:
    return [f"image_{recipe.network.level}"]


def trained_model_id(recipe: Recipe, training_set: TrainingSet) -> str:
    """Return the id of the model that a recipe trains on a training set, trained or not."""
    return fingerprint(
        network=recipe.network,
        train=recipe.train.identity(),
        cutouts=recipe.cutouts,
        training_set=training_set.content_hash,
    )


def model_folder(recipe: Recipe, model_id: str) -> Path:
    return models_folder(recipe) / model_id


def models_folder(recipe: Recipe) -> Path:
    """Return the folder of a recipe's models."""
    return recipe.output.folder / STORE


def named_model_ids(recipe: Recipe) -> tuple[str, ...]:
    """Return the full ids of the models under `score.model`, in ascending order.

    Raises
    ------
    WeightsError
        A model does not exist, or its weights are damaged.
    """
    models = models_folder(recipe)
    stored = [find_model(models, name) for name in recipe.score.models]
    return tuple(sorted({model.require_sound("config.json", "model.safetensors").model_id for model in stored}))


def scoring_member_ids(recipe: Recipe, training_set: TrainingSet) -> tuple[str, ...]:
    """Return the ids of the models that score, ascending: those named in the recipe, or the one it trains.

    Raises
    ------
    WeightsError
        A model does not exist (yet), or is damaged.
    """
    named = named_model_ids(recipe)
    if named:
        return named
    model_id = trained_model_id(recipe, training_set)
    if not model_folder(recipe, model_id).is_dir():
        raise WeightsError(
            f"model {model_id} is not in {models_folder(recipe)}: run `galstore train` with this recipe, or set "
            "score.model to another model"
        )
    return (model_id,)


def predictions_id(member_ids: Sequence[str]) -> str:
    """Return the id of the predictions of one model or of an ensemble; the order of its members does not matter.

    Examples
    --------
    >>> predictions_id(["3f2a90c1b7de"])
    '3f2a90c1b7de'
    >>> predictions_id(["b", "a"]) == predictions_id(["a", "b"])
    True
    """
    return member_ids[0] if len(member_ids) == 1 else fingerprint(ensemble=sorted(member_ids))


def scoring_model_id(recipe: Recipe, training_set: TrainingSet) -> str:
    """Return the id under which this recipe's predictions are stored.

    Raises
    ------
    WeightsError
        A model does not exist (yet), or is damaged.
    """
    return predictions_id(scoring_member_ids(recipe, training_set))


def held_out_rows(training_set: TrainingSet) -> npt.NDArray[np.int64]:
    """Return the rows on which the report evaluates the network."""
    return training_set.rows[training_set.labelled(training_set.evaluation_split)]


def predictions_path(recipe: Recipe) -> Path:
    """Return the path of the new catalog's predictions."""
    catalog = recipe.score.catalog
    return output_path(recipe, "predictions", f"{catalog.stem if catalog else 'none'}.parquet")


def report_paths(recipe: Recipe) -> tuple[Path, Path]:
    """Return the paths of the report (HTML) and of its summary (JSON)."""
    return output_path(recipe, "report", "report.html"), output_path(recipe, "report", "report.json")


def report_fingerprint(recipe: Recipe, cube: Cube, model_id: str) -> str:
    """Return the fingerprint of a report's parents: recipe, model and snapshot."""
    return fingerprint(recipe=recipe, model=model_id, snapshot=cube.snapshot_id, form=REPORT_FORM)


def known_report(recipe: Recipe, cube: Cube, model_id: str) -> Summary | None:
    """Return the summary of the existing report if it has the same parents, else None."""
    summary = earlier_summary(recipe)
    if summary is None or summary["fingerprint"] != report_fingerprint(recipe, cube, model_id):
        return None
    return summary


def earlier_summary(recipe: Recipe) -> Summary | None:
    """Return the summary of the last report, or None."""
    return current_summary(recipe) if report_paths(recipe)[1].exists() else None


def current_summary(recipe: Recipe) -> Summary:
    """Return the summary of the last report."""
    summary: Summary = json.loads(report_paths(recipe)[1].read_text(encoding="utf-8"))
    return summary


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table atomically, without its index."""
    with atomic_file(path) as draft:
        table.to_csv(draft, index=False)


def cached_table(path: Path, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return the table stored at a path; compute and store it first if the file is missing.

    The result is always read from the file, so that it is the same in every run.

    Parameters
    ----------
    path
        CSV file. Its name must follow from everything that the table depends on (`schemas.fingerprints`).
    compute
        Compute the table.
    """
    if not path.is_file():
        write_csv(path, compute())
    return pd.read_csv(path)

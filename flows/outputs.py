"""Artefacts: what a recipe makes, by name and place. Each name follows from the content of its parents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flows.runtime import output_path
from galstore.cube.reader import Cube
from galstore.features.training_set import TrainingSet, build_training_set, draw_training_set
from modeling.models.model_store import STORE, find_model
from schemas.errors import WeightsError
from schemas.fingerprints import fingerprint
from schemas.recipes import Recipe

REPORT_FORM = 2
"""Raised when pages are added: a report of an older form is written again."""


def training_set_of(recipe: Recipe, cube: Cube) -> TrainingSet:
    """The training set that a recipe describes, as of this snapshot of the cube."""
    return draw_training_set(cube, recipe.train.targets, features=_features(recipe), split=recipe.split)


def freeze_training_set(recipe: Recipe, cube: Cube, training_set: TrainingSet) -> str:
    """Keep the set that a model is trained on, so that it can be read as long as the cube is there; its name."""
    name = f"train-{training_set.content_hash[:12]}"
    build_training_set(
        recipe.store.path, name, recipe.train.targets, features=_features(recipe), split=recipe.split,
        snapshot_id=cube.snapshot_id,
    )  # fmt: skip
    return name


def _features(recipe: Recipe) -> list[str]:
    return [f"image_{recipe.network.level}"]


def trained_model_id(recipe: Recipe, training_set: TrainingSet) -> str:
    """Id of the model that a recipe trains on a training set, trained or not."""
    return fingerprint(
        network=recipe.network,
        train=recipe.train.identity(),
        cutouts=recipe.cutouts,
        training_set=training_set.content_hash,
    )


def model_folder(recipe: Recipe, model_id: str) -> Path:
    """Where a recipe's models are kept."""
    return models_folder(recipe) / model_id


def models_folder(recipe: Recipe) -> Path:
    """The store that a recipe's models are kept in."""
    return recipe.output.folder / STORE


def named_model_ids(recipe: Recipe) -> tuple[str, ...]:
    """Whole ids of the models that the recipe names by id or by a promoted name, ascending; none where it names none.

    Raises
    ------
    WeightsError
        There is no such model, or its weights are damaged.
    """
    models = models_folder(recipe)
    found = [find_model(models, named) for named in recipe.score.models]
    return tuple(sorted({one.require_sound("config.json", "model.safetensors").model_id for one in found}))


def scoring_member_ids(recipe: Recipe, cube: Cube) -> tuple[str, ...]:
    """The models that score, ascending: those named in the recipe, or the one that the recipe trains.

    Raises
    ------
    WeightsError
        One does not exist (yet), or is damaged.
    """
    named = named_model_ids(recipe)
    if named:
        return named
    model_id = trained_model_id(recipe, training_set_of(recipe, cube))
    if not model_folder(recipe, model_id).is_dir():
        raise WeightsError(
            f"model {model_id} is not in {models_folder(recipe)}: run `galstore train` with this recipe, or name "
            "another model as score.model"
        )
    return (model_id,)


def predictions_id(member_ids: Sequence[str]) -> str:
    """Under which id predictions are kept: the model's own, or that of the ensemble, whatever the members' order.

    Examples
    --------
    >>> predictions_id(["3f2a90c1b7de"])
    '3f2a90c1b7de'
    >>> predictions_id(["b", "a"]) == predictions_id(["a", "b"])
    True
    """
    return member_ids[0] if len(member_ids) == 1 else fingerprint(ensemble=sorted(member_ids))


def scoring_model_id(recipe: Recipe, cube: Cube) -> str:
    """Under which id this recipe's predictions are kept: of the model or the ensemble that scores.

    Raises
    ------
    WeightsError
        A model does not exist (yet), or is damaged.
    """
    return predictions_id(scoring_member_ids(recipe, cube))


def held_out_rows(recipe: Recipe, cube: Cube) -> npt.NDArray[np.int64]:
    """Rows by which the report judges the network."""
    training_set = training_set_of(recipe, cube)
    return training_set.rows[training_set.labelled(training_set.evaluation_split)]


def predictions_path(recipe: Recipe) -> Path:
    """Where the new catalog's predictions are written."""
    catalog = recipe.score.catalog
    return output_path(recipe, "predictions", f"{catalog.stem if catalog else 'none'}.parquet")


def report_paths(recipe: Recipe) -> tuple[Path, Path]:
    """Where the report and its summary are written: HTML for people, JSON for programs."""
    return output_path(recipe, "report", "report.html"), output_path(recipe, "report", "report.json")


def report_fingerprint(recipe: Recipe, cube: Cube, model_id: str) -> str:
    """Names what a report was made from: the recipe, the model and the snapshot."""
    return fingerprint(recipe=recipe, model=model_id, snapshot=cube.snapshot_id, form=REPORT_FORM)


def known_report(recipe: Recipe, cube: Cube, model_id: str) -> dict[str, Any] | None:
    """The summary of the report that is there, if it was made from the very same things."""
    summary = earlier_summary(recipe)
    if summary is None or summary["fingerprint"] != report_fingerprint(recipe, cube, model_id):
        return None
    return summary


def earlier_summary(recipe: Recipe) -> dict[str, Any] | None:
    """The summary of the last report; None where there is none."""
    return current_summary(recipe) if report_paths(recipe)[1].exists() else None


def current_summary(recipe: Recipe) -> dict[str, Any]:
    """The summary of the last report."""
    summary: dict[str, Any] = json.loads(report_paths(recipe)[1].read_text(encoding="utf-8"))
    return summary

"""Trainings of a cross-validation; each can run in any process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from flows.outputs import model_folder, training_set_of
from galstore.cube.reader import Cube, open_cube
from galstore.features.training_set import TrainingSet
from schemas.errors import TrainingError
from schemas.fingerprints import fingerprint
from schemas.recipes import Recipe

if TYPE_CHECKING:
    from modeling.training.train import TrainedNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldJob:
    """Training on the galaxies of the other folds, or on all galaxies if `fold` is None."""

    recipe: Recipe
    """Recipe with the seed of this training."""
    snapshot_id: str
    n_folds: int
    fold: int | None


@dataclass(frozen=True, kw_only=True)
class FoldPlan:
    """Cross-validation of a recipe on one snapshot of its cube."""

    recipe: Recipe
    n_folds: int
    n_seeds: int
    cube: Cube

    def __post_init__(self) -> None:
        if self.n_seeds < 1:
            raise TrainingError(f"{self.n_seeds} seeds: expected at least 1 network for each fold")

    @cached_property
    def galaxies(self) -> TrainingSet:
        """Stored galaxies with the label."""
        return training_set_of(self.recipe, self.cube)

    @cached_property
    def folds(self) -> npt.NDArray[np.int64]:
        """Fold of each galaxy; several ids of one galaxy share a fold."""
        from modeling.training.cross_validation import assign_folds

        ra_deg, dec_deg = self.cube.read_values(["catalog/ra", "catalog/dec"], self.galaxies.rows).values()
        return assign_folds(
            self.galaxies.object_ids,
            ra_deg,
            dec_deg,
            n_folds=self.n_folds,
            seed=self.recipe.split.seed,
            duplicate_arcsec=self.recipe.split.duplicate_arcsec,
        )

    def jobs(self) -> Iterator[FoldJob]:
        """Yield one training for each fold and seed."""
        for fold in range(self.n_folds):
            for recipe in self.recipes():
                yield self._job(recipe, fold)

    def final_jobs(self) -> dict[str, FoldJob]:
        """Return one training on all galaxies for each seed, by the id of its model."""
        return {
            fingerprint(
                network=recipe.network,
                train=recipe.train.identity(),
                cutouts=recipe.cutouts,
                training_set=self.galaxies.content_hash,
                trained_on="all",
            ): self._job(recipe, None)
            for recipe in self.recipes()
        }

    def recipes(self) -> Iterator[Recipe]:
        """Yield the recipe with each seed."""
        for seed in range(self.recipe.train.seed, self.recipe.train.seed + self.n_seeds):
            yield with_training(self.recipe, seed=seed)

    def predictions_file(self, job: FoldJob) -> Path:
        """Return the file of a training's predictions; its name follows from everything they depend on."""
        recipe = job.recipe
        name = fingerprint(
            network=recipe.network,
            train=recipe.train.identity(),
            cutouts=recipe.cutouts,
            galaxies=self.galaxies.content_hash,
            folds=[self.n_folds, recipe.split.seed, job.fold],
            views=recipe.score.views,
        )
        folder = recipe.output.folder / "cross_validation" / "folds"
        return folder / f"fold{job.fold}-seed{recipe.train.seed}-{name}.csv"

    def model_folder(self, model_id: str) -> Path:
        return model_folder(self.recipe, model_id)

    def _job(self, recipe: Recipe, fold: int | None) -> FoldJob:
        return FoldJob(recipe=recipe, snapshot_id=self.cube.snapshot_id, n_folds=self.n_folds, fold=fold)


def plan_folds(recipe: Recipe, *, n_folds: int, n_seeds: int = 1, snapshot_id: str | None = None) -> FoldPlan:
    """Plan the cross-validation of a recipe with its first target only."""
    single_target = with_training(recipe, further_targets=())
    cube = open_cube(recipe.store.path, snapshot_id=snapshot_id)
    return FoldPlan(recipe=single_target, n_folds=n_folds, n_seeds=n_seeds, cube=cube)


def with_training(recipe: Recipe, **values: Any) -> Recipe:
    """Return the recipe with other values in its section `train`."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=values)})


def fit_fold(job: FoldJob) -> pd.DataFrame:
    """Train on the other folds and predict this one; columns `object_id`, `predicted`."""
    from modeling.training.cross_validation import predict_fold

    plan = plan_folds(job.recipe, n_folds=job.n_folds, snapshot_id=job.snapshot_id)
    galaxies, out = plan.galaxies, plan.folds == job.fold
    predicted = predict_fold(
        plan.cube.read_pixels(job.recipe.network.level, galaxies.rows),
        galaxies.labels,
        out,
        network=job.recipe.network,
        train=job.recipe.train,
        scale=plan.cube.scale,
        views=job.recipe.score.views,
    )
    return pd.DataFrame({"object_id": galaxies.object_ids[out], "predicted": predicted})


def fit_all(job: FoldJob) -> TrainedNetwork:
    from modeling.training.cross_validation import train_on_all

    plan = plan_folds(job.recipe, n_folds=job.n_folds, snapshot_id=job.snapshot_id)
    pixels = plan.cube.read_pixels(job.recipe.network.level, plan.galaxies.rows)
    return train_on_all(pixels, plan.galaxies.labels, network=job.recipe.network, train=job.recipe.train)

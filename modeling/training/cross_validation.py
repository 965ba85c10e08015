"""Cross-validation: each object is predicted by networks trained on the other folds.

With few labels, the RMSE of one validation split varies by a tenth from draw to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from galstore.features.splits import hash_share, smallest_duplicates
from modeling.evaluation.baselines import predict_mean
from modeling.evaluation.metrics import Regression
from modeling.loading.pixels import Counts
from modeling.models.training_log import EpochRecord
from modeling.scoring.predict import predict
from modeling.training.finish import build_model
from modeling.training.train import TrainedNetwork, train_network
from schemas.cutouts import CutoutScale
from schemas.errors import TrainingError
from schemas.recipes import NetworkSection, TrainSection

FOLD_STREAM = 7_000
"""Added to the seed before hashing, so that folds are independent of the split with the same seed."""
FoldMetrics: TypeAlias = dict[str, int | float | None]
"""Metrics of one fold by name; `fold` is None for all objects."""


def assign_folds(
    object_ids: NDArray[np.int64],
    ra_deg: NDArray[np.float64],
    dec_deg: NDArray[np.float64],
    *,
    n_folds: int,
    seed: int = 0,
    duplicate_arcsec: float = 2.0,
) -> NDArray[np.int64]:
    """Assign each object, (object,), to a fold from 0 to n_folds - 1 by a stable hash of its id.

    Ids of the same galaxy, at most `duplicate_arcsec` apart, share the fold of the smallest id. Folds do not depend on
    the order of rows or on other objects, so that they are equal in size only on average.

    Raises
    ------
    TrainingError
        Fewer than two folds, or an empty fold.

    Examples
    --------
    >>> ids, sky = np.arange(5), np.linspace(10, 50, 5)
    >>> assign_folds(ids, sky, sky, n_folds=2).tolist()
    [0, 1, 0, 1, 0]
    """
    if n_folds < 2:
        raise TrainingError(f"{n_folds} folds: expected at least 2, one to predict and one to train on")
    same = smallest_duplicates(object_ids, ra_deg, dec_deg, separation_arcsec=duplicate_arcsec)
    folds = np.floor(hash_share(same, seed=seed + FOLD_STREAM) * n_folds).astype(np.int64)
    empty = n_folds - np.unique(folds).size
    if empty:
        raise TrainingError(
            f"{empty} of {n_folds} folds are empty for {object_ids.size} labelled objects: use fewer folds, or ingest "
            "more objects"
        )
    return folds


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidation:
    """Out-of-fold predictions and their metrics. Arrays are (object,), predictions in the label's unit."""

    fold: NDArray[np.int64]
    true: NDArray[np.float64]
    predicted: NDArray[np.float64]
    """Predictions of networks trained on the other folds."""
    mean: NDArray[np.float64]
    """Mean label of the other folds."""

    @classmethod
    def of(cls, fold: NDArray[np.int64], true: NDArray[np.float64], predicted: NDArray[np.float64]) -> CrossValidation:
        """Add the mean label of the other folds to the predictions."""
        mean = np.empty_like(true)
        for number in np.unique(fold):
            out = fold == number
            mean[out] = predict_mean(true[~out], int(out.sum())).predicted
        return cls(fold=fold, true=true, predicted=predicted, mean=mean)

    @property
    def overall(self) -> Regression:
        return Regression.of(self.true, self.predicted)

    @property
    def overall_mean(self) -> Regression:
        return Regression.of(self.true, self.mean)

    def to_dict(self) -> dict[str, FoldMetrics | list[FoldMetrics]]:
        """Return RMSE and NMAD of the network and of the mean, over all objects and for each fold, as plain data."""
        return {
            "overall": _fold_metrics(None, self.overall, self.overall_mean),
            "folds": [_fold_metrics(*fold) for fold in self.by_fold()],
        }

    def by_fold(self) -> Iterator[tuple[int, Regression, Regression]]:
        """Yield the number of each fold with the metrics of the network and of the mean."""
        for number in np.unique(self.fold):
            out = self.fold == number
            true = self.true[out]
            yield int(number), Regression.of(true, self.predicted[out]), Regression.of(true, self.mean[out])


def _fold_metrics(fold: int | None, network: Regression, mean: Regression) -> FoldMetrics:
    return {
        "fold": fold,
        "n": network.n,
        "rmse": network.rmse,
        "nmad": network.nmad,
        "rmse_of_mean": mean.rmse,
        "nmad_of_mean": mean.nmad,
        "ratio": network.rmse / mean.rmse,
    }


def train_on_all(
    pixels: Counts,
    labels: NDArray[np.float64],
    *,
    network: NetworkSection,
    train: TrainSection,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainedNetwork:
    """Train on all given rows, without a validation split.

    The epoch with the lowest error on training rows is returned. The one-cycle schedule ends at a rate of zero and the
    weights are averaged, so this is the last epoch or close to it.
    """
    validation = slice(0, max(2, len(labels) // 5))
    return train_network(
        pixels=pixels,
        labels=labels,
        validation_pixels=pixels[validation],
        validation_labels=labels[validation],
        network=network,
        train=train,
        on_epoch=on_epoch,
    )


def predict_fold(
    pixels: Counts,
    labels: NDArray[np.float64],
    held_out: NDArray[np.bool_],
    *,
    network: NetworkSection,
    train: TrainSection,
    scale: CutoutScale,
    views: Literal[1, 8] = 8,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> NDArray[np.float64]:
    """Train on the other folds and predict the held-out objects, in the unit of the labels.

    `held_out`, (object,), is True for the objects of the fold. Their pixels and labels are not used for training.
    """
    trained = train_on_all(pixels[~held_out], labels[~held_out], network=network, train=train, on_epoch=on_epoch)
    origin = {"model_id": "fold", "training_set": "", "snapshot": ""}
    model = build_model(trained, network=network, train=train, scale=scale, **origin)
    return predict(model, pixels[held_out], views=views).mean

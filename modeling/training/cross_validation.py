"""Cross-validation: every galaxy is predicted once, by networks that have not seen it.

Where labels are few, one held-out part says little: its own draw decides a tenth of the RMSE. Here all objects are
judged, each by networks that were trained on the other folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from galstore.features.splits import hash_share, leaders
from modeling.evaluation.baselines import predict_mean
from modeling.evaluation.metrics import Regression
from modeling.models.training_log import EpochRecord
from modeling.scoring.predict import predict
from modeling.training.finish import build_model
from modeling.training.train import TrainedNetwork, train_network
from schemas.cutouts import CutoutScale
from schemas.errors import TrainingError
from schemas.recipes import NetworkSection, TrainSection

FOLD_STREAM = 7_000
"""Added to the seed before ids are hashed, so that folds are independent of the split of the same seed."""


def assign_folds(
    object_ids: NDArray[np.int64],
    ra_deg: NDArray[np.float64],
    dec_deg: NDArray[np.float64],
    *,
    n_folds: int,
    seed: int = 0,
    duplicate_arcsec: float = 2.0,
) -> NDArray[np.int64]:
    """Fold of each object, by a stable hash of its id.

    Parameters
    ----------
    object_ids, ra_deg, dec_deg
        (object,) each.
    n_folds
        At least 2.
    seed
        Another seed gives other folds.
    duplicate_arcsec
        Objects this close are one galaxy under several ids and share the fold of the smallest id.

    Returns
    -------
    NDArray
        (object,) numbers from 0 to n_folds - 1. An object's fold depends neither on the order of rows nor on what else
        is there, so that folds are equal in size only on average.

    Raises
    ------
    TrainingError
        Fewer than two folds, or one without objects.

    Examples
    --------
    >>> ids, sky = np.arange(5), np.linspace(10, 50, 5)
    >>> assign_folds(ids, sky, sky, n_folds=2).tolist()
    [0, 1, 0, 1, 0]
    """
    if n_folds < 2:
        raise TrainingError(f"{n_folds} folds: expected at least 2, one to judge and one to train on")
    same = leaders(object_ids, ra_deg, dec_deg, separation_arcsec=duplicate_arcsec)
    folds = np.floor(hash_share(same, seed=seed + FOLD_STREAM) * n_folds).astype(np.int64)
    empty = n_folds - np.unique(folds).size
    if empty:
        raise TrainingError(
            f"{empty} of {n_folds} folds have none of the {object_ids.size} labelled objects: ask for fewer folds, or "
            "ingest more objects"
        )
    return folds


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidation:
    """Out-of-fold predictions, and how good they are. Arrays are (object,), predictions in the label's unit."""

    fold: NDArray[np.int64]
    true: NDArray[np.float64]
    predicted: NDArray[np.float64]
    """By networks that were trained on the other folds."""
    mean: NDArray[np.float64]
    """Mean of the labels that those networks were trained on."""

    @classmethod
    def of(cls, fold: NDArray[np.int64], true: NDArray[np.float64], predicted: NDArray[np.float64]) -> CrossValidation:
        """Put the folds' predictions beside the mean of the other folds' labels."""
        mean = np.empty_like(true)
        for one in np.unique(fold):
            out = fold == one
            mean[out] = predict_mean(true[~out], int(out.sum())).predicted
        return cls(fold=fold, true=true, predicted=predicted, mean=mean)

    @property
    def overall(self) -> Regression:
        return Regression.of(self.true, self.predicted)

    @property
    def overall_mean(self) -> Regression:
        return Regression.of(self.true, self.mean)

    def to_dict(self) -> dict[str, Any]:
        """RMSE and NMAD of the network and of the mean, over all objects and for each fold, as plain data."""
        parts = [(None, self.overall, self.overall_mean), *self.by_fold()]
        told = [
            {"fold": fold, "n": ours.n, "rmse": ours.rmse, "nmad": ours.nmad, "rmse_of_mean": mean.rmse,
             "nmad_of_mean": mean.nmad, "ratio": ours.rmse / mean.rmse}
            for fold, ours, mean in parts
        ]  # fmt: skip
        return {"overall": told[0], "folds": told[1:]}

    def by_fold(self) -> Iterator[tuple[int, Regression, Regression]]:
        """Each fold's number, and how well the network and the mean do on it."""
        for one in np.unique(self.fold):
            out = self.fold == one
            true = self.true[out]
            yield int(one), Regression.of(true, self.predicted[out]), Regression.of(true, self.mean[out])


def train_on_all(
    pixels: NDArray[Any],
    labels: NDArray[np.float64],
    *,
    network: NetworkSection,
    train: TrainSection,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainedNetwork:
    """Train on every row given; none is set aside to choose an epoch by.

    Parameters
    ----------
    pixels, labels
        As of `train_network`.
    network, train
        Sections of the recipe.
    on_epoch
        Called after each epoch; the errors that it is told are those on rows that were trained on.

    Notes
    -----
    The epoch that is kept is the one that fits its own training rows best. The one-cycle schedule ends at a rate of
    zero and the weights are averaged, so that this is the last one or close to it.
    """
    shown = slice(0, max(2, len(labels) // 5))
    return train_network(
        pixels=pixels,
        labels=labels,
        validation_pixels=pixels[shown],
        validation_labels=labels[shown],
        network=network,
        train=train,
        on_epoch=on_epoch,
    )


def predict_fold(
    pixels: NDArray[Any],
    labels: NDArray[np.float64],
    held_out: NDArray[np.bool_],
    *,
    network: NetworkSection,
    train: TrainSection,
    scale: CutoutScale,
    views: Literal[1, 8] = 8,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> NDArray[np.float64]:
    """Train on the other folds and predict one.

    Parameters
    ----------
    pixels, labels
        As of `train_network`, of all objects.
    held_out
        (object,) True where an object is in the fold. Neither its pixels nor its label reach the training.
    network, train
        Sections of the recipe.
    scale
        Of the cutouts.
    views
        Over which a prediction is averaged.
    on_epoch
        Called after each epoch.

    Returns
    -------
    NDArray
        (object in the fold,) in the unit of the labels.
    """
    trained = train_on_all(pixels[~held_out], labels[~held_out], network=network, train=train, on_epoch=on_epoch)
    model = build_model(
        trained, model_id="fold", network=network, train=train, scale=scale, training_set="", snapshot=""
    )
    return predict(model, pixels[held_out], views=views).mean

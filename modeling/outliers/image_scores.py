"""Scores of image statistics, their cross-validated values, and the thresholds that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modeling.outliers.image_statistics import measure_images
from modeling.outliers.regions import LogisticDiscriminant, MahalanobisRegion, Values
from modeling.outliers.synthetic_outliers import COUNTEREXAMPLES, MIN_COUNTEREXAMPLE_PX
from modeling.outliers.thumbnails import Images, Thumbnails

COUNTEREXAMPLES_NAME = "counterexamples"
N_FOLDS = 5
"""Folds by which training rows are left out in turn."""
_BATCH = 256
Statistics = Mapping[str, Values]
"""Statistics of images, (object, statistic) by group, as `measure_images` returns them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingStatistics:
    """Statistics of training images, and of the counterexamples made from them."""

    ordinary: Statistics
    others: Values
    """(kind, object, statistic), all groups side by side."""

    @classmethod
    def of(cls, pixels: Images, finer: Images | None) -> TrainingStatistics:
        rng = np.random.default_rng(0)
        batches = [slice(start, start + _BATCH) for start in range(0, len(pixels), _BATCH)]
        kinds = COUNTEREXAMPLES if pixels.shape[1] >= MIN_COUNTEREXAMPLE_PX else ()
        others = []
        for make in kinds:
            images = (make(pixels[batch], None if finer is None else finer[batch], rng) for batch in batches)
            others.append(np.concatenate([join_groups(measure_images(Thumbnails.of(part))) for part in images]))
        return cls(ordinary=measure_images(Thumbnails.of(pixels)), others=np.array(others))

    def take(self, rows: NDArray[np.intp]) -> TrainingStatistics:
        return TrainingStatistics(
            ordinary={name: values[rows] for name, values in self.ordinary.items()},
            others=self.others[:, rows] if self.others.size else self.others,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageScorer:
    """Regions of the groups of image statistics, and a discriminant against counterexamples."""

    models: Mapping[str, MahalanobisRegion | LogisticDiscriminant]
    """By group of statistics; the discriminant is `COUNTEREXAMPLES_NAME`, absent below `MIN_COUNTEREXAMPLE_PX`."""

    @classmethod
    def fit(cls, train: TrainingStatistics) -> ImageScorer:
        """Fit to training images, with all thresholds at 1."""
        models: dict[str, MahalanobisRegion | LogisticDiscriminant] = {
            name: MahalanobisRegion.fit(values) for name, values in train.ordinary.items()
        }
        if train.others.size:
            models[COUNTEREXAMPLES_NAME] = LogisticDiscriminant.fit(join_groups(train.ordinary), train.others)
        return cls(models=models)

    def scores(self, statistics: Statistics) -> dict[str, Values]:
        """Return the scores of images in units of their thresholds, (object,) by name."""
        inputs = {**statistics, COUNTEREXAMPLES_NAME: join_groups(statistics)}
        return {name: model.score(inputs[name]) for name, model in self.models.items()}

    def held_out_scores(self, train: TrainingStatistics, validation: Statistics) -> dict[str, Values]:
        """Return scores of the training rows, each left out of a fit in turn, followed by those of validation rows."""
        rows = np.arange(len(join_groups(train.ordinary)))
        fold = rows % N_FOLDS
        validated = self.scores(validation)
        scores = {name: np.concatenate([np.empty(rows.size), values]) for name, values in validated.items()}
        for k in range(N_FOLDS):
            left_out = rows[fold == k]
            without = ImageScorer.fit(train.take(rows[fold != k]))
            for name, values in without.scores(train.take(left_out).ordinary).items():
                scores[name][left_out] = values
        return scores

    def with_thresholds(self, thresholds: Mapping[str, float]) -> ImageScorer:
        models = {name: replace(model, threshold=thresholds[name]) for name, model in self.models.items()}
        return ImageScorer(models=models)


def join_groups(statistics: Statistics) -> Values:
    """Join all groups of statistics side by side, (object, statistic)."""
    return np.concatenate(list(statistics.values()), axis=1, dtype=np.float64)


def joint_thresholds(scores: Mapping[str, Values], *, n_validation: int, share: float) -> dict[str, float]:
    """Choose thresholds with equal shares of objects above each, and the given share of objects above any of them.

    Scores are (object,) by name, NaN if unknown; validation rows are the last ones. At most the same share of the
    validation rows alone is above a threshold, too.
    """
    for share_each in np.linspace(share, 0, 31):
        thresholds = {
            name: quantile_threshold(values[np.isfinite(values)], float(share_each)) for name, values in scores.items()
        }
        above = np.any([values > thresholds[name] for name, values in scores.items()], axis=0)
        if max(above.mean(), above[-n_validation:].mean()) <= share:
            break
    # scores are divided by the threshold, which is 0 if all of them are 0
    return {name: max(threshold, 1e-6) for name, threshold in thresholds.items()}


def quantile_threshold(scores: Values, share: float) -> float:
    """Return the score that a share of new objects exceeds: the ceil((n + 1) (1 - share))-th, or the largest."""
    rank = min(math.ceil(round((scores.size + 1) * (1 - share), 9)), scores.size)
    return float(np.sort(scores)[rank - 1])

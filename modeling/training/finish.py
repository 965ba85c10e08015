"""Steps after training: model configuration, intervals from validation rows, out-of-distribution detector."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from modeling.evaluation.intervals import MIN_INTERVAL_ROWS, ConformalIntervals
from modeling.models.model import Model, ModelConfig
from modeling.outliers.ood_score import MIN_DETECTOR_ROWS, DetectorExamples, OODDetector
from modeling.scoring.predict import Prediction
from modeling.training.train import TrainedNetwork
from schemas.cutouts import CutoutScale
from schemas.recipes import NetworkSection, TrainSection


def build_model(
    trained: TrainedNetwork,
    *,
    model_id: str,
    network: NetworkSection,
    train: TrainSection,
    scale: CutoutScale,
    training_set: str,
    snapshot: str,
) -> Model:
    """Combine a trained network with the description of its origin.

    `training_set` is the hash of the training set, `snapshot` the commit of the cube that it was read from.
    """
    return Model(
        network=trained.network,
        config=ModelConfig(
            model_id=model_id,
            targets=train.targets,
            arch=network.arch,
            level=network.level,
            bands=scale.composite.bands,
            dropout=network.dropout,
            scale_rule=scale.rule.value,
            scale_arcsec=scale.arcsec_per_px,
            composite=scale.composite.value,
            normalisation=trained.normalisation,
            label_scales=trained.label_scales,
            loss=train.loss,
            training_set=training_set,
            snapshot=snapshot,
            seed=train.seed,
            best_epoch=trained.best_epoch,
            versions={
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "torchvision", "galstore")},
            },
        ),
    )


def fit_intervals(model: Model, true: NDArray[np.float64], predicted: Prediction) -> Model:
    """Fit conformal intervals to the errors on validation rows, unless they are too few; missing labels are NaN."""
    known = np.isfinite(true)
    if np.count_nonzero(known) < MIN_INTERVAL_ROWS:
        return model
    sigma = predicted.sigma[known] if model.config.gives_sigma else None
    return model.with_intervals(ConformalIntervals.of(true[known], predicted.mean[known], sigma))


def fit_ood_detector(
    model: Model, train: DetectorExamples, validation: DetectorExamples, labels: NDArray[np.float64]
) -> Model:
    """Fit an out-of-distribution detector to rows with the model's embeddings, unless they are too few.

    Predictions are then flagged. Labels are those of the training rows, NaN if missing.
    """
    if min(len(train.embedding), len(validation.embedding)) < MIN_DETECTOR_ROWS:
        return model
    return model.with_ood_detector(OODDetector.fit(train, validation, labels))

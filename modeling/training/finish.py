"""Steps after training: model configuration, intervals from validation rows, out-of-distribution detector."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from modeling.evaluation.calibration import MIN_ROWS, Conformal
from modeling.models.model import Model, ModelConfig
from modeling.outliers.ood_score import MIN_ROWS as MIN_SUPPORT_ROWS
from modeling.outliers.ood_score import Seen, Support
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
    """Join a trained network with where it comes from.

    Parameters
    ----------
    trained
        From `train_network`.
    model_id
        From `schemas.fingerprints.fingerprint`.
    network, train
        Sections of the recipe that it was trained by.
    scale
        Of the cutouts.
    training_set, snapshot
        Hash of the training set, and commit of the cube that it was read from.
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


def calibrate(model: Model, true: NDArray[np.float64], predicted: Prediction) -> Model:
    """Give a model the intervals that its errors on validation rows teach, unless they are too few.

    Parameters
    ----------
    model
        Whose predictions they are.
    true
        (object,), NaN where there is no label.
    predicted
        Of the same objects.
    """
    known = np.isfinite(true)
    if np.count_nonzero(known) < MIN_ROWS:
        return model
    sigma = predicted.sigma[known] if model.config.gives_sigma else None
    return model.calibrated(Conformal.of(true[known], predicted.mean[known], sigma))


def learn_support(model: Model, train: Seen, validation: Seen, labels: NDArray[np.float64]) -> Model:
    """Teach a model what it was trained on, unless the rows are too few: its predictions then say so.

    Parameters
    ----------
    model
        Whose embeddings they are.
    train, validation
        Some thousands of its training and validation rows, or all of them.
    labels
        Of the training rows, NaN where there is none.
    """
    if min(len(train.embedding), len(validation.embedding)) < MIN_SUPPORT_ROWS:
        return model
    return model.supported(Support.learn(train, validation, labels))

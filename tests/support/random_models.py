"""Models with random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from modeling.evaluation.metrics import Regression
from modeling.loading.normalisation import LabelScale, Normalisation
from modeling.models.checkpoint import save_model
from modeling.models.model import Model
from modeling.models.networks import build_network
from modeling.models.training_log import EpochRecord
from modeling.training.finish import build_model
from modeling.training.train import TrainedNetwork
from schemas.cutouts import CutoutScale, ScaleRule
from schemas.recipes import NetworkSection, TrainSection

FILES = ("model.safetensors", "config.json", "metrics.json", "training_log.jsonl", "README.md")

LOG = tuple(
    EpochRecord(
        epoch=n, seconds=2.0, images_per_s=50.0, train_loss=1 / n, rmse=0.2 / n, nmad=0.1 / n, learning_rate=0.01
    )
    for n in (1, 2, 3)
)


def random_model(
    model_id: str, *, level: int = 16, seed: int = 0, train: TrainSection | None = None, label_std: float = 0.2
) -> Model:
    """Return a model with random weights and non-trivial batch normalisation."""
    network = NetworkSection(arch="resnet10w32", level=level)
    train = train or TrainSection()
    n_targets = len(train.targets)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = build_network(network, n_targets=n_targets * (2 if train.loss == "gaussian" else 1))
        for _ in range(3):
            weights(torch.randn(8, 3, level, level))
    trained = TrainedNetwork(
        network=weights.eval(),
        normalisation=Normalisation(mean_counts=(20.0, 25.0, 30.0), std_counts=(28.0, 30.0, 33.0)),
        label_scales=tuple(LabelScale(mean=8.9 + n, std=label_std) for n in range(n_targets)),
        log=LOG,
        best_epoch=3,
    )
    return build_model(
        trained,
        model_id=model_id,
        network=network,
        train=train,
        scale=CutoutScale(rule=ScaleRule.FIXED),
        training_set="a1b2c3d4e5f60718",
        snapshot="SNAP",
    )


def save_random_model(models: Path, model_id: str, *, rmse: float = 0.1, seed: int = 0) -> Path:
    """Save a new model in a store and return its folder."""
    metrics = {"validation": Regression(n=32, rmse=rmse, nmad=0.08, bias=-0.001, r2=0.5)}
    save_model(models / model_id, random_model(model_id, seed=seed), metrics=metrics, log=LOG)
    return models / model_id

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from modeling.models.model import Model
from modeling.training.finish import build_model
from modeling.training.train import TrainedNetwork, train_network
from schemas.cutouts import CutoutScale, ScaleRule
from schemas.recipes import NetworkSection, TrainSection

LEVEL = 16
NETWORK = NetworkSection(arch="resnet10w32", level=LEVEL)
TRAIN = TrainSection(epochs=3, batch_size=32, learning_rate=0.005, seed=3, device="cpu")

Discs = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="session")
def draw_discs() -> Callable[[int, int], Discs]:
    """Draw discs of random position, size and brightness, whose label depends on colour: 8.9 + 0.2 (red - green)."""

    def draw(n: int, seed: int) -> Discs:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:LEVEL, :LEVEL]
        centre = rng.uniform(LEVEL * 0.35, LEVEL * 0.65, (2, n, 1, 1))
        radius = rng.uniform(LEVEL * 0.15, LEVEL * 0.3, (n, 1, 1))
        disc = np.hypot(y - centre[0], x - centre[1]) < radius
        colour = rng.uniform(-1, 1, n)
        brightness = rng.uniform(80, 160, n)
        bands = np.stack([brightness * (1 + 0.3 * colour), brightness, brightness * (1 - 0.3 * colour)], axis=-1)
        pixels = disc[..., None] * bands[:, None, None, :] + rng.normal(8, 2, (n, LEVEL, LEVEL, 3))
        return pixels.clip(0, 255).astype(np.float32), 8.9 + 0.2 * colour

    return draw


@pytest.fixture(scope="session")
def trained(draw_discs: Callable[[int, int], Discs]) -> TrainedNetwork:
    pixels, labels = draw_discs(128, 0)
    validation_pixels, validation_labels = draw_discs(32, 1)
    return train_network(
        pixels=pixels,
        labels=labels,
        validation_pixels=validation_pixels,
        validation_labels=validation_labels,
        network=NETWORK,
        train=TRAIN,
    )


@pytest.fixture(scope="session")
def model(trained: TrainedNetwork) -> Model:
    return build_model(
        trained,
        model_id="0123456789ab",
        network=NETWORK,
        train=TRAIN,
        scale=CutoutScale(rule=ScaleRule.FIXED),
        training_set="a1b2",
        snapshot="SNAP",
    )


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    # small networks do not gain from a second thread, and wait for it on a busy machine
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

"""Training on 320 real SDSS cutouts of the paper's sample and prediction of 80, if they are available."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import simplejpeg

from modeling.evaluation.metrics import Regression
from modeling.scoring.predict import predict
from modeling.training.finish import build_model
from modeling.training.train import train_network
from schemas.cutouts import CutoutScale, ScaleRule
from schemas.recipes import NetworkSection, TrainSection

DEMO = Path(__file__).parents[3] / "shared" / "data" / "sdss_demo"
LEVEL = 64


@pytest.fixture(scope="module")
def cutouts():
    catalog = pd.read_csv(DEMO / "catalog.csv", dtype={"objID": "int64"})
    images = np.stack(
        [simplejpeg.decode_jpeg((DEMO / "cutouts" / f"{name}.jpg").read_bytes()) for name in catalog["objID"]]
    )
    shrink = images.shape[1] // LEVEL
    pooled = images.reshape(-1, LEVEL, shrink, LEVEL, shrink, 3).mean(axis=(2, 4))
    return np.rint(pooled).astype(np.uint8), catalog["oh_p50"].to_numpy(np.float64)


@pytest.mark.slow
@pytest.mark.skipif(not DEMO.is_dir(), reason="the folder of real SDSS cutouts is not on this machine")
@pytest.mark.parametrize("seed", [0, 1])
def test_a_small_network_learns_metallicity_from_320_galaxies(cutouts, seed, long_run):
    if seed and not long_run:
        pytest.skip("a second seed runs with --long")
    pixels, labels = cutouts
    order = np.random.default_rng(seed).permutation(len(labels))
    rows, unseen = order[:320], order[320:]
    network = NetworkSection(arch="resnet10w32", level=LEVEL)
    train = TrainSection(epochs=40, batch_size=32, learning_rate=0.001, weight_decay=0.05, seed=seed, device="cpu")
    trained = train_network(
        pixels=pixels[rows],
        labels=labels[rows],
        validation_pixels=pixels[unseen],
        validation_labels=labels[unseen],
        network=network,
        train=train,
    )
    model = build_model(
        trained,
        model_id="real",
        network=network,
        train=train,
        scale=CutoutScale(rule=ScaleRule.PETRO_R90),
        training_set="sdss_demo",
        snapshot="",
    )
    predicted = predict(model, pixels[unseen], device="cpu").mean
    mean = Regression.of(labels[unseen], np.full(len(unseen), labels[rows].mean()))
    assert Regression.of(labels[unseen], predicted).rmse <= 0.62 * mean.rmse

import numpy as np
import pandas as pd
import pytest

from galstore.emulator.sky.oracle import oracle_predictions
from galstore.emulator.sky.simulated import SimulatedSky
from schemas.errors import ContractError


def errors(sky: SimulatedSky) -> pd.Series:
    """Return the RMSE of each predictor and of the mean, in dex."""
    truth = sky.truth()
    predictions = oracle_predictions(sky, truth["object_id"])
    label = truth["label"].to_numpy()
    rmse = {name: np.sqrt(np.mean((predictions[name] - label) ** 2)) for name in ("oracle", "total_colours")}
    return pd.Series(rmse | {"mean": label.std()})


def test_appearance_predicts_metallicity_far_better_than_total_colours() -> None:
    rmse = errors(SimulatedSky(seed=8, n_galaxies=9_000, n_new=0))
    assert 0.055 < rmse["oracle"] < 0.075
    assert 0.110 < rmse["total_colours"] < 0.130
    assert rmse["total_colours"] / rmse["oracle"] >= 1.5
    assert rmse["mean"] == pytest.approx(0.20, abs=0.01)


def test_no_predictor_beats_the_noise_of_the_label() -> None:
    assert errors(SimulatedSky(seed=9, n_galaxies=4_000, n_new=0))["oracle"] > 0.045


def test_a_null_sky_carries_no_information() -> None:
    rmse = errors(SimulatedSky(seed=8, n_galaxies=9_000, n_new=0, informative=False))
    assert rmse["oracle"] / rmse["mean"] == pytest.approx(1, abs=0.01)
    assert rmse["total_colours"] / rmse["mean"] == pytest.approx(1, abs=0.01)


def test_predictions_follow_the_order_of_the_ids_and_repeat() -> None:
    sky = SimulatedSky(seed=2, n_galaxies=60, n_new=10)
    ids = sky.object_ids[[65, 3, 40]]
    first = oracle_predictions(sky, ids)
    assert first["object_id"].tolist() == ids.tolist()
    pd.testing.assert_frame_equal(first, oracle_predictions(sky, ids))
    backwards = oracle_predictions(sky, ids[::-1])[::-1].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, backwards)


def test_an_id_of_another_sky_is_refused() -> None:
    sky = SimulatedSky(seed=2, n_galaxies=5, n_new=0)
    with pytest.raises(ContractError, match=r"(?=.*\b1 of 1\b)(?=.*\b42\b)"):
        oracle_predictions(sky, [42])

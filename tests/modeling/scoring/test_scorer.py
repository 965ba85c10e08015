from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling.loading.augmentation import dihedral
from modeling.scoring.predict import combine_predictions, predict
from modeling.scoring.scorer import Scorer
from schemas.cutouts import CutoutScale, ScaleRule
from schemas.errors import StoreError, WeightsError
from schemas.recipes import TrainSection
from tests.support.random_models import random_model


@pytest.fixture(scope="module")
def pixels(draw_discs):
    return draw_discs(20, 7)[0]


@pytest.fixture(scope="module")
def members():
    return tuple(random_model(f"{n:012x}", seed=n) for n in range(3))


def test_an_ensemble_has_mean_and_spread_of_its_members(members, pixels) -> None:
    alone = [predict(member, pixels, device="cpu") for member in members]
    together = Scorer(predictions_id="e", members=members, device="cpu").predict(pixels)
    np.testing.assert_allclose(together.mean, np.mean([single.mean for single in alone], axis=0), atol=1e-12)
    np.testing.assert_allclose(together.ensemble_spread, np.std([single.mean for single in alone], axis=0), atol=1e-12)
    assert (together.ensemble_spread > 0).all()
    assert together.view_spread.max() <= max(single.view_spread.max() for single in alone)
    np.testing.assert_array_equal(together.embedding, alone[0].embedding)
    assert np.isnan(together.sigma).all()


def test_one_model_has_no_ensemble_spread(members, pixels) -> None:
    scorer = Scorer(predictions_id="m", members=members[:1], views=1, device="cpu")
    assert np.isnan(scorer.predict(pixels).ensemble_spread).all()
    assert scorer.predict(pixels[:0]).ensemble_spread.shape == (0,)


def test_sigma_of_an_ensemble_is_that_of_the_mixture(pixels) -> None:
    members = [random_model(f"{n:012x}", seed=n, train=TrainSection(loss="gaussian")) for n in range(2)]
    alone = [predict(member, pixels, device="cpu") for member in members]
    rng = np.random.default_rng(0)
    drawn = np.concatenate([rng.normal(single.mean, single.sigma, (200_000, len(pixels))) for single in alone])
    np.testing.assert_allclose(combine_predictions(alone).sigma, drawn.std(axis=0), rtol=0.01)


def test_a_turned_galaxy_has_the_same_prediction_by_an_ensemble(members, pixels) -> None:
    scorer = Scorer(predictions_id="e", members=members[:2], batch_size=7, device="cpu")
    expected = scorer.predict(pixels)
    for view in range(8):
        turned = dihedral(torch.from_numpy(pixels).permute(0, 3, 1, 2), view).permute(0, 2, 3, 1).numpy()
        found = scorer.predict(turned)
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)
        np.testing.assert_allclose(found.ensemble_spread, expected.ensemble_spread, atol=1e-5)


def test_models_that_cannot_form_an_ensemble_are_refused(members) -> None:
    with pytest.raises(WeightsError, match=r"\bmodel\b"):
        Scorer(predictions_id="e", members=())
    with pytest.raises(WeightsError, match=rf"\b{members[0].config.model_id}\b"):
        Scorer(predictions_id="e", members=(members[0], members[0]))
    other_level = random_model("f" * 12, level=32)
    with pytest.raises(WeightsError, match=r"(?=.*\boh_p50 at 16 px)(?=.*\boh_p50 at 32 px)"):
        Scorer(predictions_id="e", members=(members[0], other_level))
    other_target = random_model("f" * 12, train=TrainSection(target="lgm_tot_p50"))
    with pytest.raises(WeightsError, match=r"(?=.*\boh_p50 at 16 px)(?=.*\blgm_tot_p50 at 16 px)"):
        Scorer(predictions_id="e", members=(members[0], other_target))
    scorer = Scorer(predictions_id="e", members=members)
    with pytest.raises(StoreError, match=r"(?=.*\b0\.296\b)(?=.*\b0\.4\b)"):
        scorer.require_scale(CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.4))

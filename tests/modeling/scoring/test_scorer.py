from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.loading.augment import dihedral
from modeling.scoring.predict import combine_predictions, predict
from modeling.scoring.scorer import Scorer, read_ahead
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


def test_an_ensemble_is_the_mean_of_its_members_and_knows_how_they_differ(members, pixels) -> None:
    alone = [predict(one, pixels, device="cpu") for one in members]
    together = Scorer(predictions_id="e", members=members, device="cpu").predict(pixels)
    np.testing.assert_allclose(together.mean, np.mean([one.mean for one in alone], axis=0), atol=1e-12)
    np.testing.assert_allclose(together.ensemble_spread, np.std([one.mean for one in alone], axis=0), atol=1e-12)
    assert (together.ensemble_spread > 0).all()
    assert together.view_spread.max() <= max(one.view_spread.max() for one in alone)
    np.testing.assert_array_equal(together.embedding, alone[0].embedding)
    assert np.isnan(together.sigma).all()


def test_one_model_has_no_ensemble_spread(members, pixels) -> None:
    scorer = Scorer(predictions_id="m", members=members[:1], views=1, device="cpu")
    assert np.isnan(scorer.predict(pixels).ensemble_spread).all()
    assert scorer.predict(pixels[:0]).ensemble_spread.shape == (0,)


def test_sigma_of_an_ensemble_is_that_of_the_mixture(pixels) -> None:
    members = [random_model(f"{n:012x}", seed=n, train=TrainSection(loss="gaussian")) for n in range(2)]
    alone = [predict(one, pixels, device="cpu") for one in members]
    rng = np.random.default_rng(0)
    drawn = np.concatenate([rng.normal(one.mean, one.sigma, (200_000, len(pixels))) for one in alone])
    np.testing.assert_allclose(combine_predictions(alone).sigma, drawn.std(axis=0), rtol=0.01)


def test_a_turned_galaxy_has_the_same_prediction_by_an_ensemble(members, pixels) -> None:
    scorer = Scorer(predictions_id="e", members=members[:2], batch_size=7, device="cpu")
    expected = scorer.predict(pixels)
    for view in range(8):
        turned = dihedral(torch.from_numpy(pixels).permute(0, 3, 1, 2), view).permute(0, 2, 3, 1).numpy()
        again = scorer.predict(turned)
        np.testing.assert_allclose(again.mean, expected.mean, atol=1e-5)
        np.testing.assert_allclose(again.ensemble_spread, expected.ensemble_spread, atol=1e-5)


def test_models_that_do_not_belong_together_are_refused(members) -> None:
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


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 12), n_ahead=st.integers(1, 5), n_threads=st.integers(1, 4))
def test_every_piece_is_read_once_whatever_the_threads(n: int, n_ahead: int, n_threads: int) -> None:
    found = list(read_ahead(range(n), lambda piece: piece * 10, n_ahead=n_ahead, n_threads=n_threads))
    assert sorted(found) == [(piece, piece * 10) for piece in range(n)]


def test_no_more_is_read_ahead_than_allowed() -> None:
    taken, read = [], threading.Semaphore(0)

    def pieces():
        for piece in range(20):
            taken.append(piece)
            yield piece

    def count(piece: int) -> int:
        read.release()
        return piece

    ahead = read_ahead(pieces(), count, n_ahead=3, n_threads=2)
    next(ahead)
    for _ in range(4):  # the one that came, and three ahead of it
        assert read.acquire(timeout=60)
    assert len(taken) == 4
    ahead.close()
    assert len(taken) == 4


def test_an_error_of_a_reader_comes_out_and_ends_its_threads() -> None:
    def read(piece: int) -> int:
        if piece == 2:
            raise StoreError("chunk 2 is damaged")
        return piece

    with pytest.raises(StoreError, match="chunk 2 is damaged"):
        list(read_ahead(range(9), read))
    assert not [one for one in threading.enumerate() if one.name.startswith("scoring")]

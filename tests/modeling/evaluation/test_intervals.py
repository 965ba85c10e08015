import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from modeling.evaluation.intervals import ConformalIntervals
from schemas.errors import TrainingError


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw true values, predictions and sigma: each galaxy has another uncertainty, and its error is drawn from it."""
    rng = np.random.default_rng(seed)
    predicted = rng.normal(8.9, 0.2, n)
    sigma = rng.uniform(0.03, 0.2, n)
    return predicted + sigma * rng.normal(size=n), predicted, sigma


@pytest.mark.parametrize("by_sigma", [False, True])
def test_conformal_intervals_have_their_nominal_coverage(by_sigma):
    true, predicted, sigma = drawn(3_000, seed=1)
    # sigmas that are three times too small do not matter
    sigma = sigma / 3
    fitted = ConformalIntervals.of(true[:1000], predicted[:1000], sigma[:1000] if by_sigma else None)
    for level, margin in ((0.68, 0.03), (0.95, 0.02)):
        half = fitted.half_widths(sigma[1000:], level)
        assert np.mean(np.abs(true[1000:] - predicted[1000:]) <= half) == pytest.approx(level, abs=margin)


def test_small_validation_sets_cover_at_least_the_level_on_average():
    # 24 rows: the 17th smallest score, 17 / 25 = 0.68 exactly, in the mean over many draws
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(4000):
        errors = rng.normal(size=25)
        covered.append(abs(errors[24]) <= ConformalIntervals.of(errors[:24], np.zeros(24)).score_68)
    assert np.mean(covered) == pytest.approx(0.68, abs=0.03)


def test_conformal_scores_by_hand():
    # scores 1 ... 24: rank ceil(25 * 0.68) = 17, ceil(25 * 0.95) = 24
    fitted = ConformalIntervals.of(np.arange(24, 0, -1), np.zeros(24))
    assert fitted == ConformalIntervals(n=24, by_sigma=False, score_68=17.0, score_95=24.0)
    assert fitted.half_widths(np.array([7.0, math.nan]), 0.95).tolist() == [24, 24]
    halved = ConformalIntervals.of(np.arange(24, 0, -1), np.zeros(24), np.full(24, 2.0))
    assert halved.score_68 == 8.5
    assert halved.half_widths(np.array([4.0]), 0.68).tolist() == [34]


def test_conformal_intervals_survive_json():
    for fitted in (ConformalIntervals.of(*drawn(50)), ConformalIntervals.of([1, 2, 3], [1, 2, 4])):
        assert ConformalIntervals(**json.loads(json.dumps(asdict(fitted)))) == fitted


def test_too_few_validation_rows_are_rejected():
    with pytest.raises(TrainingError, match=r"(?=.*\b2\b)(?=.*\b68\b)(?=.*\b3\b)"):
        ConformalIntervals.of([1, 2], [1, 2])
    few = ConformalIntervals.of(np.arange(18), np.zeros(18))
    assert few.score_95 is None
    assert np.isnan(few.half_widths(np.ones(2), 0.95)).all()
    assert ConformalIntervals.of(np.arange(19), np.zeros(19)).score_95 == 18


def test_sigmas_of_another_length_are_rejected():
    with pytest.raises(ValueError, match=r"(?=.*\bsigma\b)(?=.*\(2,\))(?=.*\(1,\))"):
        ConformalIntervals.of([1], [1], [0.1, 0.1])

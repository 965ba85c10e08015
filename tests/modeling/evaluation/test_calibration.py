import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest, norm

from modeling.evaluation.calibration import PERCENTILES, Calibration, Conformal
from schemas.errors import TrainingError

FRACTIONS = np.array(PERCENTILES) / 100


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True values, predictions and sigma: each galaxy has an uncertainty of its own, and it is right."""
    rng = np.random.default_rng(seed)
    predicted = rng.normal(8.9, 0.2, n)
    sigma = rng.uniform(0.03, 0.2, n)
    return predicted + sigma * rng.normal(size=n), predicted, sigma


def percentiles_of(predicted: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    return norm.ppf(FRACTIONS, loc=predicted[:, None], scale=sigma[:, None])


@pytest.mark.parametrize(("true", "mean", "sigma"), [(8.9, 8.9, 0.1), (9.3, 8.9, 0.1), (8.2, 8.9, 0.5), (8.95, 8.9, 1)])
def test_crps_of_a_gaussian_is_the_integral_that_defines_it(true, mean, sigma):
    def squared(x):
        return (norm.cdf(x, mean, sigma) - (x >= true)) ** 2

    integral = quad(squared, mean - 12 * sigma, true)[0] + quad(squared, true, mean + 12 * sigma)[0]
    assert Calibration.of_gaussian([true], [mean], [sigma]).crps[0] == pytest.approx(integral, rel=1e-6)


def test_mean_crps_of_right_error_bars_is_sigma_over_the_root_of_pi():
    true, predicted, sigma = drawn(100_000)
    expected = sigma.mean() / math.sqrt(math.pi)
    assert Calibration.of_gaussian(true, predicted, sigma).mean_crps == pytest.approx(expected, rel=0.01)


def test_crps_of_a_certain_prediction_is_its_absolute_error():
    # 2 |error| times the mean of p, or of 1 - p, over all probabilities p: |error|
    found = Calibration.of_percentiles([1, 4, 0.5], [[1] * 5] * 3).crps
    assert found == pytest.approx([0, 3, 0.5])


def test_crps_of_percentiles_of_a_gaussian_is_that_of_the_gaussian():
    true, predicted, sigma = drawn(2_000)
    found = Calibration.of_percentiles(true, percentiles_of(predicted, sigma)).crps
    gaussian = Calibration.of_gaussian(true, predicted, sigma).crps
    assert np.max(np.abs(found - gaussian) / sigma) < 0.002


def test_crps_of_skewed_percentiles_is_the_integral_that_defines_it():
    # the same distribution, integrated over the label and not over probabilities
    q = np.array([8.0, 8.5, 8.9, 9.0, 9.1])
    scores = norm.ppf(FRACTIONS)

    def probability(x):
        segment = min(max(int(np.searchsorted(q, x, side="right")) - 1, 0), 3)
        share = (x - q[segment]) / (q[segment + 1] - q[segment])
        return norm.cdf(scores[segment] + share * (scores[segment + 1] - scores[segment]))

    true = 8.7
    grid = np.linspace(5, 10, 20_001)
    cumulative = np.array([probability(x) for x in grid])
    integral = np.trapezoid((cumulative - (grid >= true)) ** 2, grid)
    assert Calibration.of_percentiles([true], [q]).crps[0] == pytest.approx(integral, rel=0.005)


def test_pit_of_right_error_bars_is_uniform():
    true, predicted, sigma = drawn(20_000)
    gaussian = Calibration.of_gaussian(true, predicted, sigma)
    assert kstest(gaussian.pit, "uniform").pvalue > 0.01
    assert sum(gaussian.pit_counts()) == 20_000
    assert all(abs(n - 2000) < 5 * math.sqrt(2000) for n in gaussian.pit_counts())
    # error bars of half the size: too many at both ends
    narrow = Calibration.of_gaussian(true, predicted, sigma / 2)
    assert kstest(narrow.pit, "uniform").pvalue < 1e-6
    assert narrow.pit_counts()[0] > 2 * 2000 < narrow.pit_counts()[-1]


def test_percentiles_of_a_gaussian_have_its_pit_and_coverage():
    true, predicted, sigma = drawn(2_000)
    gaussian = Calibration.of_gaussian(true, predicted, sigma)
    percentiles = Calibration.of_percentiles(true, percentiles_of(predicted, sigma))
    np.testing.assert_allclose(percentiles.pit, gaussian.pit, atol=1e-12)
    assert percentiles.coverage_68 == gaussian.coverage_68
    assert percentiles.coverage_95 == gaussian.coverage_95


def test_coverage_of_right_and_of_too_small_error_bars():
    true, predicted, sigma = drawn(100_000)
    right = Calibration.of_gaussian(true, predicted, sigma)
    assert right.coverage_68 == pytest.approx(0.68, abs=0.005)
    assert right.coverage_95 == pytest.approx(0.95, abs=0.003)
    # half the sigma: 2 Phi(0.99446 / 2) - 1 = 0.3810
    assert Calibration.of_gaussian(true, predicted, sigma / 2).coverage_68 == pytest.approx(0.381, abs=0.006)


def test_pit_at_steps_and_beyond_them():
    # the whole distribution at 1: below it, at it, above it
    found = Calibration.of_percentiles([0, 1, 2], [[1, 1, 1, 1, 1]] * 3).pit
    assert found[0] == 0
    assert 0 < found[1] < 1
    assert found[2] == 1


def test_blocks_of_calibrations_add_up():
    true, predicted, sigma = drawn(500)
    whole = Calibration.of_gaussian(true, predicted, sigma)
    blocks = [
        Calibration.of_gaussian(true[rows], predicted[rows], sigma[rows])
        for rows in (slice(300, 500), slice(0, 0), slice(0, 300))
    ]
    added = sum(blocks, Calibration.zero())
    assert added.n == 500
    for name in ("mean_crps", "coverage_68", "coverage_95"):
        assert getattr(added, name) == getattr(whole, name)
    assert added.pit_counts() == whole.pit_counts()
    assert math.isnan(Calibration.zero().mean_crps)
    assert math.isnan(Calibration.zero().coverage_68)
    assert math.isnan(Calibration.zero().coverage_95)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1, 2], [0.1]), r"(?=.*\bsigma\b)(?=.*\(1,\))(?=.*\(2,\))"),
        (([1, 2], [1, 2], [0.1, 0]), r"(?=.*\b1 of 2\b)(?=.*'sigma')(?=.*\b0\b)"),
        (([1, 2], [1, 2], [0.1, math.nan]), r"(?=.*\b1 of 2\b)(?=.*'sigma')"),
        (([1, math.nan], [1, 2], [0.1, 0.1]), r"(?=.*\b1 of 2\b)(?=.*'true')"),
    ],
)
def test_error_bars_that_are_none_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Calibration.of_gaussian(*arguments)


@pytest.mark.parametrize(
    ("true", "percentiles", "message"),
    [
        ([1], [[1, 2, 3]], r"(?=.*\(1, 3\))(?=.*\(object, 5\))(?=.*\b2\.5, 16, 50, 84\b)"),
        ([1], [[1, 2, 4, 3, 5]], r"(?=.*\bpercentiles\b)(?=.*\b1 of 1\b)"),
        ([1], [[1, 2, 3, 4, math.nan]], "'percentiles'"),
        ([math.inf], [[1, 2, 3, 4, 5]], "'true'"),
    ],
)
def test_percentiles_that_are_none_are_refused(true, percentiles, message):
    with pytest.raises(ValueError, match=message):
        Calibration.of_percentiles(true, percentiles)


@pytest.mark.parametrize("by_sigma", [False, True])
def test_conformal_intervals_cover_what_they_promise(by_sigma):
    true, predicted, sigma = drawn(3_000, seed=1)
    # error bars that are three times too small do not matter
    sigma = sigma / 3
    fitted = Conformal.of(true[:1000], predicted[:1000], sigma[:1000] if by_sigma else None)
    for level, margin in ((0.68, 0.03), (0.95, 0.02)):
        low, high = fitted.interval(predicted[1000:], level, sigma[1000:] if by_sigma else None)
        assert np.mean((low <= true[1000:]) & (true[1000:] <= high)) == pytest.approx(level, abs=margin)


def test_small_validation_sets_cover_at_least_the_level_on_average():
    # 24 rows: the 17th smallest score, 17 / 25 = 0.68 exactly, in the mean over many draws
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(4000):
        errors = rng.normal(size=25)
        low, high = Conformal.of(errors[:24], np.zeros(24)).interval([0.0], 0.68)
        covered.append(low[0] <= errors[24] <= high[0])
    assert np.mean(covered) == pytest.approx(0.68, abs=0.03)


def test_conformal_scores_by_hand():
    # scores 1 ... 24: rank ceil(25 * 0.68) = 17, ceil(25 * 0.95) = 24
    fitted = Conformal.of(np.arange(24, 0, -1), np.zeros(24))
    assert fitted == Conformal(n=24, by_sigma=False, score_68=17.0, score_95=24.0)
    low, high = fitted.interval([100, math.nan], 0.95)
    assert (low[0], high[0]) == (76, 124)
    assert math.isnan(low[1])
    halved = Conformal.of(np.arange(24, 0, -1), np.zeros(24), np.full(24, 2.0))
    assert halved.score_68 == 8.5
    assert halved.interval([0], 0.68, [4])[1].tolist() == [34]


def test_conformal_comes_back_from_json():
    for fitted in (Conformal.of(*drawn(50)), Conformal.of([1, 2, 3], [1, 2, 4])):
        assert Conformal.from_dict(json.loads(json.dumps(asdict(fitted)))) == fitted


def test_too_few_validation_rows_are_refused():
    with pytest.raises(TrainingError, match=r"(?=.*\b2\b)(?=.*\b68\b)(?=.*\b3\b)"):
        Conformal.of([1, 2], [1, 2])
    fitted = Conformal.of(np.arange(18), np.zeros(18))
    fitted.interval([1], 0.68)
    with pytest.raises(TrainingError, match=r"(?=.*\b18\b)(?=.*\b95\b)(?=.*\b19\b)"):
        fitted.interval([1], 0.95)
    assert Conformal.of(np.arange(19), np.zeros(19)).score_95 == 18


def test_intervals_are_asked_for_as_they_were_learned():
    plain, scaled = Conformal.of(*drawn(50)[:2]), Conformal.of(*drawn(50))
    with pytest.raises(ValueError, match=r"\bsigma\b"):
        plain.interval([1], 0.68, [0.1])
    with pytest.raises(ValueError, match=r"\bsigma\b"):
        scaled.interval([1], 0.68)
    with pytest.raises(ValueError, match=r"(?=.*\b0\.9\b)(?=.*\b0\.68\b)(?=.*\b0\.95\b)"):
        plain.interval([1], 0.9)
    with pytest.raises(ValueError, match=r"(?=.*\bsigma\b)(?=.*\(2,\))(?=.*\(1,\))"):
        scaled.interval([1], 0.68, [0.1, 0.1])

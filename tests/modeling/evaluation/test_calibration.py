import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest, norm

from modeling.evaluation.calibration import PERCENTILES, Calibration

FRACTIONS = np.array(PERCENTILES) / 100


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw true values, predictions and sigma: each galaxy has another uncertainty, and its error is drawn from it."""
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


def test_mean_crps_of_true_sigmas_is_sigma_over_the_root_of_pi():
    true, predicted, sigma = drawn(100_000)
    expected = sigma.mean() / math.sqrt(math.pi)
    assert Calibration.of_gaussian(true, predicted, sigma).crps.mean() == pytest.approx(expected, rel=0.01)


def test_crps_of_a_prediction_without_width_is_its_absolute_error():
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


def test_pit_of_true_sigmas_is_uniform():
    true, predicted, sigma = drawn(20_000)
    gaussian = Calibration.of_gaussian(true, predicted, sigma)
    assert kstest(gaussian.pit, "uniform").pvalue > 0.01
    assert sum(gaussian.pit_counts()) == 20_000
    assert all(abs(n - 2000) < 5 * math.sqrt(2000) for n in gaussian.pit_counts())
    # sigmas of half the size: too many at both ends
    narrow = Calibration.of_gaussian(true, predicted, sigma / 2)
    assert kstest(narrow.pit, "uniform").pvalue < 1e-6
    assert narrow.pit_counts()[0] > 2 * 2000 < narrow.pit_counts()[-1]


def test_percentiles_of_a_gaussian_have_its_pit_and_coverage():
    true, predicted, sigma = drawn(2_000)
    gaussian = Calibration.of_gaussian(true, predicted, sigma)
    percentiles = Calibration.of_percentiles(true, percentiles_of(predicted, sigma))
    np.testing.assert_allclose(percentiles.pit, gaussian.pit, atol=1e-12)
    np.testing.assert_array_equal(percentiles.covered_68, gaussian.covered_68)
    np.testing.assert_array_equal(percentiles.covered_95, gaussian.covered_95)


def test_coverage_of_true_and_of_too_small_sigmas():
    true, predicted, sigma = drawn(100_000)
    right = Calibration.of_gaussian(true, predicted, sigma)
    assert right.covered_68.mean() == pytest.approx(0.68, abs=0.005)
    assert right.covered_95.mean() == pytest.approx(0.95, abs=0.003)
    # half the sigma: 2 Phi(0.99446 / 2) - 1 = 0.3810
    assert Calibration.of_gaussian(true, predicted, sigma / 2).covered_68.mean() == pytest.approx(0.381, abs=0.006)


def test_pit_at_steps_and_beyond_them():
    # the whole distribution at 1: below it, at it, above it
    found = Calibration.of_percentiles([0, 1, 2], [[1, 1, 1, 1, 1]] * 3).pit
    assert found[0] == 0
    assert 0 < found[1] < 1
    assert found[2] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1, 2], [0.1]), r"(?=.*\bsigma\b)(?=.*\(1,\))(?=.*\(2,\))"),
        (([1, 2], [1, 2], [0.1, 0]), r"(?=.*\b1 of 2\b)(?=.*'sigma')(?=.*\b0\b)"),
        (([1, 2], [1, 2], [0.1, math.nan]), r"(?=.*\b1 of 2\b)(?=.*'sigma')"),
        (([1, math.nan], [1, 2], [0.1, 0.1]), r"(?=.*\b1 of 2\b)(?=.*'true')"),
    ],
)
def test_unusable_sigmas_are_rejected(arguments, message):
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
def test_unusable_percentiles_are_rejected(true, percentiles, message):
    with pytest.raises(ValueError, match=message):
        Calibration.of_percentiles(true, percentiles)

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from modeling.evaluation.bootstrap import (
    ValueWithIntervals,
    estimate_errors,
    estimate_means,
    estimate_metrics,
    resample,
)
from modeling.evaluation.metrics import Regression
from tests.support.prediction_tables import prediction_table


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_intervals_of_a_normal_sample_are_those_of_theory():
    n = 4_000
    errors = np.random.default_rng(3).normal(0.02, 0.1, n)
    true = np.random.default_rng(4).normal(8.9, 0.2, n)
    found = estimate_metrics(true, true + errors, rng=rng())
    truth = {
        "rmse": math.hypot(0.02, 0.1),
        "nmad": 0.1,
        "bias": 0.02,
        "r2": 1 - (0.02**2 + 0.1**2) / 0.2**2,
        "beyond_3_nmad": 0.0027,
        "beyond_0p3_dex": norm.sf(2.8) + norm.cdf(-3.2),
    }
    assert found.keys() == truth.keys()
    for name, metric in found.items():
        assert metric.low_95 <= truth[name] <= metric.high_95
        assert metric.low_95 < metric.low_68 < metric.value < metric.high_68 < metric.high_95
    # standard errors: sigma / sqrt(n) of the mean; 1.1664 sigma / sqrt(n) of the NMAD (Rousseeuw & Croux 1993:
    # efficiency of 37 % against the standard deviation's sigma / sqrt(2 n))
    bias, scatter = found["bias"], found["nmad"]
    assert (bias.high_95 - bias.low_95) / 2 == pytest.approx(1.96 * 0.1 / math.sqrt(n), rel=0.1)
    assert (bias.high_68 - bias.low_68) / 2 == pytest.approx(0.9945 * 0.1 / math.sqrt(n), rel=0.1)
    assert (scatter.high_95 - scatter.low_95) / 2 == pytest.approx(1.96 * 1.166 * 0.1 / math.sqrt(n), rel=0.15)


def test_95_of_100_intervals_cover_the_truth():
    covered = 0
    for seed in range(100):
        errors = np.random.default_rng(seed).normal(0, 0.1, 300)
        true = np.random.default_rng(1000 + seed).normal(8.9, 0.2, 300)
        rmse = estimate_metrics(true, true + errors, rng=rng(), n_resamples=200)["rmse"]
        covered += rmse.low_95 <= 0.1 <= rmse.high_95
    # binomial: 95 +- 2.2
    assert covered >= 88


def test_the_draws_are_those_of_scipy():
    values = np.random.default_rng(0).normal(size=50)
    expected = bootstrap((values,), np.mean, n_resamples=500, batch=7, method="percentile", rng=rng())
    found = resample(50, lambda rows: values[rows].mean(axis=-1)[np.newaxis], rng=rng(), n_resamples=500)
    np.testing.assert_array_equal(found, expected.bootstrap_distribution[np.newaxis])


def test_each_draw_has_the_metrics_of_its_objects():
    true = np.random.default_rng(0).normal(8.9, 0.2, 50)
    errors = np.random.default_rng(1).normal(0, 0.2, 50)
    order = np.lexsort((true + errors, true))
    true, errors = true[order], errors[order]

    def metrics_draw_by_draw(rows):
        metrics = [Regression.of(true[chosen], true[chosen] + errors[chosen]) for chosen in rows]
        return np.array([[found.rmse, found.nmad, found.bias, found.r2] for found in metrics]).T

    slow = resample(50, metrics_draw_by_draw, rng=rng(), n_resamples=200)
    fast = estimate_metrics(true, true + errors, rng=rng(), n_resamples=200)
    for name, draws in zip(("rmse", "nmad", "bias", "r2"), slow, strict=True):
        expected = ValueWithIntervals.of(fast[name].value, draws)
        assert (fast[name].low_95, fast[name].high_68) == pytest.approx((expected.low_95, expected.high_68), abs=1e-12)


def test_a_seed_repeats_its_intervals_and_another_one_does_not():
    columns = prediction_table(200)["true"], prediction_table(200)["predicted"]
    first = estimate_metrics(*columns, rng=np.random.default_rng(1))
    assert estimate_metrics(*columns, rng=np.random.default_rng(1)) == first
    assert estimate_metrics(*columns, rng=np.random.default_rng(2)) != first


def test_too_few_resamples_are_rejected():
    with pytest.raises(ValueError, match=r"(?=.*\b50\b)(?=.*\b95\b)(?=.*\b100\b)"):
        estimate_metrics([1, 2], [1, 2], rng=rng(), n_resamples=50)


def test_means_have_the_interval_of_a_mean():
    found = estimate_means({"x": np.random.default_rng(0).normal(3, 2, 2500)}, rng=rng())["x"]
    assert found.value == pytest.approx(3, abs=0.1)
    # 2 / sqrt(2500) = 0.04
    assert (found.high_95 - found.low_95) / 2 == pytest.approx(1.96 * 0.04, rel=0.1)
    with pytest.raises(ValueError, match=r"(?=.*\b1 of 2\b)(?=.*'x')"):
        estimate_means({"x": np.array([1, math.nan])}, rng=rng())


def test_errors_shrink_with_the_root_of_n():
    values = np.random.default_rng(0).normal(0, 1, 10_000)
    [few] = estimate_errors(lambda x: [float(x.mean())], values[:100])
    [many] = estimate_errors(lambda x: [float(x.mean())], values)
    assert few.error == pytest.approx(0.1, rel=0.25)
    assert many.error == pytest.approx(0.01, rel=0.25)

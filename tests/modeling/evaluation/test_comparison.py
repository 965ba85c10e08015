import math

import numpy as np
import pytest

from modeling.evaluation.bootstrap import estimate_metrics
from modeling.evaluation.comparison import MetricDifference, PairedComparison
from tests.support.prediction_tables import prediction_table


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_one_object_has_metrics_without_intervals():
    found = estimate_metrics([8.9], [9.0], rng=rng())
    assert found["rmse"].value == pytest.approx(0.1)
    assert math.isnan(found["rmse"].low_95)
    alone = PairedComparison.of([8.9], [9.0], [9.5], rng=rng())
    assert alone.rmse.value == pytest.approx(-0.5)
    assert not alone.rmse.is_significant


def test_a_comparison_finds_the_better_predictor():
    table = prediction_table(2_000)
    found = PairedComparison.of(table["true"], table["predicted"], table["worse"], rng=rng())
    assert found.n == 2_000
    assert found.rmse.value == pytest.approx(-0.1, abs=0.01)
    assert found.rmse.is_significant
    assert found.nmad.is_significant
    assert found.rmse.low_95 < found.rmse.value < found.rmse.high_95 < 0
    turned = PairedComparison.of(table["true"], table["worse"], table["predicted"], rng=rng())
    assert turned.rmse.value == -found.rmse.value
    assert turned.rmse.is_significant


def test_a_comparison_does_not_prefer_one_of_two_equals():
    table = prediction_table(2_000)
    found = PairedComparison.of(table["true"], table["predicted"], table["as_good"], rng=rng())
    assert not found.rmse.is_significant
    assert not found.nmad.is_significant
    itself = PairedComparison.of(table["true"], table["predicted"], table["predicted"], rng=rng())
    assert itself.rmse == MetricDifference(value=0, low_95=0, high_95=0)
    assert not itself.rmse.is_significant


def test_equal_predictors_differ_significantly_in_one_of_twenty_comparisons():
    n_significant = 0
    for seed in range(60):
        table = prediction_table(300, seed)
        found = PairedComparison.of(table["true"], table["predicted"], table["as_good"], rng=rng(), n_resamples=200)
        n_significant += found.rmse.is_significant
    # binomial: 3 +- 1.7
    assert n_significant <= 9


def test_pairs_show_a_difference_that_separate_intervals_do_not():
    draw = np.random.default_rng(0)
    true = draw.normal(8.9, 0.2, 1_000)
    first = true + draw.normal(0, 0.1, 1_000)
    second = first + draw.normal(0, 0.03, 1_000)
    apart = [estimate_metrics(true, predicted, rng=rng())["rmse"] for predicted in (first, second)]
    assert apart[0].high_95 > apart[1].low_95
    assert PairedComparison.of(true, first, second, rng=rng()).rmse.is_significant

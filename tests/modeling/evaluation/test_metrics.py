import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modeling.evaluation.metrics import Outliers, Regression, metrics_by_bin, nmad

AUTHORS_PREDICTIONS = Path(__file__).parents[4] / "shared" / "data" / "wu_boada_predictions" / "predictions-oh_p50.csv"

ERRORS = arrays(np.float64, st.integers(1, 40), elements=st.floats(-5, 5).map(lambda value: round(value, 6)))


@pytest.mark.skipif(not AUTHORS_PREDICTIONS.is_file(), reason="the authors' predictions are not on this machine")
def test_the_authors_predictions_have_the_papers_errors():
    table = pd.read_csv(AUTHORS_PREDICTIONS)
    result = Regression.of(table["oh_p50"], table["prediction"])
    assert result.n == 20_466
    assert round(result.rmse, 5) == 0.08489
    assert round(result.nmad, 5) == 0.06506
    assert round(result.bias, 4) == -0.0046
    assert round(result.r2, 3) == 0.820


def test_metrics_of_four_galaxies_by_hand():
    # errors 0, 1, -1, 4: mean 1, mean square 18/4; median 0.5, deviations 0.5, 0.5, 1.5, 3.5 with median 1
    result = Regression.of([0, 1, 2, 3], [0, 2, 1, 7])
    assert result.bias == 1
    assert result.rmse == pytest.approx(math.sqrt(4.5))
    assert result.nmad == pytest.approx(1.4826)
    assert result.r2 == pytest.approx(1 - 4.5 / 1.25)


def test_nmad_of_a_normal_distribution_is_its_standard_deviation():
    assert nmad(np.random.default_rng(0).normal(3, 0.2, 200_000)) == pytest.approx(0.2, rel=0.01)


@given(ERRORS, st.floats(-10, 10), st.floats(-3, 3))
def test_nmad_ignores_a_shift_and_follows_a_scale(errors, offset, factor):
    assert nmad(errors + offset) == pytest.approx(nmad(errors), abs=1e-9)
    assert nmad(errors * factor) == pytest.approx(nmad(errors) * abs(factor), abs=1e-9)


@given(ERRORS, st.randoms(use_true_random=False))
def test_the_order_of_galaxies_does_not_matter(errors, random):
    true = np.linspace(8, 9, len(errors))
    order = list(range(len(errors)))
    random.shuffle(order)
    found, expected = Regression.of(true[order], (true + errors)[order]), Regression.of(true, true + errors)
    assert (found.rmse, found.nmad, found.bias) == (expected.rmse, expected.nmad, expected.bias)


def test_labels_that_do_not_vary_have_no_r2():
    assert math.isnan(Regression.of([8.9, 8.9], [8.9, 9.0]).r2)


def test_nmad_of_nothing_is_nan():
    assert math.isnan(nmad([]))


def test_sums_that_floats_round_differently_in_each_order_are_the_same():
    rng = np.random.default_rng(0)
    true = rng.normal(8.9, 0.2, 10_001)
    predicted = true + rng.standard_cauchy(10_001)
    order = rng.permutation(10_001)
    # plain numpy means of these differ in their last digits
    assert np.mean(predicted[order] - true[order]) != np.mean(predicted - true)
    assert Regression.of(true[order], predicted[order]) == Regression.of(true, predicted)


def test_outliers_of_ten_galaxies_by_hand():
    # errors -0.04 ... 0.04 in steps of 0.01 and 0.31: median 0.005, deviations 0.005 x2, 0.015 x2, 0.025 x2, ...:
    # their median is 0.025, NMAD 0.037065 and its threefold 0.1112
    errors = np.array([-4, -3, -2, -1, 0, 1, 2, 3, 4, 31]) / 100
    true = np.linspace(8, 9, 10)
    assert Outliers.of((true + errors) - true) == Outliers(beyond_3_nmad=0.1, beyond_0p3_dex=0.1)
    errors[-1] = 0.25
    assert Outliers.of((true + errors) - true) == Outliers(beyond_3_nmad=0.1, beyond_0p3_dex=0.0)


def test_a_normal_distribution_has_27_in_10_000_beyond_3_nmad():
    errors = np.random.default_rng(0).normal(0.05, 0.1, 200_000)
    found = Outliers.of(errors)
    # 2 Phi(-3) = 0.0027; Phi(-2.5) + Phi(-3.5) = 0.00644 for errors of mean 0.05
    assert found.beyond_3_nmad == pytest.approx(0.0027, abs=0.0004)
    assert found.beyond_0p3_dex == pytest.approx(0.00644, abs=0.0006)


def test_bins_of_five_galaxies_by_hand():
    # 8.7 is an edge, though 8.7 / 0.1 is 86.99999999999999
    found = metrics_by_bin([8.65, 8.7, 8.75, 8.79, 9.0], [8.75, 8.7, 8.85, 8.69, 8.8])
    assert [(bin_.low, bin_.high, bin_.n) for bin_ in found] == [(8.6, 8.7, 1), (8.7, 8.8, 3), (9.0, 9.1, 1)]
    assert found[1].rmse == pytest.approx(math.sqrt(0.02 / 3))
    assert found[1].bias == pytest.approx(0, abs=1e-12)
    assert found[1].nmad == pytest.approx(0.14826)
    assert metrics_by_bin([], []) == ()


def test_bins_below_zero_and_of_another_width():
    found = metrics_by_bin([-0.3, 0.1, 0.6], [0, 0, 0], 0.5)
    assert [(bin_.low, bin_.high) for bin_ in found] == [(-0.5, 0.0), (0.0, 0.5), (0.5, 1.0)]


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (0, r"\bwidth\b.*\b0\b"),
        (-0.1, r"\bwidth\b.*-0\.1"),
        (math.nan, r"\bwidth\b.*\bnan\b"),
        (math.inf, r"\bwidth\b.*\binf\b"),
        (1e-300, r"(?=.*1e-300)(?=.*\b8\.9\b)"),
    ],
)
def test_an_unusable_bin_width_is_rejected(width, message):
    with pytest.raises(ValueError, match=message):
        metrics_by_bin([8.9], [8.9], width)


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([1, 2], [1], r"(?=.*true\b.*\(2,\))(?=.*predicted\b.*\(1,\))"),
        ([], [], r"\b1\b"),
        ([1, math.nan], [1, 2], r"(?=.*\b1 of 2\b)(?=.*'true')"),
        ([1, 2], [math.inf, 2], r"(?=.*\b1 of 2\b)(?=.*'predicted')"),
    ],
)
def test_unpaired_or_unknown_values_are_rejected(true, predicted, message):
    with pytest.raises(ValueError, match=message):
        Regression.of(true, predicted)

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.evaluation.metrics import Regression
from modeling.evaluation.residuals import BinMetrics, Outliers, Residuals

LABELS = st.floats(7.5, 9.5)
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=60)


def residuals_of(pairs: list[tuple[float, float]]) -> Residuals:
    return Residuals.of([true for true, _ in pairs], [predicted for _, predicted in pairs])


def metrics_of(residuals: Residuals) -> tuple:
    # repr: r2 may be NaN, and every digit counts
    return repr(residuals.regression()), residuals.outliers(), residuals.bins()


@given(PAIRS, st.data())
def test_any_cut_into_blocks_and_any_order_give_identical_metrics(pairs, data):
    shuffled = data.draw(st.permutations(pairs))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pairs)), max_size=5)))
    blocks = [residuals_of(shuffled[start:stop]) for start, stop in zip([0, *cuts], [*cuts, len(pairs)], strict=True)]
    whole = residuals_of(pairs)
    added = sum(blocks, Residuals.zero())
    for found in (added, Residuals.merge(reversed(blocks))):
        assert found == whole
        assert metrics_of(found) == metrics_of(whole)


def test_sums_that_floats_round_differently_in_each_order_are_the_same():
    rng = np.random.default_rng(0)
    true = rng.normal(8.9, 0.2, 10_001)
    predicted = true + rng.standard_cauchy(10_001)
    order = rng.permutation(10_001)
    # plain numpy means of these differ in their last digits
    assert np.mean(predicted[order] - true[order]) != np.mean(predicted - true)
    assert Residuals.of(true[order], predicted[order]).regression() == Residuals.of(true, predicted).regression()


def test_zero_is_neutral_and_has_no_metrics():
    state = Residuals.of([8.5, 8.7], [8.6, 8.7])
    assert Residuals.zero() + state == state + Residuals.zero() == state
    assert Residuals.zero().n == 0
    assert Residuals.merge([]) == Residuals.zero()
    assert math.isnan(Residuals.zero().outliers().beyond_3_nmad)
    assert Residuals.zero().bins() == ()
    with pytest.raises(ValueError, match=r"\b1\b"):
        Residuals.zero().regression()


def test_equality_counts_each_pair():
    assert Residuals.of([1, 1, 2], [3, 3, 4]) != Residuals.of([1, 2, 2], [3, 4, 4])
    assert Residuals.of([1, 2], [4, 3]) != Residuals.of([1, 2], [3, 4])
    assert Residuals.of([1], [1]) != "text"


def test_a_state_does_not_change_with_the_array_that_it_came_from():
    true = np.array([1.0, 2.0])
    state = Residuals.of(true, [1, 2])
    true[0] = 100
    assert state.regression().rmse == 0
    with pytest.raises(ValueError, match="read-only"):
        state.true[0] = 3


def test_metrics_are_those_of_regression():
    assert Residuals.of([0, 1, 2, 3], [0, 2, 1, 7]).regression() == Regression.of([0, 1, 2, 3], [0, 2, 1, 7])


def test_outliers_of_ten_galaxies_by_hand():
    # errors -0.04 ... 0.04 in steps of 0.01 and 0.31: median 0.005, deviations 0.005 x2, 0.015 x2, 0.025 x2, ...:
    # their median is 0.025, NMAD 0.037065 and its threefold 0.1112
    errors = np.array([-4, -3, -2, -1, 0, 1, 2, 3, 4, 31]) / 100
    true = np.linspace(8, 9, 10)
    assert Residuals.of(true, true + errors).outliers() == Outliers(beyond_3_nmad=0.1, beyond_0p3_dex=0.1)
    errors[-1] = 0.25
    assert Residuals.of(true, true + errors).outliers() == Outliers(beyond_3_nmad=0.1, beyond_0p3_dex=0.0)


def test_a_normal_distribution_has_27_in_10_000_beyond_3_nmad():
    errors = np.random.default_rng(0).normal(0.05, 0.1, 200_000)
    found = Residuals.of(np.zeros_like(errors), errors).outliers()
    # 2 Phi(-3) = 0.0027; Phi(-2.5) + Phi(-3.5) = 0.00644 for errors of mean 0.05
    assert found.beyond_3_nmad == pytest.approx(0.0027, abs=0.0004)
    assert found.beyond_0p3_dex == pytest.approx(0.00644, abs=0.0006)


def test_bins_of_five_galaxies_by_hand():
    # 8.7 is an edge, though 8.7 / 0.1 is 86.99999999999999
    found = Residuals.of([8.65, 8.7, 8.75, 8.79, 9.0], [8.75, 8.7, 8.85, 8.69, 8.8]).bins()
    assert [(one.low, one.high, one.n) for one in found] == [(8.6, 8.7, 1), (8.7, 8.8, 3), (9.0, 9.1, 1)]
    assert found[1].rmse == pytest.approx(math.sqrt(0.02 / 3))
    assert found[1].bias == pytest.approx(0, abs=1e-12)
    assert found[1].nmad == pytest.approx(0.14826)
    assert isinstance(found[0], BinMetrics)


def test_bins_below_zero_and_of_another_width():
    found = Residuals.of([-0.3, 0.1, 0.6], [0, 0, 0]).bins(0.5)
    assert [(one.low, one.high) for one in found] == [(-0.5, 0.0), (0.0, 0.5), (0.5, 1.0)]


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
def test_a_width_that_makes_no_bins_is_refused(width, message):
    with pytest.raises(ValueError, match=message):
        Residuals.of([8.9], [8.9]).bins(width)


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([1, 2], [1], r"(?=.*true\b.*\(2,\))(?=.*predicted\b.*\(1,\))"),
        ([1, math.nan], [1, 2], r"(?=.*\b1 of 2\b)(?=.*'true')"),
        ([1, 2], [math.inf, 2], r"(?=.*\b1 of 2\b)(?=.*'predicted')"),
    ],
)
def test_what_cannot_be_compared_is_refused(true, predicted, message):
    with pytest.raises(ValueError, match=message):
        Residuals.of(true, predicted)

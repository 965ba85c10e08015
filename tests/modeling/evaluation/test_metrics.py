import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modeling.evaluation.metrics import Regression, nmad

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
    one, other = Regression.of(true, true + errors), Regression.of(true[order], (true + errors)[order])
    assert (one.rmse, one.nmad, one.bias) == pytest.approx((other.rmse, other.nmad, other.bias))


def test_labels_that_do_not_vary_have_no_r2():
    assert math.isnan(Regression.of([8.9, 8.9], [8.9, 9.0]).r2)


def test_nmad_of_nothing_is_nan():
    assert math.isnan(nmad([]))


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([1, 2], [1], r"(?=.*true\b.*\(2,\))(?=.*predicted\b.*\(1,\))"),
        ([], [], r"\b1\b"),
        ([1, math.nan], [1, 2], r"(?=.*\b1 of 2\b)(?=.*'true')"),
        ([1, 2], [math.inf, 2], r"(?=.*\b1 of 2\b)(?=.*'predicted')"),
    ],
)
def test_what_cannot_be_compared_is_refused(true, predicted, message):
    with pytest.raises(ValueError, match=message):
        Regression.of(true, predicted)

import json
import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from modeling.evaluation.comparison import Comparison, Difference, Estimate, estimate_means, estimate_metrics, resample
from modeling.evaluation.evaluate import ScoredColumns, score_predictions, usable_rows
from modeling.evaluation.metrics import Regression, nmad
from modeling.evaluation.residuals import Residuals
from schemas.errors import CatalogError, ContractError
from tests.facts import told_together

COLUMNS = ScoredColumns(true="true", predicted="predicted")


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def table_of(n: int, seed: int = 0) -> pd.DataFrame:
    """Galaxies with errors of 0.1 dex that have a sigma, a rival of twice the error, and one that is as good."""
    draw = np.random.default_rng(seed)
    true = draw.normal(8.9, 0.2, n)
    return pd.DataFrame(
        {
            "true": true,
            "predicted": true + draw.normal(0, 0.1, n),
            "sigma": 0.1,
            "worse": true + draw.normal(0, 0.2, n),
            "as_good": true + draw.normal(0, 0.1, n),
        }
    )


def test_intervals_of_a_normal_sample_are_those_of_theory():
    n = 4_000
    errors = np.random.default_rng(3).normal(0.02, 0.1, n)
    true = np.random.default_rng(4).normal(8.9, 0.2, n)
    found = estimate_metrics(Residuals.of(true, true + errors), rng=rng())
    truth = {
        "rmse": math.hypot(0.02, 0.1),
        "nmad": 0.1,
        "bias": 0.02,
        "r2": 1 - (0.02**2 + 0.1**2) / 0.2**2,
        "beyond_3_nmad": 0.0027,
        "beyond_0p3_dex": norm.sf(2.8) + norm.cdf(-3.2),
    }
    assert found.keys() == truth.keys()
    for name, one in found.items():
        assert one.low_95 <= truth[name] <= one.high_95
        assert one.low_95 < one.low_68 < one.value < one.high_68 < one.high_95
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
        one = estimate_metrics(Residuals.of(true, true + errors), rng=rng(), n_resamples=200)["rmse"]
        covered += one.low_95 <= 0.1 <= one.high_95
    # binomial: 95 +- 2.2
    assert covered >= 88


def test_each_draw_has_the_metrics_of_its_own_objects():
    true = np.random.default_rng(0).normal(8.9, 0.2, 50)
    errors = np.random.default_rng(1).normal(0, 0.2, 50)
    drawn = []

    def metrics_one_by_one(rows):
        judged = [Regression.of(true[one], true[one] + errors[one]) for one in rows]
        drawn.extend(judged)
        return np.array([[one.rmse, one.nmad, one.bias, one.r2] for one in judged]).T

    order = np.lexsort((true + errors, true))
    true, errors = true[order], errors[order]
    slow = resample(50, metrics_one_by_one, rng=rng(), n_resamples=200)
    fast = estimate_metrics(Residuals.of(true, true + errors), rng=rng(), n_resamples=200)
    for name, draws in zip(("rmse", "nmad", "bias", "r2"), slow, strict=True):
        one = Estimate.of(fast[name].value, draws)
        assert (one.low_95, one.high_68) == pytest.approx((fast[name].low_95, fast[name].high_68), abs=1e-12)


def test_a_seed_repeats_its_intervals_and_another_one_does_not():
    state = Residuals.of(table_of(200)["true"], table_of(200)["predicted"])
    once = estimate_metrics(state, rng=np.random.default_rng(1))
    assert estimate_metrics(state, rng=np.random.default_rng(1)) == once
    assert estimate_metrics(state, rng=np.random.default_rng(2)) != once


def test_one_object_has_metrics_without_intervals():
    found = estimate_metrics(Residuals.of([8.9], [9.0]), rng=rng())
    assert found["rmse"].value == pytest.approx(0.1)
    assert math.isnan(found["rmse"].low_95)
    alone = Comparison.of([8.9], [9.0], [9.5], rng=rng())
    assert alone.rmse.value == pytest.approx(-0.5)
    assert not alone.rmse.is_significant


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match=r"(?=.*\b50\b)(?=.*\b95\b)(?=.*\b100\b)"):
        estimate_metrics(Residuals.of([1, 2], [1, 2]), rng=rng(), n_resamples=50)


def test_means_have_the_interval_of_a_mean():
    found = estimate_means({"x": np.random.default_rng(0).normal(3, 2, 2500)}, rng=rng())["x"]
    assert found.value == pytest.approx(3, abs=0.1)
    # 2 / sqrt(2500) = 0.04
    assert (found.high_95 - found.low_95) / 2 == pytest.approx(1.96 * 0.04, rel=0.1)
    with pytest.raises(ValueError, match=r"(?=.*\b1 of 2\b)(?=.*'x')"):
        estimate_means({"x": np.array([1, math.nan])}, rng=rng())


def test_a_comparison_finds_the_better_predictor():
    table = table_of(2_000)
    found = Comparison.of(table["true"], table["predicted"], table["worse"], rng=rng())
    assert found.n == 2_000
    assert found.rmse.value == pytest.approx(-0.1, abs=0.01)
    assert found.rmse.is_significant
    assert found.nmad.is_significant
    assert found.rmse.low_95 < found.rmse.value < found.rmse.high_95 < 0
    turned = Comparison.of(table["true"], table["worse"], table["predicted"], rng=rng())
    assert turned.rmse.value == -found.rmse.value
    assert turned.rmse.is_significant


def test_a_comparison_does_not_prefer_one_of_two_equals():
    table = table_of(2_000)
    found = Comparison.of(table["true"], table["predicted"], table["as_good"], rng=rng())
    assert not found.rmse.is_significant
    assert not found.nmad.is_significant
    itself = Comparison.of(table["true"], table["predicted"], table["predicted"], rng=rng())
    assert itself.rmse == Difference(value=0, low_95=0, high_95=0)
    assert not itself.rmse.is_significant


def test_equal_predictors_are_told_apart_in_one_of_twenty_comparisons():
    n_told_apart = 0
    for seed in range(60):
        table = table_of(300, seed)
        found = Comparison.of(table["true"], table["predicted"], table["as_good"], rng=rng(), n_resamples=200)
        n_told_apart += found.rmse.is_significant
    # binomial: 3 +- 1.7
    assert n_told_apart <= 9


def test_pairs_show_a_difference_that_separate_intervals_do_not():
    draw = np.random.default_rng(0)
    true = draw.normal(8.9, 0.2, 1_000)
    first = true + draw.normal(0, 0.1, 1_000)
    second = first + draw.normal(0, 0.03, 1_000)
    apart = [estimate_metrics(Residuals.of(true, one), rng=rng())["rmse"] for one in (first, second)]
    assert apart[0].high_95 > apart[1].low_95
    assert Comparison.of(true, first, second, rng=rng()).rmse.is_significant


def test_20_466_galaxies_take_seconds():
    table = table_of(20_466)
    columns = ScoredColumns(true="true", predicted="predicted", sigma="sigma", against="worse")
    start = time.process_time()
    score_predictions(table, columns)
    assert time.process_time() - start < 20


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_number(random):
    table = table_of(60).round(2)
    order = list(range(60))
    random.shuffle(order)
    columns = ScoredColumns(true="true", predicted="predicted", sigma="sigma", against="worse")
    once, again = (score_predictions(one, columns, n_resamples=100) for one in (table, table.iloc[order]))
    assert once == again


def test_a_second_question_does_not_change_the_answer_to_the_first():
    table = table_of(100)
    more = ScoredColumns(true="true", predicted="predicted", sigma="sigma", against="worse")
    alone, both = (score_predictions(table, columns, n_resamples=100) for columns in (COLUMNS, more))
    assert alone.metrics.items() <= both.metrics.items()
    assert alone.pit_counts is None
    assert alone.comparison is None


def test_scores_are_those_of_the_parts():
    table = table_of(2_000)
    columns = ScoredColumns(true="true", predicted="predicted", sigma="sigma", against="worse")
    found = score_predictions(table, columns, bin_width=0.2)
    assert found.metrics["rmse"].value == Regression.of(table["true"], table["predicted"]).rmse
    assert found.metrics["nmad"].value == nmad(table["predicted"] - table["true"])
    assert found.metrics["coverage_68"].low_95 < 0.68 < found.metrics["coverage_68"].high_95
    assert found.metrics["coverage_95"].low_95 < 0.95 < found.metrics["coverage_95"].high_95
    # 0.1 / sqrt(pi)
    assert found.metrics["crps"].low_95 < 0.05642 < found.metrics["crps"].high_95
    assert sum(found.pit_counts) == sum(one.n for one in found.bins) == found.n == 2_000
    assert found.bins[0].high - found.bins[0].low == pytest.approx(0.2)
    assert found.comparison.rmse.is_significant
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["metrics"]["rmse"]["value"] == found.metrics["rmse"].value
    assert plain["comparison"]["rmse"]["is_significant"] is True


def test_what_has_no_number_is_null_in_json():
    plain = score_predictions(pd.DataFrame({"true": [8.9], "predicted": [9.0]}), COLUMNS).to_dict()
    assert plain["metrics"]["r2"]["value"] is None
    assert plain["metrics"]["rmse"]["low_95"] is None


def test_rows_that_do_not_count_are_counted_by_their_first_reason():
    table = pd.DataFrame(
        {
            "true": [8.9, None, -9999, 8.8, 8.7, 8.6, 8.5, 8.4, math.nan],
            "predicted": [8.8, 8.8, 8.8, None, -9999, math.inf, 8.5, 8.4, math.nan],
            "sigma": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0, None, 0.1],
        }
    )
    values, left_out = usable_rows(table, ScoredColumns(true="true", predicted="predicted", sigma="sigma"))
    assert {name: column.tolist() for name, column in values.items()} == {
        "true": [8.9], "predicted": [8.8], "sigma": [0.1],
    }  # fmt: skip
    counted = (
        ("true", "NaN", 2),
        ("true", "-9999", 1),
        ("predicted", "NaN", 1),
        ("predicted", "-9999", 1),
        ("predicted", "inf", 1),
        ("sigma", "NaN", 1),
        ("sigma", "0", 1),
    )
    assert len(left_out) == len(counted)
    for column, value, expected in counted:
        assert [n for reason, n in left_out.items() if told_together(reason, column, value)] == [expected]
    assert sum(left_out.values()) + 1 == len(table)


def test_nullable_and_whole_numbers_are_numbers():
    table = pd.DataFrame({"true": pd.array([8, None, 9], dtype="Int64"), "predicted": [8, 9, -9999]})
    found = score_predictions(table, COLUMNS)
    assert (found.n, found.metrics["rmse"].value) == (1, 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"treu": [1.0], "predicted": [1.0]}, r"(?=.*'true')(?=.*\btreu\b)"),
        ({"a": [1.0], "predicted": [1.0]}, r"(?=.*'true')(?=.*\ba, predicted\b)"),
        ({"true": ["x"], "predicted": [1.0]}, r"(?=.*'true')(?=.*'x')"),
        ({"true": [True], "predicted": [1.0]}, r"(?=.*'true')(?=.*\bbool\b)(?=.*'True')"),
        (
            {"true": [1.0, -9999], "predicted": [None, 1.0]},
            r"(?=.*\b1\b[^;]*\btrue\b[^;]*-9999)(?=.*\b1\b[^;]*\bpredicted\b[^;]*NaN)",
        ),
        ({"true": [None], "predicted": [1.0]}, r"\b1\b.*\btrue\b.*NaN"),
        ({"true": [], "predicted": []}, r"\brows?\b"),
    ],
)
def test_a_table_that_cannot_be_evaluated_is_refused(table, message):
    with pytest.raises(CatalogError, match=message):
        score_predictions(pd.DataFrame(table), COLUMNS)


def test_a_column_answers_one_question():
    with pytest.raises(ContractError, match="'oh'"):
        ScoredColumns(true="oh", predicted="oh")

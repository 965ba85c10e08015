import json
import math
import time

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.evaluation.evaluate import EvaluatedColumns, evaluate_predictions, usable_rows
from modeling.evaluation.metrics import Regression, nmad
from schemas.errors import CatalogError, ContractError
from tests.facts import facts_near
from tests.support.prediction_tables import prediction_table

COLUMNS = EvaluatedColumns(true="true", predicted="predicted")


def test_20_466_galaxies_take_seconds():
    table = prediction_table(20_466)
    columns = EvaluatedColumns(true="true", predicted="predicted", sigma="sigma", against="worse")
    start = time.process_time()
    evaluate_predictions(table, columns)
    assert time.process_time() - start < 20


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_number(random):
    table = prediction_table(60).round(2)
    order = list(range(60))
    random.shuffle(order)
    columns = EvaluatedColumns(true="true", predicted="predicted", sigma="sigma", against="worse")
    expected, found = (evaluate_predictions(rows, columns, n_resamples=100) for rows in (table, table.iloc[order]))
    assert found == expected


def test_additional_columns_do_not_change_the_metrics():
    table = prediction_table(100)
    more = EvaluatedColumns(true="true", predicted="predicted", sigma="sigma", against="worse")
    alone, both = (evaluate_predictions(table, columns, n_resamples=100) for columns in (COLUMNS, more))
    assert alone.metrics.items() <= both.metrics.items()
    assert alone.pit_counts is None
    assert alone.comparison is None


def test_the_result_agrees_with_its_parts():
    table = prediction_table(2_000)
    columns = EvaluatedColumns(true="true", predicted="predicted", sigma="sigma", against="worse")
    found = evaluate_predictions(table, columns, bin_width=0.2)
    assert found.metrics["rmse"].value == Regression.of(table["true"], table["predicted"]).rmse
    assert found.metrics["nmad"].value == nmad(table["predicted"] - table["true"])
    assert found.metrics["coverage_68"].low_95 < 0.68 < found.metrics["coverage_68"].high_95
    assert found.metrics["coverage_95"].low_95 < 0.95 < found.metrics["coverage_95"].high_95
    # 0.1 / sqrt(pi)
    assert found.metrics["crps"].low_95 < 0.05642 < found.metrics["crps"].high_95
    assert sum(found.pit_counts) == sum(bin_.n for bin_ in found.bins) == found.n == 2_000
    assert found.bins[0].high - found.bins[0].low == pytest.approx(0.2)
    assert found.comparison.rmse.is_significant
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["metrics"]["rmse"]["value"] == found.metrics["rmse"].value
    assert plain["comparison"]["rmse"]["is_significant"] is True


def test_nan_is_null_in_json():
    plain = evaluate_predictions(pd.DataFrame({"true": [8.9], "predicted": [9.0]}), COLUMNS).to_dict()
    assert plain["metrics"]["r2"]["value"] is None
    assert plain["metrics"]["rmse"]["low_95"] is None


def test_rows_left_out_are_counted_by_their_first_reason():
    table = pd.DataFrame(
        {
            "true": [8.9, None, -9999, 8.8, 8.7, 8.6, 8.5, 8.4, math.nan],
            "predicted": [8.8, 8.8, 8.8, None, -9999, math.inf, 8.5, 8.4, math.nan],
            "sigma": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0, None, 0.1],
        }
    )
    values, left_out = usable_rows(table, EvaluatedColumns(true="true", predicted="predicted", sigma="sigma"))
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
        assert [n for reason, n in left_out.items() if facts_near(reason, column, value)] == [expected]
    assert sum(left_out.values()) + 1 == len(table)


def test_nullable_and_whole_numbers_are_numbers():
    table = pd.DataFrame({"true": pd.array([8, None, 9], dtype="Int64"), "predicted": [8, 9, -9999]})
    found = evaluate_predictions(table, COLUMNS)
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
def test_an_unusable_table_is_rejected(table, message):
    with pytest.raises(CatalogError, match=message):
        evaluate_predictions(pd.DataFrame(table), COLUMNS)


def test_a_column_name_given_twice_is_rejected():
    with pytest.raises(ContractError, match="'oh'"):
        EvaluatedColumns(true="oh", predicted="oh")

"""`galstore evaluate` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modeling.judging.metrics import Regression
from tests.conftest import SHARED_DATA
from tests.flows.conftest import Command, assert_one_clear_line

AUTHORS_PREDICTIONS = SHARED_DATA / "wu_boada_predictions" / "predictions-oh_p50.csv"
ASK = ("--true", "oh_p50", "--predicted", "prediction")


def numbers_after(title: str, told: str) -> list[str]:
    (line,) = [line for line in told.splitlines() if line.strip().startswith(title)]
    return [cell.strip() for cell in line.split("│")[1:]]


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """300 galaxies, of which three have no number somewhere."""
    draw = np.random.default_rng(0)
    true = draw.normal(8.9, 0.2, 300)
    table = pd.DataFrame(
        {
            "objID": 1237648702973411443 + np.arange(300),
            "oh_p50": true,
            "prediction": true + draw.normal(0, 0.1, 300),
            "sigma": 0.1,
            "forest": true + draw.normal(0, 0.2, 300),
            "name": "galaxy",
        }
    )
    table.loc[3, "oh_p50"] = -9999
    table.loc[[4, 5], "prediction"] = np.nan
    table.to_csv(tmp_path / "predictions.csv", index=False)
    return tmp_path / "predictions.csv"


@pytest.mark.skipif(not AUTHORS_PREDICTIONS.is_file(), reason="the authors' predictions are not on this machine")
def test_the_authors_predictions_have_the_papers_numbers(galstore: Command) -> None:
    told = galstore("evaluate", str(AUTHORS_PREDICTIONS), *ASK)
    assert told.returncode == 0
    assert "20,466 of 20,466 rows count" in told.stdout
    found = {title: numbers_after(title, told.stdout)[0] for title in ("RMSE", "NMAD", "bias", "R²")}
    assert found == {"RMSE": "0.08489", "NMAD": "0.06506", "bias": "-0.0046", "R²": "0.820"}
    # as galaxies by the thousand have: about RMSE / sqrt(2 n) = 0.0004, and more for heavy tails
    low, high = map(float, numbers_after("RMSE", told.stdout)[2].split(" ... "))
    assert 0.0008 < (high - low) / 2 < 0.002


def test_metrics_bins_and_comparison_are_printed(galstore: Command, predictions: Path) -> None:
    ask = (*ASK, "--sigma", "sigma", "--against", "forest", "--bin", "0.25")
    told = galstore("evaluate", str(predictions), *ask).stdout
    assert "297 of 300 rows count" in told
    assert "1 left out: oh_p50 is -9999" in told
    assert "2 left out: prediction is null or NaN" in told
    for title in ("beyond 3 NMAD", "beyond 0.3 dex", "CRPS", "in its 68 % interval", "in its 95 % interval"):
        assert " ... " in numbers_after(title, told)[1]
    assert "tenths of the PIT" in told
    assert numbers_after("8.75 ... 9.00", told)[0].isdigit()
    assert "prediction less forest, on the same rows" in told
    assert told.count("prediction is better") == 2


def test_json_has_the_same_numbers(galstore: Command, predictions: Path) -> None:
    ask = ("evaluate", str(predictions), *ASK, "--sigma", "sigma", "--against", "forest", "--resamples", "200")
    told, plain = galstore(*ask).stdout, json.loads(galstore(*ask, "--json").stdout)
    assert (plain["n_rows"], plain["n"], sum(plain["left_out"].values())) == (300, 297, 3)
    assert (plain["n_resamples"], plain["seed"]) == (200, 0)
    rmse = plain["metrics"]["rmse"]
    assert numbers_after("RMSE", told.split("bins of")[0]) == [
        f"{rmse['value']:.5f}",
        f"{rmse['low_68']:.5f} ... {rmse['high_68']:.5f}",
        f"{rmse['low_95']:.5f} ... {rmse['high_95']:.5f}",
    ]
    kept = pd.read_csv(predictions).drop(index=[3, 4, 5])
    assert rmse["value"] == Regression.of(kept["oh_p50"], kept["prediction"]).rmse
    assert plain["comparison"]["rmse"]["is_significant"]
    assert f"{plain['comparison']['nmad']['value']:.5f}" in told
    assert sum(one["n"] for one in plain["bins"]) == 297


def test_parquet_gives_what_csv_gives(galstore: Command, predictions: Path) -> None:
    file = predictions.with_suffix(".parquet")
    pd.read_csv(predictions).to_parquet(file)
    tables = [galstore("evaluate", str(one), *ASK, "--seed", "3").stdout for one in (predictions, file)]
    assert tables[0] == tables[1]
    assert galstore("evaluate", str(file), *ASK, "--seed", "4").stdout != tables[1]


def test_equal_predictors_are_not_told_apart(galstore: Command, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    true, error = draw.normal(8.9, 0.2, 500), draw.normal(0, 0.1, 500)
    file = tmp_path / "pair.csv"
    # the same errors to the other side
    pd.DataFrame({"oh_p50": true, "prediction": true + error, "other": true - error}).to_csv(file, index=False)
    told = galstore("evaluate", str(file), *ASK, "--against", "other").stdout
    assert told.count("not told apart: zero is inside") == 2


def test_what_cannot_be_evaluated_is_one_clear_line(galstore: Command, predictions: Path, tmp_path: Path) -> None:
    def refused(*told: str, file: Path = predictions, ask: tuple[str, ...] = ASK) -> None:
        assert_one_clear_line(galstore("evaluate", str(file), *ask), *told)

    refused("nothing.csv", file=tmp_path / "nothing.csv")
    refused("'predicton'", "did you mean prediction", ask=("--true", "oh_p50", "--predicted", "predicton"))
    refused("'name'", "numbers are needed", ask=("--true", "name", "--predicted", "prediction"))
    refused("named twice", ask=("--true", "oh_p50", "--predicted", "oh_p50"))
    refused("width of the bins is 0.0", "give a positive number", ask=(*ASK, "--bin", "0"))
    empty = tmp_path / "empty.csv"
    empty.write_text("oh_p50,prediction\n-9999,8.9\n8.9,\n")
    refused("no row is left", "1 rows: oh_p50 is -9999", "1 rows: prediction is null or NaN", file=empty)


def test_help_has_an_example(galstore: Command) -> None:
    assert "Example: galstore evaluate" in galstore("evaluate", "--help").stdout

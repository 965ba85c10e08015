"""Output of `galstore evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modeling.evaluation.metrics import Regression
from tests.conftest import SHARED_DATA
from tests.facts import facts_near
from tests.flows.conftest import Command, assert_one_clear_line

AUTHORS_PREDICTIONS = SHARED_DATA / "wu_boada_predictions" / "predictions-oh_p50.csv"
ASK = ("--true", "oh_p50", "--predicted", "prediction")


def numbers_after(title: str, printed: str) -> list[str]:
    """Return the other cells of the first row with this title in its first cell."""
    rows = [[cell.strip() for cell in line.split("│")] for line in printed.splitlines() if "│" in line]
    return next(cells for first, *cells in rows if title in first)


def verdicts_of(printed: str) -> list[str]:
    """Return the last cells of a comparison, the only table with words at the end of rows."""
    rows = [[cell.strip() for cell in line.split("│")] for line in printed.splitlines() if "│" in line]
    return [row[-1] for row in rows if row[-1][0].isalpha()]


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Table of 300 galaxies; three lack a value."""
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
    printed = galstore("evaluate", str(AUTHORS_PREDICTIONS), *ASK)
    assert printed.returncode == 0
    assert facts_near(printed.stdout, "20,466 of 20,466")
    found = {title: numbers_after(title, printed.stdout)[0] for title in ("RMSE", "NMAD", "bias", "R²")}
    assert found == {"RMSE": "0.08489", "NMAD": "0.06506", "bias": "-0.0046", "R²": "0.820"}
    # about RMSE / sqrt(2 n) = 0.0004 for 20,466 galaxies, and more for heavy tails
    low, high = map(float, numbers_after("RMSE", printed.stdout)[2].split(" ... "))
    assert 0.0008 < (high - low) / 2 < 0.002


def test_metrics_bins_and_comparison_are_printed(galstore: Command, predictions: Path) -> None:
    ask = (*ASK, "--sigma", "sigma", "--against", "forest", "--bin", "0.25")
    printed = galstore("evaluate", str(predictions), *ask).stdout
    assert facts_near(printed, "297 of 300")
    assert facts_near(printed, "1", "oh_p50", "-9999", within=40)
    assert facts_near(printed, "2", "prediction", "NaN", within=40)
    for title in ("3 NMAD", "0.3 dex", "CRPS", "68 %", "95 %"):
        assert " ... " in numbers_after(title, printed)[1]
    assert "PIT" in printed
    assert numbers_after("8.75 ... 9.00", printed)[0].isdigit()
    verdicts = verdicts_of(printed)
    assert len(verdicts) == 2
    for verdict in verdicts:
        assert facts_near(verdict, "prediction", "better")
        assert "forest" not in verdict


def test_json_has_the_same_numbers(galstore: Command, predictions: Path) -> None:
    ask = ("evaluate", str(predictions), *ASK, "--sigma", "sigma", "--against", "forest", "--resamples", "200")
    printed, plain = galstore(*ask).stdout, json.loads(galstore(*ask, "--json").stdout)
    assert (plain["n_rows"], plain["n"], sum(plain["left_out"].values())) == (300, 297, 3)
    assert (plain["n_resamples"], plain["seed"]) == (200, 0)
    rmse = plain["metrics"]["rmse"]
    assert numbers_after("RMSE", printed) == [
        f"{rmse['value']:.5f}",
        f"{rmse['low_68']:.5f} ... {rmse['high_68']:.5f}",
        f"{rmse['low_95']:.5f} ... {rmse['high_95']:.5f}",
    ]
    complete = pd.read_csv(predictions).drop(index=[3, 4, 5])
    assert rmse["value"] == Regression.of(complete["oh_p50"], complete["prediction"]).rmse
    assert plain["comparison"]["rmse"]["is_significant"]
    assert f"{plain['comparison']['nmad']['value']:.5f}" in printed
    assert sum(row["n"] for row in plain["bins"]) == 297


def test_parquet_gives_what_csv_gives(galstore: Command, predictions: Path) -> None:
    file = predictions.with_suffix(".parquet")
    pd.read_csv(predictions).to_parquet(file)
    tables = [galstore("evaluate", str(path), *ASK, "--seed", "3").stdout for path in (predictions, file)]
    assert tables[0] == tables[1]
    assert galstore("evaluate", str(file), *ASK, "--seed", "4").stdout != tables[1]


def test_equal_predictors_have_no_significant_difference(galstore: Command, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    true, error = draw.normal(8.9, 0.2, 500), draw.normal(0, 0.1, 500)
    file = tmp_path / "pair.csv"
    # the same errors with the opposite sign
    pd.DataFrame({"oh_p50": true, "prediction": true + error, "other": true - error}).to_csv(file, index=False)
    printed = galstore("evaluate", str(file), *ASK, "--against", "other").stdout
    verdicts = verdicts_of(printed)
    assert len(verdicts) == 2
    assert not any("better" in verdict for verdict in verdicts)


def test_what_cannot_be_evaluated_is_one_clear_line(galstore: Command, predictions: Path, tmp_path: Path) -> None:
    def refused(*facts: str, file: Path = predictions, ask: tuple[str, ...] = ASK) -> None:
        assert_one_clear_line(galstore("evaluate", str(file), *ask), *facts)

    refused("nothing.csv", file=tmp_path / "nothing.csv")
    refused("'predicton'", "prediction", ask=("--true", "oh_p50", "--predicted", "predicton"))
    refused("'name'", "number", ask=("--true", "name", "--predicted", "prediction"))
    refused("'oh_p50'", ask=("--true", "oh_p50", "--predicted", "oh_p50"))
    refused("width", "0.0", ask=(*ASK, "--bin", "0"))
    empty = tmp_path / "empty.csv"
    empty.write_text("oh_p50,prediction\n-9999,8.9\n8.9,\n")
    refused("oh_p50", "-9999", "prediction", "NaN", file=empty)


def test_help_has_an_example(galstore: Command) -> None:
    assert "galstore evaluate predictions.csv" in galstore("evaluate", "--help").stdout

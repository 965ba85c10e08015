"""`galstore figures` on real predictions, on simulated ones, and with a cube."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from galstore.cube.reader import Cube
from modeling.evaluation.mass_metallicity import tremonti_metallicity
from tests.conftest import SHARED_DATA
from tests.facts import facts_near
from tests.flows.conftest import Command, assert_one_clear_line

REAL = SHARED_DATA / "wu_boada_predictions" / "predictions-oh_p50.csv"


def has_line(printed: str, *facts: str) -> bool:
    """Return whether one printed line has all facts."""
    return any(facts_near(line, *facts, within=len(line)) for line in printed.splitlines())


def simulated_table(n: int = 400) -> pd.DataFrame:
    """Simulated galaxies with all columns."""
    rng = np.random.default_rng(0)
    mass = rng.uniform(8.8, 11.2, n)
    true = tremonti_metallicity(mass) + rng.normal(0, 0.1, n)
    return pd.DataFrame(
        {
            "objID": 1237648702973411443 + np.arange(n),
            "oh_p50": true,
            "prediction": true + rng.normal(0, 0.08, n),
            "lgm_tot_p50": mass,
            "mass_predicted": mass + rng.normal(0, 0.2, n),
            "sfr_tot_p50": 0.7 * (mass - 10) + rng.normal(0, 0.3, n),
        }
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "predictions.csv"
    simulated_table().to_csv(file, index=False)
    return file


@pytest.mark.skipif(not REAL.is_file(), reason="the published predictions of the paper's authors are not at hand")
def test_the_published_predictions_give_their_figures_and_numbers(galstore: Command, tmp_path: Path) -> None:
    printed = galstore("figures", str(REAL), "--out", str(tmp_path / "out"))
    assert printed.returncode == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "figure-2-distributions.png",
        "figure-3-comparison.png",
        "numbers.json",
    ]
    for facts in (
        ("figure-3-comparison", "20,466 galaxies"),
        ("figure-1-cutouts", "--store"),
        ("figure-4-resolution", "--sweep"),
        ("figure-6-mass-metallicity", "predictions-oh_p50.csv", "lgm_tot_p50"),
    ):
        assert has_line(printed.stdout, *facts), facts
    written = json.loads((tmp_path / "out" / "numbers.json").read_text())
    numbers = {number["name"]: number["value"] for number in written["numbers"]}
    assert numbers["RMSE"] == pytest.approx(0.08489, abs=5e-6)
    assert numbers["NMAD"] == pytest.approx(0.06506, abs=5e-6)
    assert numbers["bias"] == pytest.approx(-0.0046, abs=5e-5)
    assert written["simulated"] is False


def test_all_columns_and_a_sweep_give_all_but_the_cutouts(galstore: Command, table: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.csv"
    sweep.write_text("predictor,level,rmse,nmad\nnetwork,64,0.09,0.07\nnetwork,8,0.11,0.09\nmean,,0.2,0.17\n")
    arguments = ("--predicted-mass", "mass_predicted", "--sweep", str(sweep), "--simulated", "--format", "pdf")
    printed = galstore("figures", str(table), "--out", str(tmp_path / "out"), *arguments)
    assert printed.returncode == 0
    drawn = {file.name for file in (tmp_path / "out").glob("*.pdf")}
    assert drawn == {
        "figure-2-distributions.pdf",
        "figure-3-comparison.pdf",
        "figure-4-resolution.pdf",
        "figure-5a-mass.pdf",
        "figure-5b-metallicity-from-mass.pdf",
        "figure-6-mass-metallicity.pdf",
        "fundamental-relation.pdf",
    }
    assert has_line(printed.stdout, "scatter ratio", "0.821 ± 0.077")
    assert has_line(printed.stdout, "figure-1-cutouts", "--store")
    assert not has_line(printed.stdout, "figure-1-cutouts.pdf")
    assert json.loads((tmp_path / "out" / "numbers.json").read_text())["simulated"] is True


def test_a_cube_gives_cutouts_and_labels(galstore: Command, filled_cube: Cube, tmp_path: Path) -> None:
    ids = filled_cube.read_catalog(["object_id"])["object_id"].to_numpy()[:60]
    unknown = np.append(ids, 5)
    rng = np.random.default_rng(0)
    pd.DataFrame({"object_id": unknown, "prediction": rng.normal(8.9, 0.2, 61)}).to_parquet(tmp_path / "new.parquet")
    printed = galstore(
        "figures", str(tmp_path / "new.parquet"), "--store", filled_cube.path, "--out", str(tmp_path / "out")
    )
    assert printed.returncode == 0
    assert has_line(printed.stdout, "figure-1-cutouts.png", "60 galaxies", "1 of 61")
    assert has_line(printed.stdout, "new.parquet", "lgm_tot_p50")
    with Image.open(tmp_path / "out" / "figure-1-cutouts.png") as picture:
        # seven rows of five: the part right of the titles is full of drawn galaxies
        assert np.asarray(picture.convert("L"), dtype=float)[100:, 400:].std() > 20
    written = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert written["columns"]["true"] == f"label oh_p50 of {filled_cube.path}"


def test_missing_values_are_left_out_and_counted(galstore: Command, tmp_path: Path) -> None:
    rows = simulated_table()
    rows.loc[0, "oh_p50"] = np.nan
    rows.loc[1, "prediction"] = np.inf
    rows.loc[2, "lgm_tot_p50"] = -9999
    rows.to_csv(tmp_path / "dirty.csv", index=False)
    printed = galstore("figures", str(tmp_path / "dirty.csv"), "--out", str(tmp_path / "out")).stdout
    assert has_line(printed, "figure-3-comparison.png", "398 galaxies", "2 of 400")
    assert has_line(printed, "figure-6-mass-metallicity.png", "397 galaxies", "3 of 400")


def test_the_same_table_gives_the_same_files(galstore: Command, table: Path, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        assert galstore("figures", str(table), "--out", str(tmp_path / folder)).returncode == 0
    files = sorted((tmp_path / "first").iterdir())
    assert len(files) > 3
    for file in files:
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("--predicted", "predicton"), ("'predicton'", "--predicted", "prediction")),
        (("--mass", "lgm_tot"), ("'lgm_tot'", "lgm_tot_p50")),
        (("--true", "zzz"), ("'zzz'", "objID, oh_p50")),
        (("--format", "gif"), ("--format 'gif'", "png, pdf")),
        (("--sweep", "none.csv"), ("none.csv",)),
        (("--store", "none"), ("none",)),
        (("--predicted-mass", "x", "--out", "."), ("'x'", "--predicted-mass")),
    ],
)
def test_a_wrong_argument_is_one_clear_line(
    galstore: Command, table: Path, arguments: tuple[str, ...], facts: tuple[str, ...]
) -> None:
    assert_one_clear_line(galstore("figures", str(table), *arguments), *facts)


def test_files_that_cannot_be_drawn_say_why(galstore: Command, tmp_path: Path, filled_cube: Cube) -> None:
    assert_one_clear_line(galstore("figures", str(tmp_path / "none.csv")), str(tmp_path / "none.csv"))
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert_one_clear_line(galstore("figures", str(other)), "other.csv", "prediction")
    assert_one_clear_line(galstore("figures", str(other), "--store", filled_cube.path), "'objID'", "--id")
    other.write_text("objID,prediction\n1.5e18,8.9\n")
    assert_one_clear_line(galstore("figures", str(other), "--store", filled_cube.path), "object id")
    taken = tmp_path / "file"
    taken.write_text("")
    assert_one_clear_line(galstore("figures", str(other), "--out", str(taken)), str(taken))


def test_help_shows_an_example(galstore: Command) -> None:
    assert "galstore figures predictions.csv" in galstore("figures", "--help").stdout

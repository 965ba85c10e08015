"""Sweep and cross-validation over a small simulated run: finished parts are reused, lost parts are repeated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import flows.cross_validate
import flows.sweep
from flows.cross_validate import cross_validate
from flows.runtime import load_recipe
from flows.sweep import COLUMNS, plan_sweep, sweep
from galstore.cube.reader import open_cube
from schemas.cutouts import Status
from schemas.errors import RecipeError
from schemas.recipes import Recipe
from tests.flows.conftest import Command, assert_one_clear_line, overrides_in

pytestmark = pytest.mark.slow

LEVELS = [4, 2, 1]
BASELINES = ["mean", "forest", "oracle", "colours"]


class Killed(BaseException):
    """Simulated kill, which no code catches."""


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    # networks as small as these gain nothing from a second thread, and wait for it on a busy machine
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def overrides(small_run, dask_workers, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for a copy of the small simulated run."""
    folder = tmp_path_factory.mktemp("study")
    for name in ("cube", "new_catalog.csv"):
        (shutil.copytree if name == "cube" else shutil.copy)(small_run[0] / name, folder / name)
    settings = ("train.epochs=1", "train.batch_size=64", "train.device='cpu'", "score.views=1")
    return overrides_in(folder, *settings, f"dask.scheduler='{dask_workers.scheduler.address}'")


@pytest.fixture(scope="module")
def swept(prefect_server: None, overrides: list[str]) -> tuple[Path, list[dict]]:
    folder = plan_sweep(load_recipe("demo", overrides), LEVELS)[0].recipe.output.folder
    return folder, sweep(load_recipe("demo", overrides), LEVELS)


def test_a_sweep_stores_a_model_and_a_row_for_each_level(swept, overrides) -> None:
    folder, rows = swept
    table = pd.read_csv(folder / "sweep" / "sweep.csv")
    assert tuple(table.columns) == COLUMNS
    assert table["predictor"].tolist() == ["network"] * 3 + BASELINES
    assert table["level"].tolist() == [*LEVELS, 0, 0, 0, 0]
    assert [row["rmse"] for row in rows] == pytest.approx(table["rmse"].tolist())
    for plan in plan_sweep(load_recipe("demo", overrides), LEVELS):
        config = json.loads((folder / "models" / plan.model_id / "config.json").read_text())
        assert config["level"] == plan.level
        assert plan.model_id in set(table["model_id"])
    predictions = pd.read_csv(folder / "sweep" / "predictions.csv")
    assert predictions.columns.tolist() == ["object_id", "true", "network_4", "network_2", "network_1", *BASELINES]
    error = predictions["network_2"] - predictions["true"]
    assert np.sqrt(np.mean(error**2)) == pytest.approx(table["rmse"][1])
    assert set(table["n"][:3]) == {len(predictions)}


def test_a_second_sweep_trains_and_predicts_nothing_and_gives_the_same_file(swept, overrides, monkeypatch) -> None:
    folder, rows = swept
    files = [folder / "sweep" / name for name in ("sweep.csv", "predictions.csv")]
    before = [file.read_bytes() for file in files]

    def never(*_: object) -> None:
        raise AssertionError("done already")

    monkeypatch.setattr(flows.sweep, "train", never)
    monkeypatch.setattr(flows.sweep, "predict_held_out", never)
    assert [row["model_id"] for row in sweep.fn(load_recipe("demo", overrides), LEVELS)] == [
        row["model_id"] for row in rows
    ]
    assert [file.read_bytes() for file in files] == before


def test_a_killed_level_is_repeated_alone(swept, overrides, monkeypatch) -> None:
    folder, _ = swept
    before = (folder / "sweep" / "sweep.csv").read_bytes()
    middle = plan_sweep(load_recipe("demo", overrides), LEVELS)[1]
    shutil.rmtree(middle.folder)
    middle.predictions_file.unlink()
    trained: list[int] = []
    really = flows.sweep.train

    def killed(recipe: Recipe) -> None:
        raise Killed(str(recipe.network.level))

    def noted(recipe: Recipe) -> None:
        trained.append(recipe.network.level)
        really(recipe)

    monkeypatch.setattr(flows.sweep, "train", killed)
    with pytest.raises(Killed, match=r"^2$"):
        sweep.fn(load_recipe("demo", overrides), LEVELS)
    # levels evaluated before the kill are written
    assert pd.read_csv(folder / "sweep" / "sweep.csv")["level"].tolist() == [4, 0, 0, 0, 0]
    monkeypatch.setattr(flows.sweep, "train", noted)
    sweep(load_recipe("demo", overrides), LEVELS)
    assert trained == [2]
    assert (folder / "sweep" / "sweep.csv").read_bytes() == before


def test_the_command_prints_the_curve_beside_the_paper_s(swept, overrides, galstore: Command) -> None:
    sets = [word for override in overrides for word in ("--set", override)]
    printed = galstore("sweep", "demo", "--levels", "4,2,1", *sets).stdout
    for part in ("simulated", "0.1290", "0.1587", "0.2002", "Wu & Boada 2019", "sweep.csv"):
        assert part in printed
    plain = json.loads(galstore("sweep", "demo", "--levels", "4,2,1", *sets, "--json").stdout)
    assert [row["level"] for row in plain] == [*LEVELS, 0, 0, 0, 0]
    assert_one_clear_line(galstore("sweep", "demo", "--levels", "4,x", *sets), "--levels '4,x'", "px")


def test_levels_that_the_cube_lacks_are_refused(overrides) -> None:
    for levels in ([], [3], [4, 4]):
        with pytest.raises(RecipeError, match=r"\b128, 64, .*\b1\b"):
            plan_sweep(load_recipe("demo", overrides), levels)


def test_every_galaxy_is_predicted_once_and_a_killed_fold_is_repeated_alone(
    prefect_server, overrides, monkeypatch
) -> None:
    given = [*overrides, "network.level=2"]
    first = cross_validate(load_recipe("demo", given), n_folds=3)
    path = Path(first["predictions"])
    before = path.read_bytes()
    table = pd.read_csv(path)
    cube = open_cube(load_recipe("demo", given).store.path)
    labelled = np.isfinite(cube.read_label("oh_p50")) & (cube.read_state("status") == Status.STORED)
    assert table["object_id"].is_unique
    assert len(table) == np.count_nonzero(labelled) == first["overall"]["n"]
    assert sum(fold["n"] for fold in first["folds"]) == len(table)

    folds = sorted((path.parent / "folds").iterdir())
    assert len(folds) == 3
    times = [file.stat().st_mtime_ns for file in folds]
    folds[1].unlink()
    assert cross_validate(load_recipe("demo", given), n_folds=3) == first
    assert path.read_bytes() == before
    folds_again = sorted((path.parent / "folds").iterdir())
    assert folds_again == folds
    assert [file.stat().st_mtime_ns == time for file, time in zip(folds_again, times, strict=True)] == [
        True,
        False,
        True,
    ]

    def never(*_: object) -> None:
        raise AssertionError("done already")

    monkeypatch.setattr(flows.cross_validate, "fit_folds", never)
    assert cross_validate.fn(load_recipe("demo", given), n_folds=3) == first


def test_seeds_are_averaged_and_the_final_network_is_a_model_like_any_other(
    prefect_server, overrides, galstore: Command, tmp_path: Path
) -> None:
    given = [*overrides, "network.level=1", f"output.folder='{tmp_path}'"]
    sets = [word for override in given for word in ("--set", override)]
    words = ("cross-validate", "demo", "--folds", "2", "--seeds", "2", "--final", *sets, "--json")
    result = json.loads(galstore(*words).stdout)
    folder = Path(result["predictions"]).parent
    seeds = [pd.concat(map(pd.read_csv, sorted(folder.glob(f"folds/fold?-seed{seed}-*.csv")))) for seed in (0, 1)]
    by_seed = [table.set_index("object_id")["predicted"] for table in seeds]
    table = pd.read_csv(result["predictions"]).set_index("object_id")
    assert np.allclose(table["predicted"], ((by_seed[0] + by_seed[1]) / 2).loc[table.index], atol=1e-12)
    assert len(set(result["final_models"])) == 2
    metrics = json.loads((folder.parent / "models" / result["final_models"][0] / "metrics.json").read_text())
    assert metrics["cross_validation"]["rmse"] == pytest.approx(result["overall"]["rmse"])

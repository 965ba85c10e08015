"""The model store from the command line, over models of random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flows.outputs import named_model_ids, scoring_model_id
from flows.runtime import load_recipe
from schemas.errors import WeightsError
from tests.facts import facts_near
from tests.flows.conftest import Command, assert_one_clear_line
from tests.support.random_models import save_random_model

ONE, TWO = "a1b2c3d4e5f6", "a1ffee001122"


@pytest.fixture(scope="session")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    save_random_model(run / "models", ONE, rmse=0.1234)
    save_random_model(run / "models", TWO, rmse=0.0876, seed=1)
    return run


@pytest.fixture
def run(two_models: Path, tmp_path: Path) -> str:
    return str(shutil.copytree(two_models, tmp_path / "run"))


def test_models_are_listed_with_what_they_are(galstore: Command, run: str) -> None:
    printed = galstore("models", "list", run).stdout
    for part in (ONE, TWO, "oh_p50", "resnet10w32", "0.1234", "0.0876", "0.0800", "a1b2c3d4e5f6", "16"):
        assert part in printed
    assert printed.index(TWO) < printed.index(ONE)
    # the folder of models works too
    plain = json.loads(galstore("models", "list", f"{run}/models", "--json").stdout)
    assert [(model["model_id"], model["validation"]["rmse"], model["promoted_as"]) for model in plain] == [
        (TWO, 0.0876, []),
        (ONE, 0.1234, []),
    ]


def test_a_damaged_model_is_listed_as_damaged(galstore: Command, run: str) -> None:
    (Path(run) / "models" / ONE / "config.json").write_text("{")
    printed = galstore("models", "list", run).stdout
    assert facts_near(printed, f"{run}/models/{ONE}/config.json", "damaged", "JSON")
    plain = json.loads(galstore("models", "list", run, "--json").stdout)
    assert {model["model_id"]: list(model["problems"]) for model in plain} == {TWO: [], ONE: ["config.json"]}
    assert_one_clear_line(galstore("models", "show", ONE, "--in", run), ONE, "damaged", "config.json")


def test_a_model_is_shown_with_its_card_and_curve(galstore: Command, run: str, tmp_path: Path) -> None:
    curve, events = tmp_path / "curve.png", tmp_path / "events"
    printed = galstore("models", "show", "a1b", "--in", run, "--curve", str(curve), "--tensorboard", str(events)).stdout
    for part in (ONE, "mean_counts", "0.1234", "| validation | 32 | 0.1234 |", str(curve)):
        assert part in printed
    assert curve.read_bytes().startswith(b"\x89PNG")
    assert len(list((events / ONE).glob("events.out.tfevents.*"))) == 1
    plain = json.loads(galstore("models", "show", ONE, "--in", run, "--json").stdout)
    assert plain["config"]["arch"] == "resnet10w32"
    assert plain["metrics"]["validation"]["n"] == 32
    assert plain["card"].startswith("---\nlibrary_name: galstore")


def test_a_promoted_name_stands_for_its_model_everywhere(galstore: Command, run: str) -> None:
    printed = galstore("models", "promote", "a1b", "--in", run).stdout
    assert facts_near(printed, "champion", ONE)
    assert TWO not in printed
    printed = galstore("models", "promote", TWO, "--as", "champion", "--in", run).stdout
    assert facts_near(printed, "champion", TWO, ONE)
    assert printed.index(TWO) < printed.index(ONE)
    plain = json.loads(galstore("models", "promote", ONE, "--as", "challenger", "--in", run, "--json").stdout)
    assert (plain["name"], plain["model_id"], plain["replaced"]) == ("challenger", ONE, None)
    listed = json.loads(galstore("models", "list", run, "--json").stdout)
    assert {model["model_id"]: model["promoted_as"] for model in listed} == {TWO: ["champion"], ONE: ["challenger"]}
    assert json.loads(galstore("models", "show", "champion", "--in", run, "--json").stdout)["model_id"] == TWO
    recipe = load_recipe("demo", [f"output.folder='{run}'", "score.model=champion"])
    assert named_model_ids(recipe) == (TWO,)
    # a named model does not need the training set
    assert scoring_model_id(recipe, None) == TWO  # type: ignore[arg-type]


def test_a_recipe_that_names_no_good_model_is_refused(run: str) -> None:
    assert named_model_ids(load_recipe("demo", [f"output.folder='{run}'"])) == ()
    with pytest.raises(WeightsError, match=r"(?=.*'champion')(?=.*`galstore models list`)"):
        named_model_ids(load_recipe("demo", [f"output.folder='{run}'", "score.model=champion"]))
    (Path(run) / "models" / ONE / "model.safetensors").write_bytes(b"\x80\x04N.")
    with pytest.raises(WeightsError, match=rf"\b{ONE}\b.*\bdamaged\b.*model\.safetensors"):
        named_model_ids(load_recipe("demo", [f"output.folder='{run}'", f"score.model={ONE}"]))


def test_a_model_is_exported_and_checked(galstore: Command, run: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "m.onnx"
    plain = json.loads(
        galstore("models", "export", "a1b", "--in", run, "--onnx", str(file), "--views", "1", "--json").stdout
    )
    assert plain["path"] == str(file)
    assert plain["bytes"] == file.stat().st_size
    assert plain["differences"]["oh_p50"] < 1e-4
    assert_one_clear_line(
        galstore("models", "export", "a1b", "--in", run, "--onnx", str(file), "--views", "3"), "--views 3", "8"
    )


def test_a_wrong_argument_is_one_clear_line(galstore: Command, run: str, tmp_path: Path) -> None:
    assert_one_clear_line(galstore("models", "show", "a1", "--in", run), "'a1'", ONE, TWO)
    assert_one_clear_line(galstore("models", "show", "a1b2c3d4e5f7", "--in", run), "'a1b2c3d4e5f7'", ONE)
    assert_one_clear_line(galstore("models", "promote", ONE, "--as", "cafe", "--in", run), "'cafe'")
    assert_one_clear_line(galstore("models", "list", str(tmp_path / "nothing")), "nothing", "recipe")
    (tmp_path / "empty").mkdir()
    assert_one_clear_line(galstore("models", "list", str(tmp_path / "empty")), "models", "galstore train")

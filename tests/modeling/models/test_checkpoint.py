import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from modeling.evaluation.metrics import Regression
from modeling.models.checkpoint import load_model, save_model
from modeling.models.training_log import read_training_log
from modeling.scoring.predict import predict
from schemas.errors import WeightsError
from tests.facts import facts_near

METRICS = {"validation": Regression(n=32, rmse=0.05, nmad=0.04, bias=-0.001, r2=0.9)}


@pytest.fixture
def folder(model, trained, tmp_path):
    save_model(tmp_path / "model", model, metrics=METRICS, log=trained.log)
    return tmp_path / "model"


def test_a_loaded_model_predicts_the_same_bits(folder, model, draw_discs):
    pixels, _ = draw_discs(9, 5)
    saved, loaded = predict(model, pixels, device="cpu"), predict(load_model(folder), pixels, device="cpu")
    np.testing.assert_array_equal(saved.mean, loaded.mean)
    np.testing.assert_array_equal(saved.view_spread, loaded.view_spread)


def test_config_metrics_and_log_are_read_back(folder, model, trained):
    assert load_model(folder).config == model.config
    assert json.loads((folder / "metrics.json").read_text()) == {"validation": asdict(METRICS["validation"])}
    assert read_training_log(folder) == trained.log


def test_an_undefined_r2_is_null_in_plain_json(model, tmp_path):
    save_model(tmp_path / "m", model, metrics={"test": replace(METRICS["validation"], r2=math.nan)})
    metrics = json.loads((tmp_path / "m" / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["test"]["r2"] is None


def test_the_folder_has_five_files_and_no_draft_remains(folder):
    expected = {"model.safetensors", "config.json", "metrics.json", "training_log.jsonl", "README.md"}
    assert {path.name for path in folder.iterdir()} == expected
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_the_model_card_has_metrics_and_origin(folder):
    card = (folder / "README.md").read_text()
    assert "| validation | 32 | 0.0500 | 0.0400 | -0.0010 | 0.900 |" in card
    assert facts_near(card, "`a1b2`", "training set")
    assert facts_near(card, "`SNAP`", "snapshot")
    assert facts_near(card, "`fixed`", "0.296")


def test_a_failed_save_keeps_the_old_model(folder, model):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="Out of range float values"):
        save_model(folder, model, metrics={"test": replace(METRICS["validation"], rmse=math.inf)})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_saving_replaces_an_existing_model(folder, model):
    save_model(folder, model, metrics={"test": METRICS["validation"]})
    assert list(json.loads((folder / "metrics.json").read_text())) == ["test"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_damaged_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match=r"(?=.*model\.safetensors)(?=.*\bresnet10w32\b)"):
        load_model(folder)


def test_weights_of_another_architecture_are_refused(folder):
    config = json.loads((folder / "config.json").read_text()) | {"arch": "resnet18"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"(?=.*model\.safetensors)(?=.*\bresnet18\b)"):
        load_model(folder)


def test_missing_and_unknown_keys_are_named(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["snapshot"]
    (folder / "config.json").write_text(json.dumps(config | {"colour": 1}))
    with pytest.raises(WeightsError, match=r"(?=.*\bmissing\b[^\]]*\['snapshot'\])(?=.*\bunknown\b[^\]]*\['colour'\])"):
        load_model(folder)


@pytest.mark.parametrize("text", ['{"arch": "resn', "[1]"], ids=["half", "a list"])
def test_a_damaged_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json.*JSON"):
        load_model(folder)


def test_a_folder_without_a_model_is_refused(tmp_path, folder):
    with pytest.raises(WeightsError, match=r"config\.json"):
        load_model(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load_model(folder)

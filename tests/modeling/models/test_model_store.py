import json
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.figures.curves import read_curve, write_tensorboard, write_training_curve
from modeling.models.checkpoint import load_model
from modeling.models.model_store import (
    PROMOTIONS,
    find_model,
    list_models,
    open_model,
    promote_model,
    read_promotions,
    resolve_model_id,
)
from modeling.models.stored_model import read_stored_model
from schemas.errors import ExportError, TrainingError, WeightsError
from tests.support.random_models import FILES, LOG, save_random_model

ONE, TWO, THREE = "a1b2c3d4e5f6", "a1ffee001122", "77aa88bb99cc"


@pytest.fixture(scope="session")
def three_models(tmp_path_factory):
    models = tmp_path_factory.mktemp("store") / "models"
    for seed, (model_id, rmse) in enumerate(((ONE, 0.12), (TWO, 0.09), (THREE, 0.15))):
        save_random_model(models, model_id, rmse=rmse, seed=seed)
    return models


@pytest.fixture
def models(three_models, tmp_path):
    return shutil.copytree(three_models, tmp_path / "models")


class Boom:
    """Object whose pickle creates a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_models_are_listed_best_first(models):
    assert [(model.model_id, model.validation["rmse"]) for model in list_models(models)] == [
        (TWO, 0.09),
        (ONE, 0.12),
        (THREE, 0.15),
    ]
    assert {model.target for model in list_models(models)} == {"oh_p50"}
    assert all(model.is_sound for model in list_models(models))


def test_drafts_and_files_are_not_models(models):
    (models / f".{ONE}-xyz").mkdir()
    (models / "notes.txt").write_text("x")
    assert len(list_models(models)) == 3


@pytest.mark.parametrize("make", [True, False])
def test_an_empty_store_names_the_command_to_run(tmp_path, make):
    if make:
        (tmp_path / "models").mkdir()
    with pytest.raises(WeightsError, match=r"(?=.*\bmodels\b)(?=.*`galstore train RECIPE`)"):
        list_models(tmp_path / "models")


def test_a_model_is_found_by_id_beginning_and_name(models):
    promote_model(models, "77", name="champion")
    assert {resolve_model_id(models, named) for named in (THREE, "77", "77aa88", "champion")} == {THREE}
    assert find_model(models, "a1b").config["model_id"] == ONE


def test_an_ambiguous_beginning_names_the_candidates(models):
    with pytest.raises(WeightsError, match=rf"(?=.*'a1')(?=.*{ONE})(?=.*{TWO})"):
        resolve_model_id(models, "a1")


def test_an_unknown_id_names_close_ones(models):
    with pytest.raises(WeightsError, match=f"(?=.*'a1b2c3d4e5f7')(?=.*{ONE})"):
        resolve_model_id(models, "a1b2c3d4e5f7")
    promote_model(models, ONE)
    with pytest.raises(WeightsError, match=r"(?=.*'champoin')(?=.*champion)"):
        resolve_model_id(models, "champoin")
    for named in ("zzz", "", "../models", f"./{ONE}"):
        with pytest.raises(WeightsError, match=re.escape(repr(named))):
            resolve_model_id(models, named)


def test_a_promotion_is_plain_json_with_its_history(models):
    first, second = promote_model(models, ONE), promote_model(models, "a1f")
    assert (first.replaced, second.replaced) == (None, ONE)
    written = json.loads((models / PROMOTIONS).read_text())
    assert written["names"] == {"champion": TWO}
    assert [(entry["name"], entry["model_id"], entry["replaced"]) for entry in written["history"]] == [
        ("champion", ONE, None),
        ("champion", TWO, ONE),
    ]
    assert written["history"][1]["time"].endswith("Z")
    assert read_promotions(models).names_of(TWO) == ("champion",)


def test_a_model_can_be_promoted_by_another_name_and_repeating_it_changes_nothing(models):
    promote_model(models, ONE, name="challenger")
    promotion = promote_model(models, "challenger")
    assert promote_model(models, ONE) == promotion
    assert read_promotions(models).names_of(ONE) == ("challenger", "champion")
    assert len(read_promotions(models).history) == 2


def test_concurrent_promotions_are_all_recorded(models):
    ids = [ONE, TWO, THREE]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: promote_model(models, ids[n % 3], name=f"name-{n}"), range(24)))
    assert read_promotions(models).names == {f"name-{n}": ids[n % 3] for n in range(24)}
    assert sorted(path.name for path in models.iterdir() if path.is_file()) == [f".{PROMOTIONS}.lock", PROMOTIONS]


@pytest.mark.parametrize("name", ["", "1st", "a/b", "../x", "cafe", "two words", "x" * 65])
def test_invalid_names_are_refused(models, name):
    with pytest.raises(WeightsError, match=re.escape(repr(name))):
        promote_model(models, ONE, name=name)
    assert not (models / PROMOTIONS).exists()


def test_the_name_of_a_deleted_model_is_reported(models):
    promote_model(models, ONE)
    shutil.rmtree(models / ONE)
    with pytest.raises(WeightsError, match=rf"(?=.*'champion')(?=.*\b{ONE}\b)(?=.*`galstore models promote)"):
        resolve_model_id(models, "champion")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"names": {}}',
        '{"names": {"a": "b"}, "history": []}',
        '{"names": {}, "history": [{"x": 1}]}',
        "[" * 9999,
    ],
    ids=["empty", "a list", "no history", "another history", "another key", "deep"],
)
def test_a_damaged_promotion_file_is_named_and_ids_still_work(models, text):
    (models / PROMOTIONS).write_text(text)
    with pytest.raises(WeightsError, match=r"promoted\.json"):
        resolve_model_id(models, "champion")
    assert resolve_model_id(models, ONE) == ONE


def _without(name):
    return lambda folder: (folder / name).unlink()


def _with(name, text):
    return lambda folder: (folder / name).write_text(text)


def _cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _other_weights(folder):
    shutil.copy(folder.parent / TWO / "model.safetensors", folder)


def _renamed(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_id": TWO}))


DAMAGE = {
    "no config": (_without("config.json"), r"config\.json"),
    "no weights": (_without("model.safetensors"), r"model\.safetensors"),
    "no card": (_without("README.md"), r"README\.md"),
    "half a config": (_with("config.json", '{"arch": "res'), r"config\.json.*JSON"),
    "a list": (_with("config.json", "[1]"), r"config\.json.*'\[1\]'"),
    "an empty config": (_with("config.json", "{}"), r"config\.json.*\bmodel_id = None\b.*\bstr\b"),
    "bad metrics": (_with("metrics.json", '{"validation": 3}'), r"metrics\.json.*\bvalidation = 3\b"),
    "metrics in words": (
        _with("metrics.json", '{"validation": {"rmse": "low"}}'),
        r"metrics\.json.*\bvalidation = .*low",
    ),
    "a deep log": (_with("training_log.jsonl", "[" * 99999), r"training_log\.jsonl"),
    "short weights": (_cut_weights, r"model\.safetensors"),
    "another's weights": (_other_weights, rf"model\.safetensors.*\b{TWO}\b"),
    "another's config": (_renamed, rf"config\.json.*\b{TWO}\b.*\b{ONE}\b"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_model_is_listed_as_damaged_and_refused(models, damage, message):
    damage(models / ONE)
    listed = list_models(models)
    assert [model.model_id for model in listed if not model.is_sound] == [ONE]
    assert listed[-1].model_id == ONE
    with pytest.raises(WeightsError, match=rf"\b{ONE}\b.*\bdamaged\b.*{message}"):
        promote_model(models, ONE)


@pytest.mark.parametrize("protocol", [0, 4])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_planted_pickle_is_never_executed(models, tmp_path, name, form, protocol):
    proof, path = tmp_path / "executed", models / ONE / name
    if form == "pickle":
        path.write_bytes(pickle.dumps(Boom(proof), protocol=protocol))
    else:
        torch.save({"weights": Boom(proof)}, path, pickle_protocol=max(protocol, 2))
    found = read_stored_model(models / ONE)
    for use in (
        lambda: open_model(models, ONE),
        lambda: load_model(models / ONE),
        lambda: read_curve(found),
        lambda: promote_model(models, ONE),
    ):
        try:
            use()
        except (WeightsError, UnicodeDecodeError):
            continue
    assert not proof.exists()
    if name in {"model.safetensors", "config.json"}:
        with pytest.raises(WeightsError, match=rf"\b{ONE}\b.*\bdamaged\b.*{re.escape(name)}"):
            open_model(models, ONE)
    # a text pickle is a valid card, which is only displayed
    elif name != "README.md" or form == "torch" or protocol == 4:
        with pytest.raises(WeightsError, match=rf"\b{ONE}\b.*\bdamaged\b.*{re.escape(name)}"):
            promote_model(models, ONE)


def test_the_planted_pickle_works_if_it_is_loaded(tmp_path):
    pickle.loads(pickle.dumps(Boom(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_an_opened_model_predicts_like_the_loaded_one(models):
    opened = open_model(models, "a1b")
    images = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        np.testing.assert_array_equal(opened.network(images).numpy(), load_model(models / ONE).network(images).numpy())


def test_a_list_of_models_needs_no_torch(models):
    code = (
        "import sys; from pathlib import Path; from modeling.models.model_store import list_models; "
        f"print(len(list_models(Path({str(models)!r}))), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]


def test_the_curve_is_drawn_from_the_log(models, tmp_path):
    found = find_model(models, ONE)
    assert read_curve(found) == LOG
    write_training_curve(tmp_path / "deep" / "curve.png", found)
    assert (tmp_path / "deep" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["curve.png"]


def test_a_log_without_epochs_or_of_another_version_is_reported(models):
    (models / ONE / "training_log.jsonl").write_text("")
    with pytest.raises(TrainingError, match=rf"(?=.*\b{ONE}\b)(?=.*\bepochs?\b)"):
        read_curve(find_model(models, ONE))
    (models / ONE / "training_log.jsonl").write_text('{"epoch": 1, "colour": 2}\n')
    with pytest.raises(WeightsError, match=rf"(?=.*\b{ONE}\b)(?=.*training_log\.jsonl)(?=.*\bcolumns\b)"):
        read_curve(find_model(models, ONE))


def test_tensorboard_reads_the_log_back(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    n_points = write_tensorboard(tmp_path / "events", LOG)
    read = accumulator(str(tmp_path / "events"))
    read.Reload()
    tags = read.Tags()["scalars"]
    assert {"train/loss", "validation/rmse", "validation/nmad", "training/learning_rate"} <= set(tags)
    assert n_points == 3 * len(tags)
    events = read.Scalars("validation/rmse")
    assert [(event.step, event.wall_time) for event in events] == [(1, 2.0), (2, 4.0), (3, 6.0)]
    assert math.isclose(events[1].value, 0.1, rel_tol=1e-6)
    with pytest.raises(ExportError, match=re.escape(str(tmp_path / "events"))):
        write_tensorboard(tmp_path / "events", LOG)


def test_a_missing_tensorboard_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ExportError, match=r"pip install 'galstore\[tensorboard\]'"):
        write_tensorboard(tmp_path, LOG)

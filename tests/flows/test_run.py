from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName

from flows.engine.plan import missing_work
from flows.ingest import ingest
from flows.report import report
from flows.run import run
from flows.runtime import load_recipe, survey_address
from flows.score import score
from flows.train import train
from galstore.cube.history import trace_lineage
from galstore.cube.reader import open_cube
from galstore.features.store import open_store
from galstore.integrity.verify import verify_cube
from schemas.errors import StoreError, TrainingError, WeightsError
from schemas.recipes import Recipe
from tests.conftest import draw_blobs, encode
from tests.facts import facts_near
from tests.flows.conftest import overrides_in, recipe_in


def test_a_run_takes_a_survey_to_a_scored_catalog_and_a_report(small_run) -> None:
    folder, result = small_run
    counts = open_cube(str(folder / "cube")).counts()
    assert counts.add_up
    assert counts.pending == 0
    assert counts.stored > 400
    assert result["train"]["trained"]
    new = pd.read_parquet(folder / "predictions" / "new_catalog.parquet")
    assert len(new) == 60
    assert set(new["status"]) <= {"scored", "out_of_footprint"}
    scored = new["status"] == "scored"
    assert scored.sum() > 50
    assert new.loc[scored, "prediction"].between(8, 9.6).all()
    assert np.isfinite(new.loc[scored, "view_spread"]).all()
    assert set(new["model_id"]) == {result["train"]["model_id"]}
    html = (folder / "report" / "report.html").read_text()
    assert "simulated" in html.lower()
    assert set(result["report"]["predictors"]) == {
        "network", "forest", "full_forest", "mean", "oracle", "colours",
    }  # fmt: skip


def test_a_recipe_is_the_parameter_of_a_flow_run(small_run) -> None:
    recipe = recipe_in(small_run[0])
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["run"])))
    assert recipe in [Recipe.model_validate(stored.parameters["recipe"]) for stored in runs]
    # a deployment sends the recipe as JSON
    assert run.validate_parameters({"recipe": recipe.model_dump(mode="json")})["recipe"] == recipe


def test_a_model_s_lineage_and_look_alikes_are_in_the_cube(small_run) -> None:
    folder, result = small_run
    path, model_id = str(folder / "cube"), result["train"]["model_id"]
    kinds = [step.kind for step in trace_lineage(path, model_id)]
    assert kinds[:4] == ["predictions and model", "training set", "snapshot", "catalog"]
    store = open_store(path)
    ids = store.cube.read_catalog(["object_id"])["object_id"].to_numpy()
    scored = ids[np.isfinite(np.asarray(store.cube.array(f"predictions/{model_id}/mean")[:]))]
    found = store.similar(scored[0], 5)
    assert len(found) == 5
    assert set(found["object_id"]) <= set(scored)
    assert found["similarity"].is_monotonic_decreasing
    assert verify_cube(store.cube).ok


def test_a_second_run_fetches_trains_and_scores_nothing(small_run) -> None:
    folder, first = small_run
    before = open_cube(str(folder / "cube")).snapshot_id
    again = run(recipe_in(folder))
    assert again["ingest"]["n_new"] == again["ingest"]["n_requests"] == again["score"]["n_scored"] == 0
    assert not again["train"]["trained"]
    assert again["report"] == first["report"]
    assert open_cube(str(folder / "cube")).snapshot_id == before


def test_the_plan_names_what_is_missing_and_nothing_else(small_run, tmp_path) -> None:
    folder, _ = small_run
    overrides = overrides_in(folder)
    report(load_recipe("demo", overrides))  # other tests may have moved the cube on

    def missing(*more: str) -> tuple[str, ...]:
        return missing_work(load_recipe("demo", [*overrides, *more]), base_url)

    with survey_address(load_recipe("demo", overrides)) as base_url:
        assert missing() == ()
        assert facts_near(missing("train.seed=9")[0], "model", "trained")
        assert re.search(r"\bsurvey\b.*\b3\d+\b", missing("survey.selection='labelled'")[0])
        for override, fact in (
            (f"store.path='{tmp_path / 'none'}'", "cube"),
            ("survey.limit=10", "report"),
            ("survey.where='G.dec > 30'", "G.dec > 30"),
            (f"score.catalog='{tmp_path / 'tonight.csv'}'", str(tmp_path / "tonight.csv")),
        ):
            (message,) = missing(override)
            assert fact in message


def test_rejected_catalog_rows_are_stored_with_their_reasons(small_run) -> None:
    folder, _ = small_run
    rejected = open_cube(str(folder / "cube")).read_rejected()
    assert set(rejected["catalog"]) == {"simulated-sky"}
    assert "repeated_id" in set(rejected["reason"])


def test_predictions_name_the_model_that_config_describes(small_run) -> None:
    folder, result = small_run
    config = json.loads((Path(result["train"]["folder"]) / "config.json").read_text())
    assert config["model_id"] == result["score"]["model_id"]
    assert config["scale_rule"] == "fixed"
    assert config["level"] == 16
    assert open_cube(str(folder / "cube"), snapshot_id=config["snapshot"]).counts().registered > 0


@pytest.mark.slow
def test_another_seed_is_another_model_and_needs_training_first(small_run) -> None:
    folder, result = small_run
    other = recipe_in(folder, "train.seed=1")
    with pytest.raises(WeightsError, match=r"`galstore train`"):
        score(other)
    assert train(other)["model_id"] != result["train"]["model_id"]
    with pytest.raises(TrainingError, match=r"(?=.*\bheld-out\b)(?=.*`galstore score`)"):
        report(other)


@pytest.mark.slow
def test_a_folder_of_further_cutouts_is_scored_the_same_way(small_run, tmp_path) -> None:
    folder, result = small_run
    (tmp_path / "cutouts").mkdir()
    for object_id, pixels in enumerate(draw_blobs(5)):
        (tmp_path / "cutouts" / f"{object_id}.jpg").write_bytes(encode(pixels))
    further = pd.DataFrame({"objID": range(5), "ra": np.linspace(1, 2, 5), "dec": 3.0})
    further.to_csv(tmp_path / "further.csv", index=False)
    emulator = f"emulator={{ catalog = '{tmp_path / 'further.csv'}', cutouts = '{tmp_path / 'cutouts'}' }}"
    overrides = [*overrides_in(folder)[:2], "network.level=16", "train.epochs=3", "train.batch_size=32", emulator]
    done = score(load_recipe("demo", [*overrides, f"score.catalog='{tmp_path / 'further.csv'}'"]))
    assert done["n_scored"] == 5
    assert done["model_id"] == result["train"]["model_id"]
    assert pd.read_parquet(done["predictions"])["status"].tolist() == ["scored"] * 5


@pytest.mark.long
def test_quarantined_cutouts_are_requested_again(prefect_server, tmp_path) -> None:
    small = ["survey.limit=30", "survey.attempts=1"]
    first = ingest(recipe_in(tmp_path, *small, "emulator.faults={ truncated = 0.5, lasting = 1.0 }"))
    assert (first["n_new"], first["registered"], first["pending"]) == (30, 30, 0)
    assert first["quarantined"] > 5
    healed = recipe_in(tmp_path, *small, "emulator.faults={}")
    assert ingest(healed)["n_requests"] == 0
    again = ingest(healed, retry_quarantined=["truncated"])
    assert again["n_requests"] == first["quarantined"]
    assert (again["stored"], again["quarantined"]) == (30, 0)


@pytest.mark.slow
def test_cutouts_of_the_legacy_surveys_have_their_own_bands_and_other_networks_refuse_them(small_run, tmp_path) -> None:
    folder, result = small_run
    with survey_address(recipe_in(tmp_path, "emulator.faults={}")) as address:
        small = [
            f"store.path='{tmp_path / 'cube'}'", f"output.folder='{tmp_path}'", f"survey.base_url='{address}'",
            f"survey.cutout_base_url='{address}'", "survey.requests_per_second=500", "survey.limit=30",
            "dask.workers=1", "network.level=16",
        ]  # fmt: skip
        done = ingest(load_recipe("legacy", small))
    assert (done["registered"], done["stored"]) == (30, 30)
    cube = open_cube(str(tmp_path / "cube"))
    assert cube.attributes["bands"] == ["z", "r", "g"]
    (tmp_path / "models").symlink_to(folder / "models")
    with pytest.raises(StoreError, match="'skyserver'"):
        score(load_recipe("legacy", [*small, f"score.model='{result['train']['model_id']}'"]))


@pytest.mark.slow
def test_a_file_of_objects_is_ingested_in_place_of_the_surveys_catalog(small_run, prefect_server, tmp_path) -> None:
    folder, _ = small_run
    objects = pd.read_csv(folder / "new_catalog.csv").iloc[:8]
    Table.from_pandas(objects.assign(ra=np.radians(objects["ra"])), units={"ra": "rad", "dec": "deg"}).write(
        tmp_path / "eight.fits"
    )
    done = ingest(recipe_in(tmp_path, f"survey.catalog='{tmp_path / 'eight.fits'}'"))
    assert (done["registered"], done["pending"]) == (8, 0)
    cube = open_cube(str(tmp_path / "cube"))
    assert cube.read_catalog(["object_id"])["object_id"].tolist() == objects["object_id"].tolist()
    assert np.allclose(cube.read_catalog(["ra"])["ra"], objects["ra"])

"""The feature store from the command line, over a copy of a cube with images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from galstore.cube.reader import Cube, open_cube
from tests.facts import facts_near
from tests.flows.conftest import Command, assert_one_clear_line


@pytest.fixture
def store(filled_cube: Cube, tmp_path: Path) -> str:
    return str(shutil.copytree(filled_cube.path, tmp_path / "cube"))


@pytest.fixture
def object_id(filled_cube: Cube) -> str:
    return str(filled_cube.read_catalog(["object_id"])["object_id"][7])


def test_lookup_prints_and_draws_an_object(galstore: Command, store: str, object_id: str, tmp_path: Path) -> None:
    printed = galstore("lookup", store, object_id, "--png", str(tmp_path / "levels.png")).stdout
    for part in (object_id, "stored", "oh_p50", "concentration_r", "levels.png"):
        assert part in printed
    with Image.open(tmp_path / "levels.png") as image:
        # eight panels that are not blank
        panels = np.array_split(np.asarray(image.convert("L"), dtype=float)[80:], 8, axis=1)
        assert image.width > 1500
    assert all(panel.std() > 5 for panel in panels)
    plain = json.loads(galstore("lookup", store, object_id, "--json").stdout)
    assert plain["labels"]["galspec"]["oh_p50"] == pytest.approx(8.9, abs=1)
    assert plain["labels"]["galspec"]["lgm_tot_p50"] is None
    assert_one_clear_line(galstore("lookup", store, "5"), "5", "registered")


def test_cone_finds_its_centre(galstore: Command, store: str, object_id: str) -> None:
    place = open_cube(store).read_catalog(["ra", "dec"]).iloc[7]
    arguments = (str(place["ra"]), str(place["dec"]), "2")
    plain = json.loads(galstore("cone", store, *arguments, "--json").stdout)
    assert str(plain[0]["object_id"]) == object_id
    assert facts_near(galstore("cone", store, *arguments).stdout, f"{len(plain):,} objects", "2 deg")
    assert_one_clear_line(galstore("cone", store, "0", "95", "1"), "95")


def test_views_are_listed_shown_and_computed(galstore: Command, store: str) -> None:
    listed = galstore("features", "list", store).stdout
    assert "colours@1" in listed
    assert "0 of 1,100" in listed
    computed = galstore("features", "compute", store, "colours")
    assert computed.returncode == 0
    assert facts_near(computed.stdout, "colours@1", "1,100 objects")
    plain = json.loads(galstore("features", "list", store, "--json").stdout)
    assert {view["ref"]: view["n_computed"] for view in plain["feature_views"]}["colours@1"] == 1100
    assert {view["ref"]: view["version"] for view in plain["label_views"]}["metallicity@1"] == 1
    assert "modelMag_g - modelMag_r" in galstore("features", "show", "colours").stdout
    assert_one_clear_line(galstore("features", "show", "colors@1"), "colours@1")


def test_a_training_set_is_built_shown_and_traced(galstore: Command, store: str) -> None:
    build = ("training-set", "build", store, "first", "--label", "oh_p50", "--features", "image_16")
    built = json.loads(galstore(*build, "--json").stdout)
    assert built["objects"] == 1100
    assert json.loads(galstore("training-set", "show", store, "first", "--json").stdout) == built
    assert built["content_hash"] in galstore("training-set", "show", store, "first").stdout
    assert_one_clear_line(galstore(*build, "--seed", "1"), "first")
    assert_one_clear_line(galstore("training-set", "show", store, "second"), "second", "first")
    assert facts_near(galstore("history", store).stdout, "training set", "first")
    assert json.loads(galstore("history", store, "--json").stdout)[0]["operation"] == "training set"
    assert [step["kind"] for step in json.loads(galstore("lineage", store, "first", "--json").stdout)] == [
        "training set", "snapshot", "catalog",
    ]  # fmt: skip
    assert built["snapshot"] in galstore("lineage", store, "first").stdout


def test_export_writes_what_the_condition_leaves(galstore: Command, store: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plain = json.loads(
        galstore("export", store, str(out), "--format", "jpeg-folder", "--where", "ra < 150", "--json").stdout
    )
    n = int((open_cube(store).read_catalog(["ra"])["ra"] < 150).sum())
    assert plain["objects"] == n == len(list((out / "images").glob("*.jpg")))
    again = galstore("export", store, str(out))
    assert again.returncode == 1
    assert str(out) in again.stderr.strip().splitlines()[-1]
    assert_one_clear_line(galstore("export", store, str(tmp_path / "x"), "--format", "fits"), "fits", "zarr")

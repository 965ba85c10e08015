from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from galstore.cube.reader import Cube, open_cube
from galstore.features.store import open_store
from schemas.errors import CatalogError, FeatureError, StoreError
from tests.galstore.conftest import add_objects, registered_cube


def test_features_keep_the_order_of_the_ids_and_mark_unregistered_ones(filled_cube: Cube) -> None:
    ids = filled_cube.read_catalog(["object_id"])["object_id"].to_numpy()
    requested = [ids[900], 5, ids[3], ids[900]]
    found = open_store(filled_cube.path).get_features(requested, "structure")
    assert found["object_id"].tolist() == requested
    assert found["registered"].tolist() == [True, False, True, True]
    assert list(found.columns) == ["object_id", "registered", "petroR50_r", "petroR90_r", "concentration_r"]
    assert open_store(filled_cube.path).get_features([], "structure").empty
    with pytest.raises(FeatureError, match=r"\bstructure@1"):
        open_store(filled_cube.path).get_features(requested, "structur@1")
    with pytest.raises(CatalogError, match=r"(?=.*float64)(?=.*1\.5e\+18)"):
        open_store(filled_cube.path).get_features([1.5e18], "structure")


def test_a_cutout_equals_the_pixels_of_the_cube(filled_cube: Cube) -> None:
    store, ids = open_store(filled_cube.path), filled_cube.read_catalog(["object_id"])["object_id"].to_numpy()
    for level in (128, 16, 1):
        expected = filled_cube.read_pixels(level, np.array([1050]))[0]
        assert np.array_equal(store.cutout(ids[1050], level), expected)
    with pytest.raises(StoreError, match=r"level 100\b"):
        store.cutout(ids[0], 100)
    with pytest.raises(CatalogError, match=r"(?=.*registered)(?=.*\b5\b)"):
        store.cutout(5)


def test_the_error_of_a_missing_image_names_the_cause(folder_service, cube_path: str) -> None:
    registered_cube(cube_path, folder_service, limit=5)
    object_id = int(open_cube(cube_path).read_catalog(["object_id"])["object_id"][0])
    with pytest.raises(StoreError, match=rf"(?=.*\b{object_id}\b)(?=.*(fetched|pending))(?=.*galstore ingest)"):
        open_store(cube_path).cutout(object_id)


def test_a_cone_is_a_table_nearest_first(filled_cube: Cube) -> None:
    centre = filled_cube.read_catalog(["object_id", "ra", "dec"]).iloc[500]
    found = open_store(filled_cube.path).cone(centre["ra"], centre["dec"], 5.0)
    assert found["object_id"][0] == centre["object_id"]
    assert found["separation"].is_monotonic_increasing
    assert (found["separation"] <= 5).all()


def test_the_store_opens_at_an_earlier_time(folder_service, cube_path: str) -> None:
    registered_cube(cube_path, folder_service, limit=5)
    first, between = open_cube(cube_path).snapshot_id, datetime.now(UTC)
    add_objects(cube_path, pd.DataFrame({"object_id": [1, 2], "ra": 1.0, "dec": [2.0, 3.0]}), catalog="more")
    assert open_store(cube_path).cube.n_objects == 7
    for as_of in (first, between, between.isoformat(), between.replace(tzinfo=None).isoformat()):
        assert open_store(cube_path, as_of=as_of).cube.n_objects == 5
        assert not open_store(cube_path, as_of=as_of).get_features([1], "gri")["registered"].any()
    with pytest.raises(StoreError, match=r"(?=.*ABCDEFGHIJKLMNOPQRST)(?=.*galstore history)"):
        open_store(cube_path, as_of="ABCDEFGHIJKLMNOPQRST")
    earlier = between - timedelta(days=1)
    with pytest.raises(StoreError, match=rf"(?=.*{earlier:%Y-%m-%d})(?=.*galstore history)"):
        open_store(cube_path, as_of=earlier)


def test_the_description_of_an_object_is_complete(filled_cube: Cube) -> None:
    ids = filled_cube.read_catalog(["object_id"])["object_id"].to_numpy()
    known = open_store(filled_cube.path).describe(ids[42])
    assert (known["status"], known["reason"], known["listing"]) == ("stored", "none", "listed")
    assert known["labels"]["galspec"]["oh_p50"] == filled_cube.read_label("oh_p50")[42]
    assert known["state"]["body_length"] == len(filled_cube.read_body(42))
    assert set(known["features"]) == {"u_g", "g_r", "r_i", "i_z", "u_r", "concentration_r"}

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet

from galstore.predictions import (
    prediction_catalog,
    read_predictions,
    unscored_rows,
    write_prediction_catalog,
    write_predictions,
)
from galstore.reader import open_cube
from tests.galstore.conftest import add_objects, registered_cube


def some(n: int) -> dict[str, np.ndarray]:
    return {"mean": np.linspace(8, 9, n), "view_spread": np.full(n, 0.01)}


def test_predictions_come_back_for_the_rows_that_were_scored(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=10)
    write_predictions(cube_path, "abc", np.array([7, 2]), some(2), attributes={"units": ""})
    read = read_predictions(open_cube(cube_path), "abc", np.array([2, 3, 7]))
    assert np.allclose(read["mean"], [9, np.nan, 8], equal_nan=True)
    assert read_predictions(open_cube(cube_path), "other", np.array([2]))["mean"].isna().all()


def test_predictions_grow_with_the_cube(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=3)
    write_predictions(cube_path, "abc", np.arange(3), some(3), attributes={})
    rows = pd.DataFrame({"object_id": [1], "ra": [0.0], "dec": [1.0]})
    add_objects(cube_path, rows, catalog="more")
    cube = open_cube(cube_path)
    assert read_predictions(cube, "abc", np.arange(4))["mean"].isna().tolist() == [False, False, False, True]
    assert cube.to_datatree()["predictions/abc/mean"].attrs["long_name"] == "Mean of the predictions over the views"


def test_only_stored_objects_without_a_prediction_are_scored(filled_cube, folder_service, cube_path) -> None:
    assert unscored_rows(filled_cube, "abc", np.array([5, 3, 5])).tolist() == [3, 5]
    registered_cube(cube_path, folder_service, limit=3)
    assert unscored_rows(open_cube(cube_path), "abc", np.arange(3)).size == 0


def test_the_catalog_of_predictions_has_a_row_for_every_object(folder_service, cube_path, tmp_path) -> None:
    registered_cube(cube_path, folder_service, limit=3)
    write_predictions(cube_path, "abc", np.array([1]), some(1), attributes={})
    cube = open_cube(cube_path)
    objects = cube.read_catalog(["object_id", "ra", "dec"]).iloc[[2, 1]].reset_index(drop=True)
    catalog = prediction_catalog(cube, "abc", objects)
    assert catalog["status"].tolist() == ["pending", "scored"]
    assert catalog["object_id"].tolist() == objects["object_id"].tolist()
    assert np.allclose(catalog["prediction"], [np.nan, 8], equal_nan=True)
    path = tmp_path / "new.parquet"
    write_prediction_catalog(path, catalog, provenance={"model_id": "abc"})
    assert pd.read_parquet(path).equals(catalog)
    schema = pyarrow.parquet.read_schema(path)
    assert schema.metadata[b"model_id"] == b"abc"
    assert schema.field("ra").metadata[b"unit"] == b"deg"

from __future__ import annotations

import icechunk
import numpy as np
import pandas as pd
import pytest
import zarr
from astropy.io.votable.ucd import check_ucd

from galstore.cube.commits import commit
from galstore.cube.predictions import read_predictions, unscored_rows, write_predictions
from galstore.cube.reader import open_cube
from schemas.errors import StoreError
from schemas.predictions import PREDICTION_COLUMNS, Flag
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
    assert cube.to_datatree()["predictions/abc/mean"].attrs["long_name"].startswith("Mean")


def test_only_stored_objects_without_a_prediction_are_scored(filled_cube, folder_service, cube_path) -> None:
    assert unscored_rows(filled_cube, "abc", np.array([5, 3, 5])).tolist() == [3, 5]
    registered_cube(cube_path, folder_service, limit=3)
    assert unscored_rows(open_cube(cube_path), "abc", np.arange(3)).size == 0


def test_what_is_not_given_is_not_known_and_nothing_of_an_earlier_scoring_is_left(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=3)
    rows = np.arange(3)
    write_predictions(cube_path, "abc", rows, {**some(3), "flags": np.array([0, 1, 4])}, attributes={})
    assert read_predictions(open_cube(cube_path), "abc", rows)["flags"].tolist() == [0, 1, 4]
    write_predictions(cube_path, "abc", np.array([1]), some(1), attributes={})
    read = read_predictions(open_cube(cube_path), "abc", rows)
    assert read["flags"].tolist() == [0, -1, 4]
    assert read["p16"].isna().all()


def test_a_group_of_an_earlier_version_is_read_and_grows_the_new_columns(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=4)

    def write_as_before(session: icechunk.Session) -> None:
        group = zarr.open_group(session.store, mode="a").create_group("predictions/old", attributes={"units": ""})
        for name in ("mean", "view_spread"):
            array = group.create_array(
                name, shape=(4,), chunks=(64,), dtype="float32", fill_value=np.nan, dimension_names=("object",)
            )
            array[:2] = 8.5

    commit(cube_path, write_as_before, message="predict", metadata={"operation": "predict", "model": "old"})
    read = read_predictions(open_cube(cube_path), "old", np.arange(4))
    assert list(read.columns) == [column.name for column in PREDICTION_COLUMNS]
    assert read["mean"].notna().tolist() == [True, True, False, False]
    assert (read["flags"] == -1).all()
    write_predictions(cube_path, "old", np.array([2]), {**some(1), "flags": np.array([32])}, attributes={})
    again = read_predictions(open_cube(cube_path), "old", np.arange(4))
    assert again["flags"].tolist() == [-1, -1, 32, -1]
    assert again["mean"].notna().tolist() == [True, True, True, False]


def test_columns_that_do_not_exist_are_refused(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=2)
    for values in ({"mean": np.zeros(1), "sigmas": np.zeros(1)}, {"sigma": np.zeros(1)}):
        with pytest.raises(StoreError, match="'mean'"):
            write_predictions(cube_path, "abc", np.array([0]), values, attributes={})


def test_arrays_say_units_ucds_and_what_each_bit_means(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=2)
    write_predictions(
        cube_path, "abc", np.array([0]), some(1), attributes={"target": "lgm_tot_p50", "units": "log10(solMass)"}
    )
    tree = open_cube(cube_path).to_datatree()["predictions/abc"]
    assert tree["p16"].attrs["units"] == tree["sigma"].attrs["units"] == "log10(solMass)"
    assert tree["mean"].attrs["ucd"] == "phys.mass;stat.mean"
    flags = tree["flags"].attrs
    assert "units" not in flags
    meanings = dict(zip(flags["flag_meanings"].split(), flags["flag_masks"], strict=True))
    assert meanings["outside_training_support"] == Flag.OUTSIDE_TRAINING_SUPPORT
    assert len(meanings) == len(Flag)


def test_every_predictions_ucd_is_a_word_of_the_vocabulary() -> None:
    for column in PREDICTION_COLUMNS:
        for target in ("phys.abund.Z", ""):
            ucd = column.ucd_for(target)
            assert not ucd or check_ucd(ucd, check_controlled_vocabulary=True), column.name

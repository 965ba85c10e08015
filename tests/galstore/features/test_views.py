from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from galstore.cube.layout import ensure_cube
from galstore.cube.reader import Cube, open_cube
from galstore.features.views import compute_features, describe_views, read_features
from galstore.integrity.verify import verify_cube
from schemas.errors import FeatureError
from schemas.features import FEATURE_VIEWS, Missing, feature_view
from tests.galstore.conftest import SCALE, add_objects

N = 500


@pytest.fixture
def catalog_cube(cube_path: str) -> str:
    """Return a cube of 500 registered objects with magnitudes and sizes, without images."""
    ensure_cube(cube_path, survey="simulated", scale=SCALE)
    add_objects(cube_path, objects(N), catalog="simulated")
    return cube_path


def objects(n: int, *, first: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(first)
    table = {"object_id": np.arange(first, first + n), "ra": rng.uniform(0, 360, n), "dec": rng.uniform(-90, 90, n)}
    table |= {f"modelMag_{band}": rng.uniform(14, 20, n).astype(np.float32) for band in "ugriz"}
    table |= {
        "petroR50_r": rng.uniform(0, 5, n).astype(np.float32),
        "petroR90_r": rng.uniform(3, 9, n).astype(np.float32),
    }
    return pd.DataFrame(table)


def test_computed_columns_are_equal_stored_or_not(catalog_cube: str) -> None:
    rows = np.array([7, 3, 3, 499])
    catalog = open_cube(catalog_cube).read_catalog(["modelMag_g", "modelMag_r"]).astype(np.float64).iloc[rows]
    expected = (catalog["modelMag_g"] - catalog["modelMag_r"]).to_numpy().astype(np.float32)
    fresh = read_features(open_cube(catalog_cube), rows, feature_view("colours"))
    assert np.array_equal(fresh["g_r"], expected)
    assert compute_features(catalog_cube, feature_view("colours")) == N
    read = read_features(open_cube(catalog_cube), rows, feature_view("colours"))
    pd.testing.assert_frame_equal(read, fresh, check_exact=True)
    stored = open_cube(catalog_cube).array("features/colours@1/g_r")
    assert np.array_equal(np.asarray(stored[:])[rows], expected)
    assert verify_cube(open_cube(catalog_cube)).ok


def test_only_new_objects_are_computed(catalog_cube: str) -> None:
    view = feature_view("colours")
    compute_features(catalog_cube, view)
    add_objects(catalog_cube, objects(40, first=10_000), catalog="more")
    # new objects are readable before they are computed
    assert read_features(open_cube(catalog_cube), np.array([510]), view).notna().all(axis=None)
    computed: list[int] = []
    assert compute_features(catalog_cube, view, on_rows=computed.append) == 40
    assert computed == [40]
    assert compute_features(catalog_cube, view) == 0
    (entry,) = [entry for entry in describe_views(open_cube(catalog_cube)) if entry["ref"] == view.ref]
    assert (entry["n_computed"], entry["n_objects"]) == (540, 540)


def test_values_out_of_range_and_missing_ones_are_null(catalog_cube: str) -> None:
    cube = open_cube(catalog_cube)
    structure = read_features(cube, np.arange(N), feature_view("structure"))
    sizes = cube.read_catalog(["petroR50_r", "petroR90_r"]).astype(np.float64)
    ratio = sizes["petroR90_r"] / sizes["petroR50_r"]
    assert np.array_equal(structure["concentration_r"].isna(), ~ratio.between(1, 20))
    assert structure["concentration_r"].isna().any()
    assert read_features(cube, np.arange(3), feature_view("photometry"))["petroMag_r"].isna().all()


def test_another_definition_under_the_same_version_is_refused(catalog_cube: str) -> None:
    view = feature_view("colours")
    compute_features(catalog_cube, view)
    first = replace(view.columns[0], expression="modelMag_u - modelMag_r")
    other = replace(view, columns=(first, *view.columns[1:]))
    error = r"(?=.*colours@1)(?=.*version 2\b)"
    with pytest.raises(FeatureError, match=error):
        compute_features(catalog_cube, other)
    with pytest.raises(FeatureError, match=error):
        read_features(open_cube(catalog_cube), np.array([0]), other)
    # a description may be reworded, and a new version may have another definition
    reworded = replace(view, columns=tuple(replace(column, description="better") for column in view.columns))
    assert compute_features(catalog_cube, reworded) == 0
    assert compute_features(catalog_cube, replace(other, version=2)) == N


def test_images_are_not_a_table(filled_cube: Cube) -> None:
    with pytest.raises(FeatureError, match="image_32@1"):
        read_features(filled_cube, np.array([0]), feature_view("image_32"))
    with pytest.raises(FeatureError, match="photometry@1"):
        compute_features(filled_cube.path, feature_view("photometry"))


def test_every_definition_is_complete() -> None:
    for view in FEATURE_VIEWS.values():
        assert view.description
        assert bool(view.columns) != bool(view.level)
        for column in view.columns:
            assert column.description
            assert column.ucd
            assert column.missing in Missing
            assert column.valid_min < column.valid_max

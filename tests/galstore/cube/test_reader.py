from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

from galstore.cube.layout import ensure_cube
from galstore.cube.reader import Cube, open_cube
from schemas.catalog import COLUMN
from schemas.cube import LEVELS
from schemas.cutouts import CutoutScale, ScaleRule
from schemas.errors import CatalogError, StoreError, StoreNotFoundError
from tests.galstore.conftest import SCALE, add_objects, registered_cube


def test_xarray_opens_levels_and_catalog_with_names_and_units(filled_cube: Cube) -> None:
    tree = xr.open_datatree(filled_cube.store, engine="zarr", consolidated=False)
    assert {f"/images/{side}" for side in LEVELS} <= set(tree.groups)
    for side in LEVELS:
        pixels = tree[f"images/{side}/pixels"]
        assert pixels.dims == ("object", "y", "x", "band")
        assert pixels.sizes["y"] == side
        assert pixels.attrs["units"] == "count"
        assert pixels.attrs["band_names"] == ["i", "r", "g"]
        # xarray applies scale_factor itself: every level is in counts
        assert float(pixels.mean()) == pytest.approx(float(tree["images/128/pixels"].mean()), abs=0.2)
    assert tree["catalog/ra"].attrs["units"] == "deg"
    assert tree["catalog/ra"].attrs["ucd"] == "pos.eq.ra;meta.main"
    assert tree["catalog/object_id"].values[0] == 1237648702973411443
    assert tree["labels/galspec/oh_p50"].attrs["long_name"].startswith("12 + log(O/H)")
    assert tree["state/status"].attrs["flag_meanings"] == "pending stored quarantined"
    assert set(tree["catalog"].data_vars) <= set(COLUMN)


def test_the_pyramid_describes_itself(filled_cube: Cube) -> None:
    tree = filled_cube.to_datatree()
    layout = tree["images"].attrs["multiscales"]["layout"]
    assert [level["asset"] for level in layout] == [str(side) for side in LEVELS]
    assert layout[1] == {
        "asset": "64",
        "derived_from": "128",
        "transform": {"scale": [2.0, 2.0], "translation": [0.5, 0.5]},
        "resampling_method": "average",
    }


@pytest.mark.parametrize("level", [64, 8])
def test_rows_come_in_the_order_asked_for(filled_cube: Cube, level: int) -> None:
    rows = np.random.default_rng(0).permutation(filled_cube.n_objects)[:500]
    everything = filled_cube.read_pixels(level, np.arange(filled_cube.n_objects))
    assert np.array_equal(filled_cube.read_pixels(level, rows), everything[rows])
    repeated = np.array([7, 7, 1050, 3])
    assert np.array_equal(filled_cube.read_pixels(level, repeated), everything[repeated])
    for wanted in (np.sort(rows), rows):
        out = np.full((rows.size, *everything.shape[1:]), 9, dtype=everything.dtype)
        assert filled_cube.read_pixels(level, wanted, out) is out
        assert np.array_equal(out, everything[wanted])
    with pytest.raises(ValueError, match=re.escape(str(out.shape))):
        filled_cube.read_pixels(level, rows[:3], out)


def test_reading_no_rows_gives_an_empty_stack(filled_cube: Cube) -> None:
    assert filled_cube.read_pixels(32, np.array([], dtype=np.int64)).shape == (0, 32, 32, 3)


def test_a_reader_keeps_its_snapshot(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=10)
    before = open_cube(cube_path)
    rows = before.read_catalog(["object_id", "ra", "dec"]).assign(object_id=[*range(10)])
    add_objects(cube_path, rows, catalog="more")
    assert (before.n_objects, open_cube(cube_path).n_objects) == (10, 20)
    assert open_cube(cube_path, snapshot_id=before.snapshot_id).n_objects == 10


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda cube: cube.read_pixels(100, np.array([0])), r"(?=.*level 100\b)(?=.*\b128, 64)"),
        (lambda cube: cube.read_pixels(64, np.array([0])), r"(?=.*\b1\b)(?=.*cutout)"),
        (lambda cube: cube.read_label("oh"), r"(?=.*'oh')(?=.*'galspec')(?=.*lgm_tot_p50, oh_p)"),
        (lambda cube: cube.read_state("colour"), r"(?=.*'colour')(?=.*status, reason)"),
        (lambda cube: cube.array("images"), r"(?=.*\bimages\b)(?=.*array)"),
    ],
)
def test_asking_for_what_is_not_there_says_what_is(folder_service, cube_path, read, told: str) -> None:
    cube = open_cube(registered_cube(cube_path, folder_service, limit=3))
    with pytest.raises(StoreError, match=told):
        read(cube)


def test_unregistered_ids_are_refused(filled_cube: Cube) -> None:
    with pytest.raises(CatalogError, match=r"(?=.*\b2 objects)(?=.*\b17\b)"):
        filled_cube.rows_of(np.array([17, 18]))


def test_a_missing_cube_says_how_to_make_one(tmp_path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(StoreNotFoundError, match=rf"(?=.*{re.escape(str(path))})(?=.*galstore ingest)"):
            open_cube(str(path))


def test_scale_rules_never_mix(cube_path) -> None:
    assert ensure_cube(cube_path, survey="a", scale=SCALE)
    assert not ensure_cube(cube_path, survey="a", scale=SCALE)
    for other in (CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.4), CutoutScale(rule=ScaleRule.PETRO_R90)):
        with pytest.raises(StoreError, match=r"store\.path"):
            ensure_cube(cube_path, survey="a", scale=other)


def test_real_and_simulated_skies_never_mix(cube_path) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE, simulated=True)
    with pytest.raises(StoreError, match=r"(?=.*\bsimulated\b)(?=.*\breal\b)"):
        ensure_cube(cube_path, survey="a", scale=SCALE, simulated=False)

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import zarr
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky

from galstore.cube.commits import commit, open_repository
from galstore.cube.reader import Cube, open_cube
from galstore.features.frozen_set import build_training_set, open_training_set
from galstore.features.training_set import draw_training_set
from galstore.integrity.expiry import expire_snapshots
from galstore.integrity.verify import verify_cube
from schemas.errors import FeatureError, TrainingError
from schemas.features import Split
from schemas.recipes import SplitSection
from tests.galstore.conftest import add_objects, fill, registered_cube

VIEWS = ["structure", "image_16"]


@pytest.fixture
def own_cube(cube_path, folder_service, executor) -> str:
    """Return a cube with 300 stored objects that a test may change."""
    registered_cube(cube_path, folder_service, limit=300)
    fill(cube_path, folder_service, executor)
    return cube_path


def test_every_stored_labelled_object_is_in_one_split(filled_cube: Cube) -> None:
    training_set = draw_training_set(filled_cube, ["oh_p50"])
    parts = np.concatenate([training_set.indices(split) for split in Split])
    assert sorted(parts) == list(range(1100))
    assert training_set.evaluation_split is Split.TEST
    assert np.array_equal(training_set.labels, filled_cube.read_label("oh_p50")[training_set.rows])


def test_the_hash_identifies_the_content(filled_cube: Cube) -> None:
    first = draw_training_set(filled_cube, ["oh_p50"], features=VIEWS)
    assert draw_training_set(filled_cube, ["oh_p50"], features=VIEWS[::-1]).content_hash == first.content_hash
    others = [
        draw_training_set(filled_cube, ["oh_p50"], features=VIEWS, split=SplitSection(seed=1)),
        draw_training_set(filled_cube, ["oh_p50"], features=["structure"]),
        draw_training_set(filled_cube, ["oh_p50"], features=VIEWS, selection="ra < 200"),
    ]
    assert len({first.content_hash, *(other.content_hash for other in others)}) == 4


def test_without_a_test_share_validation_evaluates(filled_cube: Cube) -> None:
    training_set = draw_training_set(filled_cube, ["oh_p50"], split=SplitSection(train=0.8, validation=0.2, test=0))
    assert training_set.evaluation_split is Split.VALIDATION


def test_a_frozen_set_reads_the_same_after_appends_relabelling_and_gc(own_cube: str, folder_service, executor) -> None:
    frozen = build_training_set(own_cube, "first", ["oh_p50"], features=VIEWS)
    before = frozen.to_pandas()
    images = frozen.to_xarray()["image_16"].values
    old_snapshot = frozen.snapshot_id

    new_ids = np.arange(1, 2001)
    add_objects(own_cube, pd.DataFrame({"object_id": new_ids, "ra": 10.0, "dec": -80.0, "oh_p50": 8.8}), catalog="more")
    relabelled = before["object_id"].to_numpy()[:200]
    catalog = open_cube(own_cube).read_catalog(["object_id", "ra", "dec"]).set_index("object_id").loc[relabelled]
    add_objects(own_cube, catalog.reset_index().assign(oh_p50=9.25), catalog="simulated")
    expire_snapshots(own_cube, keep=timedelta(0), grace=timedelta(0))

    reopened = open_training_set(own_cube, "first")
    assert reopened.content_hash == frozen.content_hash
    pd.testing.assert_frame_equal(reopened.to_pandas(), before, check_exact=True)
    assert np.array_equal(reopened.to_xarray()["image_16"].values, images)
    assert reopened.moments == frozen.moments
    assert verify_cube(open_cube(own_cube)).ok
    assert open_cube(own_cube, snapshot_id=old_snapshot).n_objects == 300
    # a new set differs in the changed labels only: the new objects have no image yet
    second = build_training_set(own_cube, "second", ["oh_p50"], features=VIEWS).to_pandas()
    differs = second["oh_p50"] != before["oh_p50"]
    assert set(second.loc[differs, "object_id"]) == set(relabelled)
    assert (second.loc[differs, "oh_p50"] == 9.25).all()
    pd.testing.assert_frame_equal(second.drop(columns="oh_p50"), before.drop(columns="oh_p50"), check_exact=True)
    # the same content under the same name is accepted; other content is refused
    with pytest.raises(FeatureError, match=frozen.content_hash[:12]):
        build_training_set(own_cube, "first", ["oh_p50"], features=VIEWS)
    assert (
        build_training_set(own_cube, "first", ["oh_p50"], features=VIEWS, snapshot_id=old_snapshot).content_hash
        == frozen.content_hash
    )


def test_moments_describe_the_training_objects(own_cube: str) -> None:
    frozen = build_training_set(own_cube, "with.moments", ["oh_p50"], features=["structure", "image_32", "image_1"])
    fit = frozen.indices(Split.TRAIN)
    for level in (32, 1):
        pixels = frozen.cube.read_pixels(level, frozen.rows[fit]).astype(np.float64)
        moments = frozen.moments[f"image_{level}@1"]
        np.testing.assert_allclose(moments["mean"], pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(moments["std"], pixels.std(axis=(0, 1, 2)), rtol=1e-9)
    assert frozen.moments["structure@1/concentration_r"] == {"mean": None, "std": None, "n": 0}


def test_a_split_by_sky_keeps_its_distance(filled_cube: Cube) -> None:
    rule = SplitSection(by="sky", cell_order=3, separation_deg=1.0)
    drawn = draw_training_set(filled_cube, ["oh_p50"], split=rule)
    positions = filled_cube.read_catalog(["ra", "dec"]).iloc[drawn.rows]
    sky = SkyCoord(positions["ra"].to_numpy(), positions["dec"].to_numpy(), unit="deg")
    for first, second in ((Split.TRAIN, Split.TEST), (Split.TRAIN, Split.VALIDATION), (Split.VALIDATION, Split.TEST)):
        near, *_ = search_around_sky(sky[drawn.indices(first)], sky[drawn.indices(second)], 1.0 * u.deg)
        assert near.size == 0
    n_out = drawn.definition["n_left_out"]["too_close_to_another_part"]
    assert n_out > 0
    assert drawn.rows.size + n_out == 1100


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"labels": ["oh_p05"]}, "'oh_p05'"),
        ({"labels": ["oh_p50"], "features": ["colors@1"]}, r"\bcolours@1"),
        ({"labels": ["oh_p50"], "features": ["image_3@1"]}, "'image_3@1'"),
        ({"labels": ["lgm_tot_p50"]}, r"(?=.*lgm_tot_p50)(?=.*\b1100\b)"),
        ({"labels": ["oh_p50"], "selection": "ra < 0"}, r"(?=.*'ra < 0')(?=.*\b0 of 1100\b)"),
        ({"labels": ["oh_p50"], "selection": "petroMagr < 17"}, r"\bpetroMag_r\b"),
        ({"labels": ["oh_p50"], "selection": "ra.max() < 17"}, r"'ra\.max\(\) < 17'"),
        ({"labels": ["oh_p50"], "selection": "ra + 1"}, r"'ra \+ 1'"),
        ({"labels": []}, "label"),
    ],
)
def test_the_error_of_an_invalid_request_names_it(filled_cube: Cube, arguments: dict, error: str) -> None:
    with pytest.raises(FeatureError, match=error):
        draw_training_set(filled_cube, **arguments)


def test_nothing_to_train_on_is_an_error(folder_service, cube_path) -> None:
    cube = open_cube(registered_cube(cube_path, folder_service, limit=5))
    with pytest.raises(TrainingError, match=r"(?=.*'oh_p50')(?=.*\btrain\b)"):
        draw_training_set(cube, ["oh_p50"])


def test_missing_sets_and_missing_snapshots_are_errors(own_cube: str) -> None:
    with pytest.raises(FeatureError, match="'none'"):
        open_training_set(own_cube, "none")
    with pytest.raises(FeatureError, match="'a/b'"):
        build_training_set(own_cube, "a/b", ["oh_p50"])
    build_training_set(own_cube, "doomed", ["oh_p50"])
    commit(own_cube, _touch, message="more", metadata={"operation": "test"})
    repository = open_repository(own_cube)
    for tag in repository.list_tags():
        repository.delete_tag(tag)
    expire_snapshots(own_cube, keep=timedelta(0), grace=timedelta(0))
    with pytest.raises(FeatureError, match=r"(?=.*\bdoomed\b)(?=.*snapshot)"):
        open_training_set(own_cube, "doomed")


def _touch(session) -> None:
    zarr.open_group(session.store, mode="a").attrs["touched"] = True

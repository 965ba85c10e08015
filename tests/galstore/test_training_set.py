from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from galstore.reader import Cube, open_cube
from galstore.splits import Split
from galstore.training_set import build_training_set
from schemas.errors import TrainingError
from tests.galstore.conftest import registered_cube

SHARES = {"train": 0.6, "validation": 0.2}


def test_every_stored_labelled_object_is_in_one_split(filled_cube: Cube) -> None:
    training_set = build_training_set(filled_cube, "oh_p50", **SHARES)
    parts = np.concatenate([training_set.indices(split) for split in Split])
    assert sorted(parts) == list(range(1100))
    assert training_set.evaluation_split is Split.TEST
    assert np.array_equal(training_set.labels, filled_cube.read_label("oh_p50")[training_set.rows])


def test_the_hash_names_the_content_and_not_the_order(filled_cube: Cube) -> None:
    training_set = build_training_set(filled_cube, "oh_p50", **SHARES)
    order = np.random.default_rng(0).permutation(1100)
    shuffled = replace(
        training_set,
        **{name: getattr(training_set, name)[order] for name in ("rows", "object_ids", "labels", "split")},
        snapshot_id="another",
    )
    assert shuffled.content_hash == training_set.content_hash
    relabelled = replace(training_set, labels=training_set.labels + np.eye(1100)[5] * 1e-6)
    assert relabelled.content_hash != training_set.content_hash
    assert build_training_set(filled_cube, "oh_p50", **SHARES, seed=1).content_hash != training_set.content_hash


def test_without_a_test_share_validation_judges(filled_cube: Cube) -> None:
    training_set = build_training_set(filled_cube, "oh_p50", train=0.8, validation=0.2)
    assert training_set.evaluation_split is Split.VALIDATION


@pytest.mark.parametrize("target", ["oh_p50", "lgm_tot_p50"])
def test_nothing_to_train_on_is_an_error(folder_service, cube_path, filled_cube, target: str) -> None:
    cube = filled_cube if target == "lgm_tot_p50" else open_cube(registered_cube(cube_path, folder_service, limit=5))
    with pytest.raises(TrainingError, match=rf"no galaxy with a stored cutout and a label '{target}' is in the train"):
        build_training_set(cube, target, **SHARES)

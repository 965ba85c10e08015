from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from galstore.cube.history import read_history, trace_lineage
from galstore.cube.predictions import write_predictions
from galstore.features.frozen_set import build_training_set
from schemas.errors import FeatureError
from tests.galstore.conftest import fill, registered_cube


def test_history_and_lineage_lead_from_predictions_to_the_survey(folder_service, cube_path, executor) -> None:
    registered_cube(cube_path, folder_service, limit=50)
    fill(cube_path, folder_service, executor, run_id="night-1")
    training_set = build_training_set(cube_path, "first", ["oh_p50"], features=["image_32"])
    values = {name: np.full(50, 8.9, dtype=np.float32) for name in ("mean", "view_spread")}
    attributes = {"target": "oh_p50", "training_set": training_set.content_hash, "level": 32}
    write_predictions(cube_path, "abc123", np.arange(50), values, attributes=attributes)

    history = read_history(cube_path)
    operations = [commit.operation for commit in history]
    assert operations[:3] == ["predict", "training set", "fill"]
    assert history[2].run == "night-1"
    assert history[2].tags == (f"training-set-first-{training_set.content_hash[:12]}-{training_set.snapshot_id[:8]}",)
    assert history[0].details == {"model": "abc123", "n_objects": 50}
    assert all(newer.time >= older.time for newer, older in pairwise(history))

    chain = trace_lineage(cube_path, "abc123")
    kinds = ["predictions", "training set", "snapshot", "catalog"]
    assert all(kind in step.kind for step, kind in zip(chain, kinds, strict=True))
    assert chain[1].details["galstore"]
    assert chain[2].name == training_set.snapshot_id
    assert chain[2].details["run"] == "night-1"
    assert chain[3].details["selection"] == "labelled"
    assert chain[3].details["service"] == folder_service.base_url
    assert trace_lineage(cube_path, "first") == chain[1:]
    with pytest.raises(FeatureError, match=r"(?=.*'x')(?=.*abc123, first)"):
        trace_lineage(cube_path, "x")

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from galstore.cube.reader import open_cube
from galstore.ingest.quarantine import parse_reasons, read_quarantine
from schemas.cutouts import Reason
from schemas.errors import RecipeError
from tests.galstore.conftest import add_objects, fill, registered_cube


def test_quarantined_objects_are_listed_with_place_reason_and_attempts(folder_service, executor, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=5)
    nowhere = pd.DataFrame({"object_id": [7, 3], "ra": [300.0, 301.0], "dec": [-80.0, -81.0]})
    add_objects(cube_path, nowhere, catalog="nowhere")
    fill(cube_path, folder_service, executor)
    listed = read_quarantine(open_cube(cube_path))
    assert listed.to_dict("records") == [
        {
            "row": row,
            "object_id": object_id,
            "ra": ra,
            "dec": dec,
            "catalog": "nowhere",
            "reason": "out_of_footprint",
            "attempts": 1,
            "http_status": 404,
        }
        for row, object_id, ra, dec in ((5, 7, 300.0, -80.0), (6, 3, 301.0, -81.0))
    ]
    assert len(read_quarantine(open_cube(cube_path), {Reason.OUT_OF_FOOTPRINT})) == 2
    assert read_quarantine(open_cube(cube_path), {Reason.FLAT}).empty


def test_reasons_are_parsed_from_names_or_all() -> None:
    assert parse_reasons(["all"]) == frozenset(Reason) - {Reason.NONE}
    assert parse_reasons([]) == frozenset()
    with pytest.raises(RecipeError, match=r"(?=.*'none')(?=.*\ball\b)(?=.*out_of_footprint, not_a)"):
        parse_reasons(["flat", "none"])


def test_a_healthy_cube_has_no_quarantine(filled_cube) -> None:
    listed = read_quarantine(filled_cube)
    assert listed.empty
    assert np.array_equal(listed.columns[:2], ["row", "object_id"])

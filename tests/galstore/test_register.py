from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from galstore.cube import ensure_cube
from galstore.reader import open_cube
from galstore.register import Registration, append_objects, register_file, register_survey
from schemas.errors import CatalogError
from schemas.selection import SELECTIONS
from tests.galstore.conftest import SCALE, registered_cube

COLUMNS = ["ra", "dec", "oh_p50"]


def test_a_second_registration_adds_nothing_and_commits_nothing(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service)
    before = open_cube(cube_path)
    again = register_survey(cube_path, folder_service, SELECTIONS["labelled"], survey="made-up", columns=COLUMNS)
    assert (again.n_new, again.n_known, again.n_rejected) == (0, 1100, 0)
    assert open_cube(cube_path).snapshot_id == before.snapshot_id


def test_a_grown_catalog_adds_only_what_is_new(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=100)
    first = open_cube(cube_path).read_catalog(["object_id"])["object_id"].tolist()
    grown = register_survey(
        cube_path, folder_service, SELECTIONS["labelled"], survey="made-up", columns=COLUMNS, limit=250, page_rows=60
    )
    assert (grown.n_new, grown.n_known) == (150, 100)
    cube = open_cube(cube_path)
    ids = cube.read_catalog(["object_id"])["object_id"].tolist()
    assert ids[:100] == first
    assert len(set(ids)) == 250
    assert len(cube.attributes["catalogs"]) == 1


def test_values_are_kept_as_delivered_and_what_was_not_delivered_is_missing(filled_cube, cutout_folder) -> None:
    delivered = pd.read_csv(cutout_folder / "catalog.csv").sort_values("objID")
    kept = filled_cube.read_catalog(["object_id", "ra", "dec", "z"])
    assert np.array_equal(kept["object_id"], delivered["objID"])
    assert np.array_equal(kept["ra"], delivered["ra"])
    assert kept["z"].isna().all()
    assert np.array_equal(filled_cube.read_label("oh_p50"), delivered["oh_p50"].astype("float32"))


def test_a_file_registers_with_its_hash_and_rejected_rows_come_back(cube_path, tmp_path) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    path = tmp_path / "tonight.csv"
    path.write_text("id,ra,dec,note\n11,1.5,2.5,x\n12,999,2.5,y\n11,1.5,2.5,z\n")
    registration, objects = register_file(cube_path, path)
    assert (registration.n_delivered, registration.n_new, registration.n_rejected) == (3, 1, 2)
    assert registration.rejected_by_reason == {"ra outside 0 to 360": 1, "object_id repeats an object id": 1}
    assert registration.ignored_columns == ("note",)
    assert objects.to_numpy().tolist() == [[11, 1.5, 2.5]]
    (catalog,) = open_cube(cube_path).attributes["catalogs"]
    assert (catalog["name"], catalog["file"]) == ("tonight", "tonight.csv")
    assert len(catalog["sha256"]) == 64


def test_objects_remember_their_catalog(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=4)
    rows = pd.DataFrame({"object_id": [1, 2], "ra": [0.0, 1.0], "dec": [0.0, 1.0]})
    append_objects(cube_path, rows, catalog="more", provenance={})
    assert open_cube(cube_path).read_state("catalog").tolist() == [0, 0, 0, 0, 1, 1]


def test_an_empty_selection_is_an_error(folder_service, cube_path, monkeypatch) -> None:
    from schemas.selection import Cut, Selection

    nobody = Selection(name="nobody", source="a test", cuts=(Cut(expression="E.oh_p50", low=50),))
    ensure_cube(cube_path, survey="a", scale=SCALE)
    with pytest.raises(CatalogError, match="the catalog of a has no rows under selection 'nobody'"):
        register_survey(cube_path, folder_service, nobody, survey="a", columns=COLUMNS)


def test_registrations_add() -> None:
    rejected = pd.DataFrame({"row": [3], "object_id": ["5"], "column": ["ra"], "reason": ["outside 0 to 360: 400.0"]})
    total = Registration(n_new=1, rejected=rejected) + Registration(n_known=2) + Registration(rejected=rejected)
    assert (total.n_new, total.n_known, total.n_rejected, total.n_delivered) == (1, 2, 2, 5)
    assert total.rejected_by_reason == {"ra outside 0 to 360": 2}

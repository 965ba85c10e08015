from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from galstore.cube.commits import open_repository
from galstore.cube.inventory import take_inventory
from galstore.cube.labels import label_tag
from galstore.cube.layout import ensure_cube
from galstore.cube.reader import open_cube
from galstore.ingest.catalog_update import CatalogUpdate, Registration, SeenRows, finish_update
from galstore.ingest.register import register_file, register_survey
from galstore.survey.row_checks import prepare_catalog
from schemas.errors import CatalogError
from schemas.selection import SELECTIONS
from tests.galstore.conftest import SCALE, add_objects, registered_cube

COLUMNS = ["ra", "dec", "oh_p50"]


def test_a_second_registration_adds_nothing_and_commits_nothing(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service)
    before = open_cube(cube_path)
    again = register_survey(cube_path, folder_service, SELECTIONS["labelled"], survey="simulated", columns=COLUMNS)
    assert (again.n_new, again.n_known, again.n_rejected) == (0, 1100, 0)
    assert open_cube(cube_path).snapshot_id == before.snapshot_id


def test_a_grown_catalog_adds_only_what_is_new(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=100)
    first = open_cube(cube_path).read_catalog(["object_id"])["object_id"].tolist()
    grown = register_survey(
        cube_path, folder_service, SELECTIONS["labelled"], survey="simulated", columns=COLUMNS, limit=250, page_rows=60
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
    assert registration.rejected_by_reason == {"ra out_of_range": 1, "object_id repeated_id": 1}
    assert registration.ignored_columns == ("note",)
    assert objects.to_numpy().tolist() == [[11, 1.5, 2.5]]
    (catalog,) = open_cube(cube_path).attributes["catalogs"]
    assert (catalog["name"], catalog["file"]) == ("tonight", "tonight.csv")
    assert len(catalog["sha256"]) == 64


def test_objects_remember_their_catalog(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=4)
    rows = pd.DataFrame({"object_id": [1, 2], "ra": [0.0, 1.0], "dec": [0.0, 1.0]})
    add_objects(cube_path, rows, catalog="more")
    assert open_cube(cube_path).read_state("catalog").tolist() == [0, 0, 0, 0, 1, 1]


def test_an_empty_selection_is_an_error(folder_service, cube_path, monkeypatch) -> None:
    from schemas.selection import Cut, Selection

    nobody = Selection(name="nobody", source="a test", cuts=(Cut(expression="E.oh_p50", low=50),))
    ensure_cube(cube_path, survey="a", scale=SCALE)
    with pytest.raises(CatalogError, match="'nobody'"):
        register_survey(cube_path, folder_service, nobody, survey="a", columns=COLUMNS)


def test_registrations_add() -> None:
    rejected = pd.DataFrame(
        {"row": [3], "object_id": ["5"], "column": ["ra"], "reason": ["out_of_range"], "value": ["400.0"]}
    )
    total = Registration(n_new=1, rejected=rejected) + Registration(n_known=2) + Registration(rejected=rejected)
    assert (total.n_new, total.n_known, total.n_rejected, total.n_delivered) == (1, 2, 2, 5)
    assert total.rejected_by_reason == {"ra out_of_range": 2}


def deliver(path: str, table: pd.DataFrame, tmp_path: Path, *, run_id: str = "", page_rows: int = 2) -> Registration:
    """Register a CSV called survey.csv, page by page."""
    file = tmp_path / "survey.csv"
    table.to_csv(file, index=False)
    return register_file(path, file, page_rows=page_rows, run_id=run_id)[0]


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"object_id": [11, 12, 13, 14, 15], "ra": 10.0, "dec": 20.0, "oh_p50": [8.1, 8.2, 8.3, 8.4, -9999]}
    )


def test_changed_labels_make_a_new_version_and_the_old_one_stays_readable(cube_path, tmp_path, table) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    deliver(cube_path, table, tmp_path, run_id="first")
    changed = table.assign(oh_p50=[8.1, 8.9, 8.3, None, 8.5])
    done = deliver(cube_path, changed, tmp_path, run_id="second")
    assert (done.n_new, done.n_known, done.n_relabelled) == (0, 5, 3)
    cube = open_cube(cube_path)
    assert np.allclose(cube.read_label("oh_p50"), changed["oh_p50"].astype("float64"), equal_nan=True)
    versions = cube.read_label_versions()
    assert [version["version"] for version in versions] == [1, 2]
    assert (versions[1]["run"], versions[1]["n_changed"]) == ("second", 3)
    repository = open_repository(cube_path)
    old = open_cube(cube_path, snapshot_id=repository.lookup_tag(label_tag("galspec", 1)))
    assert np.allclose(old.read_label("oh_p50"), [8.1, 8.2, 8.3, 8.4, np.nan], equal_nan=True)
    assert deliver(cube_path, changed, tmp_path, run_id="third").n_relabelled == 0
    assert [version["version"] for version in open_cube(cube_path).read_label_versions()] == [1, 2]


def test_objects_that_a_whole_delivery_lacks_are_kept_and_flagged_until_they_come_back(
    cube_path, tmp_path, table
) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    deliver(cube_path, table, tmp_path)
    assert deliver(cube_path, table.iloc[[0, 2, 4]], tmp_path).n_vanished == 2
    cube = open_cube(cube_path)
    assert cube.read_state("listing").tolist() == [0, 1, 0, 1, 0]
    assert take_inventory(cube).n_vanished == take_inventory(cube).catalogs[0]["n_vanished"] == 2
    assert cube.read_catalog(["object_id"])["object_id"].tolist() == [11, 12, 13, 14, 15]
    assert deliver(cube_path, table, tmp_path).n_vanished == 0
    assert not open_cube(cube_path).read_state("listing").any()


def test_part_of_a_survey_makes_nobody_vanish_and_keeps_what_was_rejected_before(folder_service, cube_path) -> None:
    registered_cube(cube_path, folder_service, limit=100)
    for narrowed, whole in (
        (SELECTIONS["labelled"].narrowed(where="G.dec > 30"), False),
        (SELECTIONS["labelled"], True),
    ):
        done = register_survey(
            cube_path, folder_service, narrowed, survey="simulated", columns=COLUMNS, whole=whole, limit=0
        )
        assert done.n_vanished == 0
    assert open_cube(cube_path).n_objects == 1100


def test_a_catalog_of_which_nothing_can_be_kept_is_listed_and_makes_nobody_vanish(cube_path, tmp_path, table) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    deliver(cube_path, table, tmp_path)
    with pytest.raises(CatalogError, match=r"(?=.*\b5 rows)(?=.*out_of_range)"):
        deliver(cube_path, table.assign(dec=120.0), tmp_path)
    cube = open_cube(cube_path)
    assert not cube.read_state("listing").any()
    rejected = cube.read_rejected()
    assert rejected["object_id"].tolist() == ["11", "12", "13", "14", "15"]
    assert rejected["row"].tolist() == [0, 1, 2, 3, 4]
    assert set(rejected["value"]) == {"120.0"}


def test_an_id_that_comes_again_on_a_later_page_is_rejected_there(cube_path, tmp_path, table) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    again = pd.concat([table, table.iloc[:1].assign(ra=99.0)])
    done = deliver(cube_path, again, tmp_path)
    assert (done.n_new, done.rejected_by_reason) == (5, {"object_id repeated_id": 1})
    assert open_cube(cube_path).read_catalog(["ra"])["ra"].tolist() == [10.0] * 5


def test_rows_rejected_by_one_part_of_a_survey_outlive_the_delivery_of_another(cube_path) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)

    def reject(*ids: int, value: float = 400.0) -> None:
        frame = pd.DataFrame({"object_id": [1, *ids], "ra": [1.0, *[value] * len(ids)], "dec": 0.0})
        prepared = prepare_catalog(frame, origin="part")
        finish_update(cube_path, CatalogUpdate(catalog="a"), prepared.rejected, SeenRows())

    reject(5, 6)
    reject(6, 7, value=500.0)
    rejected = open_cube(cube_path).read_rejected()
    assert dict(zip(rejected["object_id"], rejected["value"], strict=True)) == {
        "5": "400.0",
        "6": "500.0",
        "7": "500.0",
    }


def test_an_object_whose_row_cannot_be_kept_this_time_has_not_vanished(cube_path, tmp_path, table) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    deliver(cube_path, table, tmp_path)
    done = deliver(cube_path, table.assign(dec=[20.0, 120.0, 20.0, 20.0, 20.0]), tmp_path)
    assert (done.n_known, done.n_rejected, done.n_vanished) == (4, 1, 0)


def test_a_good_row_counts_where_an_earlier_one_of_its_object_was_at_fault(cube_path, tmp_path, table) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    deliver(cube_path, table, tmp_path)
    twice = pd.concat([table.iloc[:1].assign(dec=120.0), table.iloc[1:], table.iloc[:1].assign(oh_p50=9.0)])
    done = deliver(cube_path, twice, tmp_path)
    assert (done.n_known, done.n_rejected, done.n_relabelled) == (5, 1, 1)
    assert open_cube(cube_path).read_label("oh_p50")[0] == np.float32(9.0)


def test_a_vanished_object_is_back_only_in_its_own_catalog_be_it_with_a_row_at_fault(
    cube_path, tmp_path, table
) -> None:
    ensure_cube(cube_path, survey="a", scale=SCALE)
    deliver(cube_path, table, tmp_path)
    deliver(cube_path, table.iloc[1:], tmp_path)
    add_objects(cube_path, table.iloc[:1], catalog="other")
    assert open_cube(cube_path).read_state("listing").tolist() == [1, 0, 0, 0, 0]
    deliver(cube_path, table.assign(dec=[120.0, 20, 20, 20, 20]), tmp_path)
    assert not open_cube(cube_path).read_state("listing").any()


def test_listed_rows_are_remembered() -> None:
    seen = SeenRows()
    assert not seen.has_accepted(np.array([0, -1])).any()
    nothing = np.array([], dtype=np.int64)
    seen.add(np.array([2, 5]), rejected=nothing)
    seen.add(nothing, rejected=np.array([6]))
    assert seen.has_accepted(np.array([-1, 0, 2, 5, 6, 9])).tolist() == [False, False, True, True, False, False]
    assert seen.listed(8).tolist() == [False, False, True, False, False, True, True, False]
    assert seen.listed(3).tolist() == [False, False, True]
    assert seen.n_accepted == 2

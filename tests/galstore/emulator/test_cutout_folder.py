from pathlib import Path

import pandas as pd
import pytest

from galstore.emulator.cutout_folder import CutoutFolder
from galstore.emulator.survey import CutoutQuery
from schemas.errors import CatalogError

FIRST, SECOND = 1237648702973411443, 1237648702994383943


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "catalog.csv").write_text(f"objID,ra,dec,oh_p50\n{FIRST},10.5,-3.25,8.9\n{SECOND},200,45,8.4\n")
    for object_id in (FIRST, SECOND):
        (tmp_path / f"{object_id}.jpg").write_bytes(b"\xff\xd8" + str(object_id).encode() + b"\xff\xd9")
    return tmp_path


def survey_of(folder: Path) -> CutoutFolder:
    return CutoutFolder(catalog=folder / "catalog.csv", cutouts=folder)


def test_objects_are_served_with_the_bytes_of_their_files(folder: Path) -> None:
    survey = survey_of(folder)
    object_id = survey.find(10.5, -3.25)
    assert object_id == FIRST
    for scale in (0.1, 0.396):
        query = CutoutQuery(position_deg=(10.5, -3.25), scale_arcsec=scale, size_px=(64, 64))
        assert survey.cutout(object_id, query) == (folder / f"{FIRST}.jpg").read_bytes()


def test_positions_between_the_objects_are_not_covered(folder: Path) -> None:
    survey = survey_of(folder)
    assert survey.covers(200, 45)
    assert not survey.covers(200, 45.1)


def test_missing_spectrum_ids_are_invented(folder: Path) -> None:
    catalog = survey_of(folder).catalog()
    assert catalog["objID"].tolist() == [FIRST, SECOND]
    assert catalog["specObjID"].min() > 2**53
    assert catalog["specObjID"].is_unique


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"(?=.*catalog\.csv)(?=.*objID, ra, dec)"),
        ("objID,ra,dec\n", r"(?=.*catalog\.csv)(?=.*rows)"),
        ("objID,ra,oh_p50\n1,2,3\n", r"(?=.*\bdec\b)(?=.*objID, ra, oh_p50)"),
        ("objID,ra,dec\n1.23765E+18,2,3\n", r"(?=.*objID)(?=.*'1\.23765E\+18')"),
        ("objID,ra,dec\n1,north,3\n", r"(?=.*\bra\b)(?=.*'north')"),
        ("objID,ra,dec\n1,10,95\n", r"(?=.*\b1 rows)(?=.*objID 1\b)(?=.*\b95\b)"),
        ("objID,ra,dec\n1,10,\n", r"(?=.*\b1 rows)(?=.*objID 1\b)(?=.*\bnan\b)"),
    ],
)
def test_a_broken_catalog_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "catalog.csv").write_text(text)
    with pytest.raises(CatalogError, match=message):
        survey_of(folder)


def test_missing_images_are_counted_and_the_first_is_named(folder: Path) -> None:
    (folder / f"{SECOND}.jpg").unlink()
    with pytest.raises(CatalogError, match=rf"(?=.*\b1 of 2\b)(?=.*\b{SECOND}\.jpg)"):
        survey_of(folder)


def test_a_missing_catalog_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"/none\.csv"):
        CutoutFolder(catalog=tmp_path / "none.csv", cutouts=tmp_path)


def test_ids_survive_to_the_last_digit(folder: Path) -> None:
    table = pd.DataFrame({"objID": [FIRST, FIRST + 1], "ra": [1.0, 2.0], "dec": [0.0, 0.0]})
    table.to_csv(folder / "catalog.csv", index=False)
    (folder / f"{FIRST + 1}.jpg").write_bytes(b"")
    survey = survey_of(folder)
    assert survey.find(2.0, 0.0) == FIRST + 1

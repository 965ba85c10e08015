from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galstore.survey.catalog_files.reader import read_catalog_file
from galstore.survey.row_checks import prepare_catalog, require_kept_rows
from schemas.errors import CatalogError

FIRST_ID = 1237648702973411443


def catalog(**columns: list) -> pd.DataFrame:
    n = len(next(iter(columns.values()), [0]))
    return pd.DataFrame({"objID": FIRST_ID + np.arange(n), "ra": 10.0, "dec": 20.0} | columns)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, unique=True))
def test_ids_beyond_2_53_come_through_a_csv_exactly(tmp_path_factory, ids: list[int]) -> None:
    path = tmp_path_factory.mktemp("csv") / "new.csv"
    pd.DataFrame({"objID": ids, "ra": 1.5, "dec": 2.5}).to_csv(path, index=False)
    assert prepare_catalog(read_catalog_file(path), origin="new.csv").rows["object_id"].tolist() == ids


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1.23764870297341E+18", "damaged_id"),
        ("1237648702973411443.0", "damaged_id"),
        (1.2376487029734114e18, "damaged_id"),
        ("12376487029734114430", "not_an_id"),
        ("galaxy-7", "not_an_id"),
        ("1.5", "not_an_id"),
        ("-3", "not_an_id"),
        (None, "missing"),
        (" ", "missing"),
    ],
)
def test_a_damaged_id_is_rejected_with_its_reason(value: object, reason: str) -> None:
    frame = catalog(ra=[10.0, 11.0]).assign(objID=pd.Series([FIRST_ID, value], dtype=object))
    prepared = prepare_catalog(frame, origin="new.csv")
    assert prepared.rows["object_id"].tolist() == [FIRST_ID]
    assert prepared.rejected[["row", "column", "reason"]].to_numpy().tolist() == [[1, "object_id", reason]]
    assert prepared.rejected["value"].iloc[0] == ("" if value is None else str(value))


def test_small_ids_that_went_through_a_float_are_still_exact() -> None:
    rows = prepare_catalog(catalog(objID=["17.0", "4"]), origin="new.csv").rows
    assert rows["object_id"].tolist() == [17, 4]


def test_a_catalog_with_only_rejected_rows_is_an_error_with_a_remedy() -> None:
    prepared = prepare_catalog(catalog(objID=["1.2376487029734E+18", "7.5"], ra=[1.0, 2.0]), origin="new.csv")
    require_kept_rows(1, prepared.rejected, origin="new.csv")
    message = r"(?=.*new\.csv)(?=.*\b2 rows)(?=.*damaged_id)(?=.*'1\.2376487029734E\+18')(?=.*'object_id')(?=.*2\^53)"
    with pytest.raises(CatalogError, match=message):
        require_kept_rows(0, prepared.rejected, origin="new.csv")


def test_the_sentinel_becomes_missing() -> None:
    rows = prepare_catalog(catalog(oh_p50=[8.9, -9999.0]), origin="survey").rows
    assert rows["oh_p50"].isna().tolist() == [False, True]


def test_rows_that_violate_the_contract_are_rejected_with_column_and_reason() -> None:
    frame = catalog(
        ra=[10.0, 400.0, 10.0, 10.0, 10.0], dec=[0.0, 0.0, None, 0.0, 0.0], modelMag_g=[17.0, 17.0, 17.0, 0.0, 17.0]
    )
    frame.loc[4, "objID"] = FIRST_ID
    prepared = prepare_catalog(frame, origin="survey")
    assert prepared.rows["object_id"].tolist() == [FIRST_ID]
    assert prepared.rejected["object_id"].tolist() == [str(i) for i in [*range(FIRST_ID + 1, FIRST_ID + 4), FIRST_ID]]
    assert prepared.rejected[["row", "column", "reason", "value"]].to_numpy().tolist() == [
        [1, "ra", "out_of_range", "400.0"],
        [2, "dec", "missing", ""],
        [3, "modelMag_g", "out_of_range", "0.0"],
        [4, "object_id", "repeated_id", str(FIRST_ID)],
    ]


def test_text_for_a_number_is_rejected_and_blanks_are_missing() -> None:
    frame = catalog(ra=["10.0", "12h30m", "10.0"], z=["0.05", "0.05", " "])
    prepared = prepare_catalog(frame, origin="new.csv", first_row=50)
    assert prepared.rows["z"].isna().tolist() == [False, True]
    assert prepared.rejected[["row", "column", "reason", "value"]].to_numpy().tolist() == [
        [51, "ra", "not_a_number", "12h30m"]
    ]


def test_columns_are_found_in_any_case() -> None:
    frame = catalog().rename(columns={"objID": "OBJID", "ra": "RA", "dec": "Dec"}).assign(MODELMAG_R=17.0)
    prepared = prepare_catalog(frame, origin="new.csv")
    assert prepared.rows.columns.tolist() == ["object_id", "ra", "dec", "modelMag_r"]


def test_accepted_and_rejected_rows_add_up() -> None:
    rng = np.random.default_rng(0)
    frame = catalog(ra=rng.uniform(-100, 500, 300).tolist())
    frame["objID"] = FIRST_ID + rng.integers(0, 200, 300)
    prepared = prepare_catalog(frame, origin="survey")
    assert len(prepared.rows) + len(prepared.rejected) == 300
    assert prepared.rows["object_id"].is_unique


def test_columns_without_a_contract_are_reported() -> None:
    assert prepare_catalog(catalog(colour=["red"]), origin="survey").ignored_columns == ("colour",)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (catalog().iloc[:0], r"(?=.*new\.csv)(?=.*rows)"),
        (catalog().drop(columns="objID"), r"(?=.*new\.csv)(?=.*object_id, objID)"),
        (catalog().drop(columns=["ra", "dec"]), r"(?=.*new\.csv)(?=.*\bra\b)(?=.*\bdec\b)"),
    ],
)
def test_an_unusable_catalog_is_an_error(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        prepare_catalog(frame, origin="new.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"(?=.*/new\.csv)(?=.*CSV, ECSV)"),
        (b"", r"object_id, ra, dec$"),
        (b'objID,ra\n"1,2\n3', r"CSV"),
        (b"\xff\xfe\x00\xd8", r"CSV"),
    ],
)
def test_a_file_that_is_not_a_catalog_is_an_error(tmp_path, content: bytes | None, message: str) -> None:
    path = tmp_path / "new.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        read_catalog_file(path)

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galstore.catalog import parse_ids, prepare_catalog
from galstore.services.catalogfile import read_catalog_file
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
    ("values", "told"),
    [
        (["1.23764870297341E+18"], r"id '1\.23764870297341E\+18' .* decimal number beyond 2\^53, so its last digits"),
        (["1237648702973411443.0"], r"decimal number beyond 2\^53"),
        ([1.2376487029734114e18], r"decimal number beyond 2\^53"),
        (["12376487029734114430"], r"ids beyond 64 bits"),
        (["galaxy-7"], r"id 'galaxy-7' in column 'objID' is no integer"),
        ([None], r"is no integer: give every row a whole-number id"),
        (["1.5"], r"id '1\.5' in column 'objID' is no integer"),
    ],
)
def test_damaged_ids_are_refused(values: list, told: str) -> None:
    with pytest.raises(CatalogError, match=told):
        parse_ids(pd.Series(values), name="objID", origin="new.csv")


def test_small_ids_that_went_through_a_float_are_still_exact() -> None:
    assert parse_ids(pd.Series(["17.0", "4"]), name="id", origin="new.csv").tolist() == [17, 4]


def test_the_sentinel_becomes_missing() -> None:
    rows = prepare_catalog(catalog(oh_p50=[8.9, -9999.0]), origin="survey").rows
    assert rows["oh_p50"].isna().tolist() == [False, True]


def test_rows_that_contradict_the_contract_are_returned_with_column_and_reason() -> None:
    frame = catalog(
        ra=[10.0, 400.0, 10.0, 10.0, 10.0], dec=[0.0, 0.0, None, 0.0, 0.0], modelMag_g=[17.0, 17.0, 17.0, 0.0, 17.0]
    )
    frame.loc[4, "objID"] = FIRST_ID
    prepared = prepare_catalog(frame, origin="survey")
    assert prepared.rows["object_id"].tolist() == [FIRST_ID]
    assert prepared.rejected["object_id"].tolist() == [str(i) for i in [*range(FIRST_ID + 1, FIRST_ID + 4), FIRST_ID]]
    assert prepared.rejected[["row", "column", "reason"]].to_numpy().tolist() == [
        [1, "ra", "outside 0 to 360: 400.0"],
        [2, "dec", "missing"],
        [3, "modelMag_g", "outside 0.01 to 40: 0.0"],
        [4, "object_id", "repeats an object id"],
    ]


def test_kept_and_rejected_rows_add_up() -> None:
    rng = np.random.default_rng(0)
    frame = catalog(ra=rng.uniform(-100, 500, 300).tolist())
    frame["objID"] = FIRST_ID + rng.integers(0, 200, 300)
    prepared = prepare_catalog(frame, origin="survey")
    assert len(prepared.rows) + len(prepared.rejected) == 300
    assert prepared.rows["object_id"].is_unique


def test_columns_without_a_contract_are_named() -> None:
    assert prepare_catalog(catalog(colour=["red"]), origin="survey").ignored_columns == ("colour",)


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (catalog().iloc[:0], "new.csv has no rows"),
        (catalog().drop(columns="objID"), "new.csv has no object id: call its column one of object_id, objID"),
        (catalog().drop(columns=["ra", "dec"]), "new.csv has no column ra and no column dec: cutouts are asked for by"),
        (catalog(ra=["12h30m"]), "column 'ra' has 1 values that are no numbers, the first is '12h30m'"),
    ],
)
def test_a_catalog_that_cannot_be_used_says_why(frame: pd.DataFrame, told: str) -> None:
    with pytest.raises(CatalogError, match=told):
        prepare_catalog(frame, origin="new.csv")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, r"does not exist: give the path of a CSV"),
        (b"", r"is empty: it needs a header line"),
        (b'objID,ra\n"1,2\n3', r"is not a CSV"),
        (b"\xff\xfe\x00\xd8", r"is not a CSV"),
    ],
)
def test_a_file_that_is_no_catalog_says_why(tmp_path, content: bytes | None, told: str) -> None:
    path = tmp_path / "new.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CatalogError, match=told):
        read_catalog_file(path)

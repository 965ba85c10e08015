from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pandas as pd
import pytest

from galstore.emulator.database import SqlError, SurveyDatabase
from galstore.emulator.sky.simulated import SimulatedSky
from schemas.errors import QueryRefusedError
from schemas.selection import QUERY_COLUMNS, QUERY_TABLES, SELECTIONS

COLUMNS = ", ".join(QUERY_COLUMNS.values())


@pytest.fixture(scope="module")
def sky() -> SimulatedSky:
    return SimulatedSky(seed=5, n_galaxies=1_500, n_new=0)


@pytest.fixture(scope="module")
def database(sky: SimulatedSky) -> Iterator[SurveyDatabase]:
    with closing(SurveyDatabase(sky.catalog())) as opened:
        yield opened


def test_paging_by_id_delivers_what_count_promises(database: SurveyDatabase) -> None:
    where = SELECTIONS["wu_boada_2019"].sql
    ((promised,),) = database.query_rows(f"SELECT COUNT(*) AS n FROM {QUERY_TABLES} WHERE {where}").rows
    seen: list[tuple[int, int]] = []
    last = (0, 0)
    while True:
        beyond = f"(G.objID > {last[0]} OR (G.objID = {last[0]} AND S.specObjID > {last[1]}))"
        page = database.query_rows(
            f"SELECT TOP 400 G.objID, S.specObjID FROM {QUERY_TABLES} WHERE {where} AND {beyond} "
            "ORDER BY G.objID, S.specObjID"
        ).rows
        if not page:
            break
        assert len(page) <= 400
        seen += page
        last = page[-1]
    assert len(seen) == len(set(seen)) == promised
    assert 1_300 < promised < 1_500


def test_answers_hold_the_catalogs_values(sky: SimulatedSky, database: SurveyDatabase) -> None:
    result = database.query_rows(f"SELECT {COLUMNS} FROM {QUERY_TABLES}")
    assert result.columns == tuple(QUERY_COLUMNS)
    got = pd.DataFrame(result.rows, columns=result.columns).sort_values("specObjID").reset_index(drop=True)
    expected = sky.catalog()[list(QUERY_COLUMNS)].sort_values("specObjID").reset_index(drop=True)
    pd.testing.assert_frame_equal(got.astype(expected.dtypes), expected, check_exact=True)


def test_missing_values_become_null() -> None:
    table = pd.DataFrame(
        {"objID": [1, 2], "specObjID": [3, 4], "ra": [0.0, 1], "dec": [0.0, 1], "oh_p50": [8.9, np.nan]}
    )
    with closing(SurveyDatabase(table)) as database:
        assert database.query_rows("SELECT E.oh_p50 FROM galSpecExtra E").rows == [(8.9,), (None,)]


@pytest.mark.parametrize("top", ["TOP 7", "top (7)", "DISTINCT TOP 7"])
def test_top_limits_the_rows(database: SurveyDatabase, top: str) -> None:
    assert len(database.query_rows(f"select {top} objID from Galaxy").rows) == 7


@pytest.mark.parametrize(
    "command", ["DROP TABLE Galaxy", "", "  ", "UPDATE Galaxy SET ra = 0", "PRAGMA table_info(Galaxy)", "-- SELECT"]
)
def test_anything_but_a_select_is_refused(database: SurveyDatabase, command: str) -> None:
    with pytest.raises(QueryRefusedError, match="SELECT"):
        database.query_rows(command)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("SELECT brightness FROM Galaxy", "no such column: brightness"),
        ("SELECT objID FROM Stars", "no such table: Stars"),
        ("SELECT 1; DROP TABLE Galaxy", "one statement at a time"),
        ("SELECT objID FROM", "syntax error"),
        ("SELECT load_extension('x')", "not authorized|no such function"),
    ],
)
def test_wrong_sql_is_an_error(database: SurveyDatabase, command: str, message: str) -> None:
    with pytest.raises(SqlError, match=message):
        database.query_rows(command)


def test_comments_and_a_final_semicolon_are_no_harm(database: SurveyDatabase) -> None:
    assert database.query_rows("/* how many */ SELECT COUNT(*) FROM Galaxy -- all\n;").rows[0][0] == 1_500

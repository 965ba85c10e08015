"""The survey's database: SDSS's tables in an in-memory SQLite, asked in the SELECTs of SkyServer's SQL search."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from schemas.catalog import COLUMN
from schemas.errors import ContractError, QueryRefusedError
from schemas.selection import QUERY_COLUMNS

MAX_ROWS = 500_000
"""SkyServer puts TOP 500000 into a query without it, and says nothing."""

QUERY_SECONDS = 60.0
"""Longest query, seconds; the real service allows 600."""

_TABLE_OF_ALIAS = {
    "S": "SpecObj",
    "G": "Galaxy",
    "L": "galSpecLine",
    "I": "galSpecInfo",
    "X": "galSpecIndx",
    "E": "galSpecExtra",
}
_TOP = re.compile(r"^(SELECT\s+(?:ALL\s+|DISTINCT\s+)?)TOP\s*\(?\s*(\d+)\s*\)?\s", re.IGNORECASE)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}


class SqlError(ContractError):
    """The database does not understand the query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Column names and rows of an answer."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class SurveyDatabase:
    """SpecObj, Galaxy and the galSpec tables of one catalog.

    Parameters
    ----------
    catalog
        One row a spectrum, under SDSS's column names, with `objID`, `specObjID`, `ra` and `dec` at least. Columns that
        it lacks are missing from the tables; NaN becomes NULL.
    """

    def __init__(self, catalog: pd.DataFrame) -> None:
        # queries run in one thread that is not the one which fills the tables
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        for alias, table in _TABLE_OF_ALIAS.items():
            self._fill(table, _table_of(catalog, alias))
        self._connection.execute("CREATE INDEX best_object ON SpecObj (bestObjID)")
        self._connection.set_authorizer(_allow_reading_only)

    def _fill(self, table: str, columns: dict[str, list[Any]]) -> None:
        key = next(iter(columns))
        names = ", ".join(f'"{name}" INTEGER PRIMARY KEY' if name == key else f'"{name}"' for name in columns)
        marks = ", ".join("?" * len(columns))
        self._connection.execute("BEGIN")
        self._connection.execute(f"CREATE TABLE {table} ({names})")
        # S608: the names are those of schemas.selection, not a client's
        insert = f"INSERT OR IGNORE INTO {table} VALUES ({marks})"  # noqa: S608
        self._connection.executemany(insert, zip(*columns.values(), strict=True))
        self._connection.execute("COMMIT")

    def query_rows(self, command: str) -> Answer:
        """Answer a SELECT.

        Parameters
        ----------
        command
            One SELECT as SkyServer takes it; `TOP n` limits the rows, and 500,000 do where it is missing.

        Raises
        ------
        QueryRefusedError
            Not a SELECT, or nothing at all.
        SqlError
            The database does not understand it, or it takes too long.
        """
        statement = _COMMENT.sub(" ", command).strip().rstrip(";").strip()
        if not re.match(r"SELECT\b", statement, re.IGNORECASE):
            raise QueryRefusedError(f"only SELECT statements are allowed, got {command.strip()[:60]!r}: send a SELECT")
        top = _TOP.match(statement)
        n_rows = min(int(top.group(2)), MAX_ROWS) if top else MAX_ROWS
        if top:
            statement = top.group(1) + statement[top.end() :]
        deadline = time.monotonic() + QUERY_SECONDS
        self._connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
        try:
            cursor = self._connection.execute(f"{statement} LIMIT {n_rows}")
            rows = cursor.fetchall()
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise SqlError(str(error)) from error
        return Answer(columns=tuple(column[0] for column in cursor.description), rows=rows)

    def close(self) -> None:
        self._connection.close()


def _allow_reading_only(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


def _table_of(catalog: pd.DataFrame, alias: str) -> dict[str, list[Any]]:
    """Columns of one table, its key first."""
    key = "objID" if alias == "G" else "specObjID"
    columns: dict[str, list[Any]] = {key: _values(catalog[key])}
    if alias == "S":
        columns["bestObjID"] = _values(catalog["objID"])
        # SDSS's spectrum ids hold the day of the observation in 14 bits, as MJD - 50,000
        columns["mjd"] = _values(catalog["specObjID"] // 2**24 % 2**14 + 50_000)
        if "rChi2" in catalog:
            columns["rChi2"] = _values(catalog["rChi2"])
    for name, place in QUERY_COLUMNS.items():
        home, _, column = place.partition(".")
        if home == alias and name in catalog and column not in columns:
            columns[column] = _values(catalog[name])
    return columns


def _values(column: pd.Series[Any]) -> list[Any]:
    if column.dtype.kind in "iu":
        return [int(value) for value in column]
    narrow = column.dtype == np.float32 or (column.name in COLUMN and COLUMN[str(column.name)].dtype == "float32")
    # the shortest decimals of a 32-bit number, so that 17.1 is told as 17.1 and not as 17.1000003814697
    texts: Iterable[str] = column.to_numpy(np.float32 if narrow else np.float64).astype(str)
    return [None if text == "nan" else float(text) for text in texts]

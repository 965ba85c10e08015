"""SQL search of SkyServer: SQLite database with SDSS's tables, rate limit, output formats and error replies."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import sqlite3
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from aiohttp import web

from galstore.emulator import fault_effects as effects
from schemas.catalog import COLUMN
from schemas.errors import ContractError, QueryRefusedError
from schemas.selection import QUERY_COLUMNS

MAX_ROWS = 500_000
"""Row limit that SkyServer applies silently to queries without TOP."""

QUERY_TIMEOUT_S = 60.0
"""Time limit of a query; 600 s on the real service."""

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
_READ_ACTIONS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}

SqlValue = int | float | str | None


class SqlError(ContractError):
    """Query that is invalid or takes too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """Column names and rows."""

    columns: tuple[str, ...]
    rows: list[tuple[SqlValue, ...]]


class SurveyDatabase:
    """Tables SpecObj, Galaxy and galSpec* of the catalog of a `Survey`; NaN becomes NULL."""

    def __init__(self, catalog: pd.DataFrame) -> None:
        # the thread of the queries is not the thread that fills the tables
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        for alias, table in _TABLE_OF_ALIAS.items():
            self._fill(table, _table_of(catalog, alias))
        self._connection.execute("CREATE INDEX best_object ON SpecObj (bestObjID)")
        self._connection.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in _READ_ACTIONS else sqlite3.SQLITE_DENY
        )

    def _fill(self, table: str, columns: dict[str, list[SqlValue]]) -> None:
        key = next(iter(columns))
        names = ", ".join(f'"{name}" INTEGER PRIMARY KEY' if name == key else f'"{name}"' for name in columns)
        placeholders = ", ".join("?" * len(columns))
        self._connection.execute("BEGIN")
        self._connection.execute(f"CREATE TABLE {table} ({names})")
        # S608: the names come from schemas.selection, not from a client
        insert = f"INSERT OR IGNORE INTO {table} VALUES ({placeholders})"  # noqa: S608
        self._connection.executemany(insert, zip(*columns.values(), strict=True))
        self._connection.execute("COMMIT")

    def query_rows(self, command: str) -> QueryResult:
        """Run a SELECT statement in SkyServer's dialect; `TOP n` limits the rows, to 500,000 by default.

        Raises
        ------
        QueryRefusedError
            The command is empty or not a SELECT.
        SqlError
            The statement is invalid or takes too long.
        """
        statement = _COMMENT.sub(" ", command).strip().rstrip(";").strip()
        if not re.match(r"SELECT\b", statement, re.IGNORECASE):
            raise QueryRefusedError(f"only SELECT statements are allowed, got {command.strip()[:60]!r}: send a SELECT")
        top = _TOP.match(statement)
        n_rows = min(int(top.group(2)), MAX_ROWS) if top else MAX_ROWS
        statement = top.group(1) + statement[top.end() :] if top else statement
        deadline = time.monotonic() + QUERY_TIMEOUT_S
        self._connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
        try:
            cursor = self._connection.execute(f"{statement} LIMIT {n_rows}")
            rows = cursor.fetchall()
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise SqlError(str(error)) from error
        return QueryResult(columns=tuple(column[0] for column in cursor.description), rows=rows)

    def close(self) -> None:
        self._connection.close()


def _table_of(catalog: pd.DataFrame, alias: str) -> dict[str, list[SqlValue]]:
    """Return the columns of one table, its key first."""
    key = "objID" if alias == "G" else "specObjID"
    columns: dict[str, list[SqlValue]] = {key: _values(catalog[key])}
    if alias == "S":
        columns["bestObjID"] = _values(catalog["objID"])
        # SDSS's spectrum ids contain MJD - 50,000 in 14 bits
        columns["mjd"] = _values(catalog["specObjID"] // 2**24 % 2**14 + 50_000)
        if "rChi2" in catalog:
            columns["rChi2"] = _values(catalog["rChi2"])
    for name, source in QUERY_COLUMNS.items():
        table, _, column = source.partition(".")
        if table == alias and name in catalog and column not in columns:
            columns[column] = _values(catalog[name])
    return columns


def _values(column: pd.Series[Any]) -> list[SqlValue]:
    if column.dtype.kind in "iu":
        return [int(value) for value in column]
    is_float32 = column.dtype == np.float32 or (column.name in COLUMN and COLUMN[str(column.name)].dtype == "float32")
    # shortest decimals of a 32-bit number: 17.1 instead of 17.1000003814697
    texts: Iterable[str] = column.to_numpy(np.float32 if is_float32 else np.float64).astype(str)
    return [None if text == "nan" else float(text) for text in texts]


class QueryRoutes:
    """Handler of the two addresses of the SQL search; queries above the limit get the reply of the real service."""

    def __init__(self, catalog: pd.DataFrame, *, queries_per_minute: int | None) -> None:
        self._database = SurveyDatabase(catalog)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sql")
        self._limit = queries_per_minute
        self._query_times_s: deque[float] = deque()

    async def search(self, request: web.Request) -> web.Response:
        """Respond to `?cmd=SELECT…&format=csv|json`; unknown parameters are ignored."""
        parameters = {name.lower(): value for name, value in request.query.items()}
        output_format = parameters.get("format", "csv").lower()
        if output_format not in _WRITERS:
            return effects.json_error(400, f"format {output_format!r} is not offered by this emulator: use csv or json")
        write, loop = _WRITERS[output_format], asyncio.get_running_loop()
        try:
            self._count_query()
            result = await loop.run_in_executor(self._thread, self._database.query_rows, parameters.get("cmd", ""))
        except QueryRefusedError as error:
            # SkyServer refuses with 200 and one column that holds the message
            return write(QueryResult(columns=("error_message",), rows=[(str(error),)]))
        except SqlError as error:
            return effects.json_error(500, f"SQL error: {error}")
        return write(result)

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        self._database.close()

    def _count_query(self) -> None:
        if self._limit is None:
            return
        now_s = time.monotonic()
        while self._query_times_s and self._query_times_s[0] <= now_s - 60:
            self._query_times_s.popleft()
        if len(self._query_times_s) >= self._limit:
            raise QueryRefusedError(f"Maximum {self._limit} queries allowed per minute. Rejected query: try later")
        self._query_times_s.append(now_s)


def _write_csv(result: QueryResult) -> web.Response:
    text = io.StringIO()
    text.write("#Table1\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(result.columns)
    writer.writerows([[_csv_value(value) for value in row] for row in result.rows])
    return web.Response(text=text.getvalue(), content_type="text/csv")


def _csv_value(value: SqlValue) -> SqlValue:
    if value is None:
        return "null"
    # SQL Server prints whole numbers without a point, such as -9999
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def _write_json(result: QueryResult) -> web.Response:
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    return web.json_response([{"TableName": "Table1", "Rows": rows}])


_WRITERS = {"csv": _write_csv, "json": _write_json}

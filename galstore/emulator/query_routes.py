"""SQL search of SkyServer: rate limit, output formats and error replies."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from aiohttp import web

from galstore.emulator.database import QueryResult, SqlError, SqlValue, SurveyDatabase
from schemas.errors import QueryRefusedError


class QueryRoutes:
    """Handler of the two addresses of the SQL search.

    Parameters
    ----------
    catalog
        Catalog for `SurveyDatabase`.
    queries_per_minute
        Limit of queries per minute; None means no limit. Further queries get the reply of the real service.
    """

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
            return json_error(400, f"format {output_format!r} is not offered by this emulator: use csv or json")
        write = _WRITERS[output_format]
        try:
            self._count_query()
            result = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._database.query_rows, parameters.get("cmd", "")
            )
        except QueryRefusedError as error:
            # SkyServer refuses with 200 and one column that holds the message
            return write(QueryResult(columns=("error_message",), rows=[(str(error),)]))
        except SqlError as error:
            return json_error(500, f"SQL error: {error}")
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


def json_error(status: int, message: str) -> web.Response:
    """Return an error in SkyServer's JSON layout."""
    kind = {400: "BadRequest", 500: "InternalServerError"}[status]
    return web.json_response({"ErrorCode": status, "ErrorType": kind, "ErrorMessage": message}, status=status)


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

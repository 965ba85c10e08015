"""The SQL search as SkyServer offers it: what it answers, how it prints, and how it refuses."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
from aiohttp import web

from galstore.emulator.database import Answer, SqlError, SurveyDatabase
from schemas.errors import QueryRefusedError


class QueryRoutes:
    """Handlers of the two addresses of the SQL search, over one catalog.

    Parameters
    ----------
    catalog
        As of `SurveyDatabase`.
    queries_per_minute
        Queries allowed within a minute; more are refused as the real service refuses them. None allows any number.
    """

    def __init__(self, catalog: pd.DataFrame, *, queries_per_minute: int | None) -> None:
        self._database = SurveyDatabase(catalog)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sql")
        self._allowed = queries_per_minute
        self._asked: deque[float] = deque()

    async def search(self, request: web.Request) -> web.Response:
        """Answer `?cmd=SELECT…&format=csv|json`; unknown parameters are ignored."""
        query = {name.lower(): value for name, value in request.query.items()}
        style = query.get("format", "csv").lower()
        if style not in _WRITERS:
            return json_error(400, f"format {style!r} is not offered by this emulator: ask for csv or json")
        write = _WRITERS[style]
        try:
            self._count_query()
            answer = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._database.query_rows, query.get("cmd", "")
            )
        except QueryRefusedError as refusal:
            # a refusal looks like an answer: 200, and one column that says why
            return write(Answer(columns=("error_message",), rows=[(str(refusal),)]))
        except SqlError as error:
            return json_error(500, f"SQL error: {error}")
        return write(answer)

    def close(self) -> None:
        """End the thread and forget the tables."""
        self._thread.shutdown(wait=True)
        self._database.close()

    def _count_query(self) -> None:
        if self._allowed is None:
            return
        now = time.monotonic()
        while self._asked and self._asked[0] <= now - 60:
            self._asked.popleft()
        if len(self._asked) >= self._allowed:
            raise QueryRefusedError(f"Maximum {self._allowed} queries allowed per minute. Rejected query: try later")
        self._asked.append(now)


def json_error(status: int, message: str) -> web.Response:
    """An error in the shape of SkyServer's: its code, type and message as JSON."""
    kind = {400: "BadRequest", 500: "InternalServerError"}[status]
    return web.json_response({"ErrorCode": status, "ErrorType": kind, "ErrorMessage": message}, status=status)


def _as_csv(answer: Answer) -> web.Response:
    text = io.StringIO()
    text.write("#Table1\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows([[_printed(value) for value in row] for row in answer.rows])
    return web.Response(text=text.getvalue(), content_type="text/csv")


def _printed(value: Any) -> Any:
    if value is None:
        return "null"
    # whole numbers lose their point, as SQL Server prints -9999
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def _as_json(answer: Answer) -> web.Response:
    rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    return web.json_response([{"TableName": "Table1", "Rows": rows}])


_WRITERS = {"csv": _as_csv, "json": _as_json}

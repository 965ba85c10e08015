"""SDSS SkyServer's catalog: SQL through astroquery, page by page.

Source: the service's SQL search page (skyserver.sdss.org, DR14 onwards).
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import requests
from astroquery.sdss import SDSSClass
from astroquery.sdss import conf as sdss_conf
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from galstore.survey.skyserver import SkyServer
from schemas.errors import QueryRefusedError, RecipeError, ServiceError
from schemas.selection import QUERY_COLUMNS, QUERY_TABLES, Selection

QUERY_TIMEOUT_S = 600
"""The service ends a query after this long."""

INTEGER_COLUMNS = ("objID", "specObjID", "n_rows")
"""Columns that a float would damage."""

WHOLE_NUMBER = re.compile(r"\s*[+-]?\d{1,19}\s*", re.ASCII)

LONGEST_TOLD = 500
"""Characters kept of what a service says in place of a table."""


def build_query(selection: Selection, columns: Sequence[str], *, top: int, after: tuple[int, int] | None = None) -> str:
    """SQL of one page of the catalog.

    Pages go by (objID, specObjID), since a galaxy that was observed on two plates has one objID and two rows, which
    must not fall between two pages.

    Parameters
    ----------
    selection
        Which galaxies.
    columns
        Names out of `QUERY_COLUMNS`; objID and specObjID are always asked for.
    top
        Rows of a page.
    after
        objID and specObjID of the last row of the page before.

    Examples
    --------
    >>> from schemas.selection import SELECTIONS
    >>> build_query(SELECTIONS["labelled"], ["ra"], top=10, after=(5, 6))[:42]
    'SELECT TOP 10 G.objID, S.specObjID, G.ra F'
    """
    unknown = [name for name in columns if name not in QUERY_COLUMNS]
    if unknown:
        raise RecipeError(f"survey.columns: {unknown} are not among the columns that SkyServer is asked for")
    names = list(dict.fromkeys(["objID", "specObjID", *columns]))
    where = selection.sql
    if after is not None:
        where += f" AND (G.objID > {after[0]} OR (G.objID = {after[0]} AND S.specObjID > {after[1]}))"
    # S608: names and cuts come from schemas.selection, numbers are integers; no part is a user's text
    wanted = ", ".join(QUERY_COLUMNS[name] for name in names)
    return f"SELECT TOP {top} {wanted} FROM {QUERY_TABLES} WHERE {where} ORDER BY G.objID, S.specObjID"  # noqa: S608


def count_catalog(service: SkyServer, selection: Selection) -> int:
    """How many rows the selection has at the service."""
    answer = query_sql(service, f"SELECT COUNT(*) AS n_rows FROM {QUERY_TABLES} WHERE {selection.sql}")  # noqa: S608
    _require_columns(answer, ("n_rows",), service)
    if len(answer) != 1 or answer["n_rows"].iloc[0] < 0:
        raise ServiceError(
            f"the survey at {service.base_url} answered the count of the catalog with {answer['n_rows'].tolist()[:3]}, "
            "not with one number: try again later"
        )
    return int(answer["n_rows"].iloc[0])


def query_catalog(
    service: SkyServer, selection: Selection, *, columns: Sequence[str], limit: int = 0, page_rows: int = 50_000
) -> Iterator[pd.DataFrame]:
    """The catalog in pages, ordered by objID.

    Parameters
    ----------
    limit
        At most so many rows; 0 = all.
    page_rows
        Rows a query. The service cuts every answer at 500,000 rows without a word.

    Yields
    ------
    pandas.DataFrame
        Columns as asked for, with objID and specObjID as 64-bit integers; no page is empty.

    Raises
    ------
    ServiceError
        The service cannot be reached or answers with something else than a table, also after retries; or it gives the
        same page again.
    QueryRefusedError
        The service refuses the query.
    """
    after, received = None, 0
    while not limit or received < limit:
        top = min(page_rows, limit - received) if limit else page_rows
        page = query_sql(service, build_query(selection, columns, top=top, after=after))
        if not page.empty:
            received += len(page)
            _require_columns(page, ("objID", "specObjID"), service)
            last = (int(page["objID"].iloc[-1]), int(page["specObjID"].iloc[-1]))
            if after is not None and last <= after:
                raise ServiceError(
                    f"the survey at {service.base_url} gives the rows up to objID {last[0]} again where those behind "
                    f"{after[0]} were asked for: check survey.base_url, or try again later"
                )
            after = last
            yield page
        if len(page) < top:
            return


@retry(
    retry=retry_if_exception_type(ServiceError),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(multiplier=0.5, max=30),
    reraise=True,
)
def query_sql(service: SkyServer, sql: str) -> pd.DataFrame:
    """One SQL query through astroquery, tried four times, and its answer as a table.

    Raises
    ------
    ServiceError, QueryRefusedError
        As of `parse_answer`; or the service does not answer.
    """
    return ask_sql(service, sql)


def ask_sql(service: SkyServer, sql: str, *, timeout_s: float = QUERY_TIMEOUT_S) -> pd.DataFrame:
    """The same, tried once.

    astroquery itself looks neither at the HTTP status nor at the type of the body, so both are judged here.
    """
    with sdss_conf.set_temp("skyserver_baseurl", service.base_url):
        try:
            response = SDSSClass().query_sql_async(
                sql, data_release=service.data_release, timeout=timeout_s, cache=False
            )
        except (requests.RequestException, TimeoutError) as error:
            raise ServiceError(
                f"the survey at {service.base_url} does not answer ({type(error).__name__}): check survey.base_url and "
                "the network, or try again later"
            ) from error
    return parse_answer(response.text, status=response.status_code, base_url=service.base_url)


def parse_answer(text: str, *, status: int, base_url: str) -> pd.DataFrame:
    """The table in the CSV answer of SkyServer's SQL search.

    Raises
    ------
    QueryRefusedError
        Status 200 with the one column error_message, or an SQL error (status 500 with JSON).
    ServiceError
        Anything else that is not a table: an outage page, an empty body, rows of other lengths, ids that are none.
    """
    if status != 200:
        message = _json_error(text)
        if message:
            raise QueryRefusedError(f"the survey at {base_url} cannot run the query: {message}")
        raise ServiceError(f"the survey at {base_url} answered the catalog query with status {status}: try again later")
    # lines end where a CSV's do: str.splitlines would cut fields at U+0085 and U+2028 too
    lines = io.StringIO(text.lstrip("\ufeff"), newline=None)
    if not lines.readline().startswith("#Table"):
        raise ServiceError(
            f"the survey at {base_url} answered the catalog query with something that is no table "
            f"({text[:60]!r}): try again later"
        )
    first_row = lines.tell()
    if lines.readline().strip() == "error_message":
        raise QueryRefusedError(f"the survey at {base_url} refuses the query: {_on_one_line(lines.read())}")
    lines.seek(first_row)
    return _read_table(lines, base_url)


def _read_table(lines: io.StringIO, base_url: str) -> pd.DataFrame:
    with warnings.catch_warnings():
        # rows that are all longer than the header
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table = pd.read_csv(
                lines,
                # as text: one id with a point or an exponent makes floats of all, and damages every one
                dtype=dict.fromkeys(INTEGER_COLUMNS, str),
                # else a first column too many would be taken for row names, and every name would slip by one
                index_col=False,
                # one type for a column, and no warning that it has several
                low_memory=False,
            )
            for name in INTEGER_COLUMNS:
                if name in table:
                    table[name] = _whole_numbers(table[name])
        except (ValueError, OverflowError, pd.errors.ParserWarning) as error:
            raise ServiceError(
                f"the survey at {base_url} answered the catalog query with a table that is damaged "
                f"({_on_one_line(str(error))}): try again later"
            ) from error
    return table


def _whole_numbers(texts: pd.Series[Any]) -> npt.NDArray[np.int64]:
    for text in texts:
        if not isinstance(text, str) or not WHOLE_NUMBER.fullmatch(text):
            raise ValueError(f"{texts.name} is {str(text)[:60]!r} where a whole number is expected")
    return np.array([int(text) for text in texts], dtype=np.int64)


def _require_columns(answer: pd.DataFrame, names: Sequence[str], service: SkyServer) -> None:
    missing = [name for name in names if name not in answer]
    if missing:
        raise ServiceError(
            f"the survey at {service.base_url} answered the catalog query without column {missing[0]!r} (columns "
            f"found: {_on_one_line(', '.join(map(str, answer.columns)))}): check survey.base_url, or try again later"
        )


def _on_one_line(told: str) -> str:
    return " ".join(told.split())[:LONGEST_TOLD]


def _json_error(text: str) -> str | None:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        # no JSON, a number of more digits than Python reads, or lists in lists without end
        return None
    return _on_one_line(str(answer["ErrorMessage"])) if isinstance(answer, dict) and "ErrorMessage" in answer else None

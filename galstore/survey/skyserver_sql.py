"""SDSS SkyServer's catalog: SQL through astroquery, page by page.

Source: the service's SQL search page (skyserver.sdss.org, DR14 onwards).
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence

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
"""The service ends a query after this time."""

INTEGER_COLUMNS = ("objID", "specObjID", "n_rows")
"""Columns that a conversion to float would damage."""

INTEGER = re.compile(r"\s*[+-]?\d{1,19}\s*", re.ASCII)

MAX_MESSAGE_CHARACTERS = 500
"""Characters of a service's message that an error repeats."""

logger = logging.getLogger(__name__)


def build_query(selection: Selection, columns: Sequence[str], *, top: int, after: tuple[int, int] | None = None) -> str:
    """Build the SQL for one page of the catalog.

    Pages are ordered by (objID, specObjID): a galaxy observed on two plates has one objID and two rows, and neither may
    be lost between two pages.

    `columns` are from `QUERY_COLUMNS`; objID and specObjID are always added. `top` is the number of rows per page, and
    `after` holds objID and specObjID of the previous page's last row.

    Examples
    --------
    >>> from schemas.selection import SELECTIONS
    >>> build_query(SELECTIONS["labelled"], ["ra"], top=10, after=(5, 6))[:42]
    'SELECT TOP 10 G.objID, S.specObjID, G.ra F'
    """
    unknown = [name for name in columns if name not in QUERY_COLUMNS]
    if unknown:
        raise RecipeError(
            f"survey.columns: {unknown} are not columns of the SkyServer query: choose from schemas/selection.py"
        )
    names = list(dict.fromkeys(["objID", "specObjID", *columns]))
    where = selection.sql
    if after is not None:
        where += f" AND (G.objID > {after[0]} OR (G.objID = {after[0]} AND S.specObjID > {after[1]}))"
    # S608: names and cuts come from schemas.selection, numbers are integers; no part is a user's text
    expressions = ", ".join(QUERY_COLUMNS[name] for name in names)
    return f"SELECT TOP {top} {expressions} FROM {QUERY_TABLES} WHERE {where} ORDER BY G.objID, S.specObjID"  # noqa: S608


def count_catalog(service: SkyServer, selection: Selection) -> int:
    """Query the number of rows in a selection."""
    table = query_sql(service, f"SELECT COUNT(*) AS n_rows FROM {QUERY_TABLES} WHERE {selection.sql}")  # noqa: S608
    _require_columns(table, ("n_rows",), service)
    if len(table) != 1 or table["n_rows"].iloc[0] < 0:
        raise ServiceError(
            f"the survey at {service.base_url} answered the count of the catalog with {table['n_rows'].tolist()[:3]}, "
            "not with one number: try again later"
        )
    return int(table["n_rows"].iloc[0])


def query_catalog(
    service: SkyServer, selection: Selection, *, columns: Sequence[str], limit: int = 0, page_rows: int = 50_000
) -> Iterator[pd.DataFrame]:
    """Query the catalog page by page, ordered by objID; at most `limit` rows, 0 = all.

    Pages have the columns, with objID and specObjID as 64-bit integers, and are never empty. The service silently cuts
    every result at 500,000 rows.

    Raises
    ------
    ServiceError
        After retries, the service is unreachable or does not send a table; or it repeats a page.
    QueryRefusedError
        The service refuses the query.
    """
    after, n_rows = None, 0
    while not limit or n_rows < limit:
        top = min(page_rows, limit - n_rows) if limit else page_rows
        page = query_sql(service, build_query(selection, columns, top=top, after=after))
        if not page.empty:
            n_rows += len(page)
            _require_columns(page, ("objID", "specObjID"), service)
            last = (int(page["objID"].iloc[-1]), int(page["specObjID"].iloc[-1]))
            if after is not None and last <= after:
                raise ServiceError(
                    f"the survey at {service.base_url} repeats the rows up to objID {last[0]} instead of rows after "
                    f"{after[0]}: check survey.base_url, or try again later"
                )
            after = last
            logger.info("catalog of %s: %d rows so far", service.base_url, n_rows)
            yield page
        if len(page) < top:
            return


def query_sql_once(service: SkyServer, sql: str, *, timeout_s: float = QUERY_TIMEOUT_S) -> pd.DataFrame:
    """Run one SQL query through astroquery, without retries; errors as in `parse_table`.

    astroquery checks neither the HTTP status nor the type of the body; `parse_table` checks both.
    """
    with sdss_conf.set_temp("skyserver_baseurl", service.base_url):
        try:
            response = SDSSClass().query_sql_async(
                sql, data_release=service.data_release, timeout=timeout_s, cache=False
            )
        except (requests.RequestException, TimeoutError) as error:
            raise ServiceError(
                f"the survey at {service.base_url} does not respond ({type(error).__name__}): check survey.base_url "
                "and the network, or try again later"
            ) from error
    return parse_table(response.text, status=response.status_code, base_url=service.base_url)


query_sql = retry(
    retry=retry_if_exception_type(ServiceError),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(multiplier=0.5, max=30),
    reraise=True,
)(query_sql_once)
"""Run one SQL query, with up to four attempts."""


def parse_table(text: str, *, status: int, base_url: str) -> pd.DataFrame:
    """Parse the CSV of SkyServer's SQL search.

    Raises
    ------
    QueryRefusedError
        Status 200 with the single column error_message, or an SQL error (status 500 with JSON).
    ServiceError
        Anything else that is not a table: an outage page, an empty body, rows of different lengths, invalid ids.
    """
    if status != 200:
        message = _json_error(text)
        if message:
            raise QueryRefusedError(f"the survey at {base_url} cannot run the query: {message}")
        raise ServiceError(f"the survey at {base_url} answered the catalog query with status {status}: try again later")
    # only line ends of a CSV count: str.splitlines would split fields at U+0085 and U+2028 too
    lines = io.StringIO(text.lstrip("\ufeff"), newline=None)
    if not lines.readline().startswith("#Table"):
        raise ServiceError(
            f"the survey at {base_url} answered the catalog query without a table ({text[:60]!r}): try again later"
        )
    header_start = lines.tell()
    if lines.readline().strip() == "error_message":
        raise QueryRefusedError(f"the survey at {base_url} refuses the query: {_shorten(lines.read())}")
    lines.seek(header_start)
    return _read_table(lines, base_url)


def _read_table(lines: io.StringIO, base_url: str) -> pd.DataFrame:
    with warnings.catch_warnings():
        # rows that are all longer than the header
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table = pd.read_csv(
                lines,
                # as text: one id with a point or an exponent would turn all of them into floats
                dtype=dict.fromkeys(INTEGER_COLUMNS, str),
                # otherwise an extra first column becomes the index, and every name shifts by one
                index_col=False,
                # one type per column, and no warning about mixed types
                low_memory=False,
            )
            for name in INTEGER_COLUMNS:
                if name in table:
                    table[name] = _parse_integers(table[name])
        except (ValueError, OverflowError, pd.errors.ParserWarning) as error:
            raise ServiceError(
                f"the survey at {base_url} answered the catalog query with a damaged table "
                f"({_shorten(str(error))}): try again later"
            ) from error
    return table


def _parse_integers(texts: pd.Series) -> npt.NDArray[np.int64]:
    for text in texts:
        if not isinstance(text, str) or not INTEGER.fullmatch(text):
            raise ValueError(f"{texts.name} is {str(text)[:60]!r} where a whole number is expected")
    return np.array([int(text) for text in texts], dtype=np.int64)


def _require_columns(table: pd.DataFrame, names: Sequence[str], service: SkyServer) -> None:
    missing = [name for name in names if name not in table]
    if missing:
        raise ServiceError(
            f"the survey at {service.base_url} answered the catalog query without column {missing[0]!r} (columns "
            f"found: {_shorten(', '.join(map(str, table.columns)))}): check survey.base_url, or try again later"
        )


def _shorten(text: str) -> str:
    return " ".join(text.split())[:MAX_MESSAGE_CHARACTERS]


def _json_error(text: str) -> str | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        # not JSON, a number with more digits than Python accepts, or endlessly nested lists
        return None
    return _shorten(str(content["ErrorMessage"])) if isinstance(content, dict) and "ErrorMessage" in content else None

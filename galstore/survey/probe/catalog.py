"""Probe of a catalog service, with four SQL queries."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from galstore.survey.probe.checks import Check, Verdict
from galstore.survey.row_checks import prepare_catalog
from galstore.survey.skyserver import SkyServer
from galstore.survey.skyserver_sql import build_query, query_sql_once
from schemas.errors import CatalogError, ContractError, QueryRefusedError, ServiceError
from schemas.recipes import SurveySection
from schemas.selection import QUERY_COLUMNS, QUERY_TABLES

PROBED_ROWS = 5

_NOT_A_SELECT = "PRINT 'galstore probe'"
_UNKNOWN_COLUMN = "SELECT TOP 1 G.galstoreProbe FROM Galaxy G"

Query = Callable[[str], pd.DataFrame]
Outcome = tuple[Verdict, str, str]
"""Verdict, response in words, and advice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogProbe:
    """Results of the checks, and the catalog rows received; empty if the first check failed."""

    checks: tuple[Check, ...]
    objects: pd.DataFrame


def probe_catalog(service: SkyServer, survey: SurveySection, *, timeout_s: float) -> CatalogProbe:
    """Query a few rows, their number, and two statements that the service must refuse."""
    selection, names = survey.narrowed_selection, tuple(survey.columns or QUERY_COLUMNS)

    def query(sql: str) -> pd.DataFrame:
        return query_sql_once(service, sql, timeout_s=timeout_s)

    page = objects = pd.DataFrame()

    def check_page() -> Outcome:
        nonlocal page
        page = query(build_query(selection, names, top=PROBED_ROWS))
        return _check_page(page, names)

    expected = f"{len({'objID', 'specObjID', *names})} columns, at most {PROBED_ROWS} rows ordered by objID"
    checks = [_run_check("catalog: columns, types, TOP", expected, check_page)]
    if checks[0].verdict is Verdict.OK:
        objects = prepare_catalog(page, origin="the survey's catalog").rows
        checks.append(_check_count(query, selection.sql, page))
    else:
        checks.append(Check.skipped("catalog: COUNT", "the number of rows from TOP", "no rows to count"))
    checks += [
        _check_refusal(query, "catalog: refusal", _NOT_A_SELECT, "refuses the query", "200 with error_message"),
        _check_refusal(query, "catalog: SQL error", _UNKNOWN_COLUMN, "cannot run the query", "500 with ErrorMessage"),
    ]
    return CatalogProbe(checks=tuple(checks), objects=objects)


def _run_check(name: str, expected: str, check: Callable[[], Outcome]) -> Check:
    started_s = time.monotonic()
    try:
        verdict, got, advice = check()
    except QueryRefusedError as error:
        verdict, got = Verdict.DIFFERS, str(error)
        advice = "follow the survey's message: wait a minute, or choose existing columns"
    except ServiceError as error:
        verdict, got = Verdict.FAILED, str(error)
        advice = "try again later; if it persists, the service has changed: report it"
    except ContractError as error:
        verdict, got, advice = Verdict.DIFFERS, str(error), "change the recipe as the message says"
    seconds = time.monotonic() - started_s
    return Check(name=name, verdict=verdict, expected=expected, got=got, advice=advice, seconds=seconds)


def _check_page(page: pd.DataFrame, names: tuple[str, ...]) -> Outcome:
    missing = [name for name in ("objID", "specObjID", *names) if name not in page]
    if missing:
        got = f"no column {', '.join(missing)} (columns found: {', '.join(map(str, page.columns))})"
        return Verdict.DIFFERS, got, "the survey's tables have changed: set survey.columns to existing columns"
    if len(page) > PROBED_ROWS:
        got = f"{len(page)} rows for TOP {PROBED_ROWS}"
        return Verdict.DIFFERS, got, "the service ignores TOP, so pages would overlap: report it, do not ingest"
    if page.empty:
        return Verdict.DIFFERS, "no rows", "check survey.selection, survey.where, survey.since and the data release"
    keys = list(zip(page["objID"], page["specObjID"], strict=True))
    if keys != sorted(keys):
        got = "rows that are not in the order of objID and specObjID"
        return Verdict.DIFFERS, got, "the service ignores ORDER BY, so pages would overlap: report it, do not ingest"
    try:
        prepared = prepare_catalog(page, origin="the survey's catalog")
    except CatalogError as error:
        return Verdict.DIFFERS, str(error), "include objID, ra and dec in survey.columns"
    invalid = prepared.rejected[prepared.rejected["reason"] != "repeated_id"]
    if len(invalid) == len(page):
        row = invalid.iloc[0]
        got = f"{len(page)} of {len(page)} rows rejected, such as {row['column']} = {row['value']!r} ({row['reason']})"
        return Verdict.DIFFERS, got, "unit or type differ from the contract in schemas/catalog.py: report it"
    return Verdict.OK, f"{len(page.columns)} columns, {len(page)} rows, 64-bit ids", ""


def _check_count(query: Query, where: str, page: pd.DataFrame) -> Check:
    """Check that COUNT agrees with TOP and ORDER BY, for the rows up to the last one of the page."""
    last = int(page["objID"].iloc[-1])
    sql = f"SELECT COUNT(*) AS n_rows FROM {QUERY_TABLES} WHERE {where} AND G.objID <= {last}"  # noqa: S608

    def check() -> Outcome:
        table = query(sql)
        if "n_rows" not in table or len(table) != 1:
            n_rows, got = -1, f"columns {', '.join(map(str, table.columns))}, {len(table)} rows"
        else:
            n_rows = int(table["n_rows"].iloc[0])
            got = str(n_rows)
        # further spectra of the last galaxy may come after the page
        if len(page) <= n_rows <= len(page) + PROBED_ROWS:
            return Verdict.OK, got, ""
        return Verdict.DIFFERS, got, "parts of the catalog would be missed or read twice: report it"

    expected = f"COUNT(*) of the same rows = {len(page)} (or a few more spectra of the last galaxy)"
    return _run_check("catalog: COUNT", expected, check)


def _check_refusal(query: Query, name: str, sql: str, phrase: str, form: str) -> Check:
    """Check that the service refuses a query in a form that the client knows."""

    def check() -> Outcome:
        try:
            table = query(sql)
        except QueryRefusedError as refusal:
            got = str(refusal)
            if phrase in got:
                return Verdict.OK, got, ""
            return Verdict.DIFFERS, got, "the client recognises the refusal, but its form is new: report it"
        got = f"a table with the columns {', '.join(map(str, table.columns))}"
        return Verdict.DIFFERS, got, "refusals would be read as rows: report it, do not ingest"

    return _run_check(name, f"{form}, for {sql!r}", check)

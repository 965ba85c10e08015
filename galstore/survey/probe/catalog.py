"""The catalog's side of a probe: four SQL queries."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from galstore.survey.probe.checks import Check, Verdict
from galstore.survey.row_checks import prepare_catalog
from galstore.survey.skyserver import SkyServer
from galstore.survey.skyserver_sql import ask_sql, build_query
from schemas.errors import CatalogError, ContractError, QueryRefusedError, ServiceError
from schemas.recipes import SurveySection
from schemas.selection import QUERY_COLUMNS, QUERY_TABLES

PROBED_ROWS = 5

_NO_SELECT = "PRINT 'galstore probe'"
_NO_SUCH_COLUMN = "SELECT TOP 1 G.galstoreProbe FROM Galaxy G"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogProbe:
    """The checks, and the rows of the catalog that were got on the way; empty where there are none."""

    checks: tuple[Check, ...]
    objects: pd.DataFrame


def probe_catalog(service: SkyServer, survey: SurveySection, *, timeout_s: float) -> CatalogProbe:
    """Ask for a few rows, for how many there are, and for two things that must be refused.

    Parameters
    ----------
    service
        Whose catalog.
    survey
        Selection and columns.
    timeout_s
        Of each query.
    """
    selection, names = survey.narrowed_selection, tuple(survey.columns or QUERY_COLUMNS)

    def ask(sql: str) -> pd.DataFrame:
        return ask_sql(service, sql, timeout_s=timeout_s)

    first = build_query(selection, names, top=PROBED_ROWS)
    page, checks = pd.DataFrame(), []
    expected = f"{len({'objID', 'specObjID', *names})} columns, at most {PROBED_ROWS} rows in the order of objID"
    started_s = time.monotonic()
    try:
        page = ask(first)
        verdict, got, advice = _judge_page(page, names)
    except (ServiceError, ContractError) as error:
        verdict, got, advice = _tell_error(error)
    checks.append(
        Check(
            name="catalog: columns, types, TOP", verdict=verdict, expected=expected, got=got, advice=advice,
            seconds=time.monotonic() - started_s,
        )
    )  # fmt: skip
    objects = pd.DataFrame()
    if verdict is Verdict.OK:
        objects = prepare_catalog(page, origin="the survey's catalog").rows
        checks.append(_check_count(ask, selection.sql, page))
    else:
        checks.append(_skipped("catalog: COUNT", "as many rows as TOP gave", "there are no rows to count"))
    checks.append(_check_refusal(ask, "catalog: refusal", _NO_SELECT, "refuses the query", "200 with error_message"))
    checks.append(
        _check_refusal(ask, "catalog: SQL error", _NO_SUCH_COLUMN, "cannot run the query", "500 with ErrorMessage")
    )
    return CatalogProbe(checks=tuple(checks), objects=objects)


def _judge_page(page: pd.DataFrame, names: tuple[str, ...]) -> tuple[Verdict, str, str]:
    missing = [name for name in ("objID", "specObjID", *names) if name not in page]
    if missing:
        told = f"no column {', '.join(missing)} (there are {', '.join(map(str, page.columns))})"
        return Verdict.DIFFERS, told, "the survey's tables have changed: choose survey.columns that it has"
    if len(page) > PROBED_ROWS:
        told = f"{len(page)} rows where TOP {PROBED_ROWS} was asked for"
        return Verdict.DIFFERS, told, "TOP is ignored, so that pages would overlap: report it, do not ingest"
    if page.empty:
        return Verdict.DIFFERS, "no rows", "check survey.selection, survey.where, survey.since and the data release"
    keys = list(zip(page["objID"], page["specObjID"], strict=True))
    if keys != sorted(keys):
        told = "rows that are not in the order of objID and specObjID"
        return Verdict.DIFFERS, told, "ORDER BY is ignored, so that pages would overlap: report it, do not ingest"
    try:
        prepared = prepare_catalog(page, origin="the survey's catalog")
    except CatalogError as error:
        return Verdict.DIFFERS, str(error), "choose survey.columns with objID, ra and dec"
    bad = prepared.rejected[prepared.rejected["reason"] != "repeated_id"]
    if len(bad) == len(page):
        row = bad.iloc[0]
        told = f"not one of {len(page)} rows can be kept: {row['column']} = {row['value']!r} ({row['reason']})"
        return Verdict.DIFFERS, told, "another unit or type than the contract's in schemas/catalog.py: report it"
    return Verdict.OK, f"{len(page.columns)} columns, {len(page)} rows, ids of 64 bits", ""


def _check_count(ask: Callable[[str], pd.DataFrame], where: str, page: pd.DataFrame) -> Check:
    """Rows up to the last one of the page, counted: TOP, ORDER BY and COUNT must tell the same."""
    last = int(page["objID"].iloc[-1])
    sql = f"SELECT COUNT(*) AS n_rows FROM {QUERY_TABLES} WHERE {where} AND G.objID <= {last}"  # noqa: S608
    # the last galaxy's other spectra may come behind the page
    expected = f"COUNT(*) of the same rows = {len(page)} (or a few more spectra of the last galaxy)"
    started_s = time.monotonic()
    try:
        answer = ask(sql)
        n_rows = int(answer["n_rows"].iloc[0]) if "n_rows" in answer and len(answer) == 1 else -1
        verdict = Verdict.OK if len(page) <= n_rows <= len(page) + PROBED_ROWS else Verdict.DIFFERS
        got = f"{n_rows}" if n_rows >= 0 else f"columns {', '.join(map(str, answer.columns))}, {len(answer)} rows"
        advice = "" if verdict is Verdict.OK else "a part of the catalog would be missed or read twice: report it"
    except (ServiceError, ContractError) as error:
        verdict, got, advice = _tell_error(error)
    return Check(
        name="catalog: COUNT", verdict=verdict, expected=expected, got=got, advice=advice,
        seconds=time.monotonic() - started_s,
    )  # fmt: skip


def _check_refusal(ask: Callable[[str], pd.DataFrame], name: str, sql: str, words: str, form: str) -> Check:
    """A query that must be refused in a form that the client knows."""
    started_s = time.monotonic()
    advice = ""
    try:
        answer = ask(sql)
        verdict, got = Verdict.DIFFERS, f"a table with the columns {', '.join(map(str, answer.columns))}"
        advice = "refusals would be taken for rows: report it, do not ingest"
    except QueryRefusedError as refusal:
        got = str(refusal)
        verdict = Verdict.OK if words in got else Verdict.DIFFERS
        if verdict is Verdict.DIFFERS:
            advice = "the refusal is known as one, but comes in another form: report it"
    except ServiceError as error:
        verdict, got, advice = _tell_error(error)
    return Check(
        name=name, verdict=verdict, expected=f"{form}, for {sql!r}", got=got, advice=advice,
        seconds=time.monotonic() - started_s,
    )  # fmt: skip


def _tell_error(error: Exception) -> tuple[Verdict, str, str]:
    if isinstance(error, QueryRefusedError):
        return Verdict.DIFFERS, str(error), "read what the survey says: wait a minute, or choose columns that it has"
    if isinstance(error, ServiceError):
        return Verdict.FAILED, str(error), "try again later; if it stays so, the service has changed: report it"
    return Verdict.DIFFERS, str(error), "change the recipe as the message says"


def _skipped(name: str, expected: str, got: str) -> Check:
    return Check(name=name, verdict=Verdict.SKIPPED, expected=expected, got=got)

"""ECSV catalogs (astropy's CSV with types and units in a header), read at once."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from galstore.survey.catalog_files.columns import DeliveredColumn, Pages, build_series, text_series
from galstore.survey.catalog_files.source import CatalogSource, reading_errors
from galstore.survey.catalog_files.units import is_plausible_unit
from schemas.errors import CatalogError

if TYPE_CHECKING:
    from astropy.table import Column

HEADER_LIMIT_BYTES = 4 << 20

YAML_MERGE = re.compile(r"<<\s*:")
"""Merged maps, which no ECSV header needs, double with each level: 30 lines fill any memory."""

ARRAY_SHAPE = re.compile(r"\bsubtype\b[^\n\[]*\[([\d,\s]*)\]")
"""Shape of a column of arrays; each value takes at least two characters, unless its row is masked."""

ARRAY_FREE_VALUES = 1 << 22

YAML_UNIT = re.compile(r"\bunit\b[\"']?\s*:\s*([^\n]*)")


def read_ecsv_pages(source: CatalogSource, page_rows: int) -> Pages:
    """Read an ECSV file at once, which takes several times its size in memory, and yield pages.

    Raises
    ------
    CatalogError
        The text is not UTF-8, the header is not YAML, or the rows contradict the header.
    """
    from yaml import YAMLError

    with reading_errors(source, YAMLError, csv.Error):
        columns = _read_columns(source)
    n_rows = len(columns[0].values) if columns else 0
    yield from cut_in_pages(columns, n_rows, page_rows)


def cut_in_pages(columns: tuple[DeliveredColumn, ...], n_rows: int, page_rows: int) -> Pages:
    """Yield pages of columns that are in memory."""
    for first in range(0, max(1, n_rows), page_rows):
        yield tuple(replace(column, values=column.values.iloc[first : first + page_rows]) for column in columns)


def check_yaml_header(text: str, *, origin: str) -> None:
    """Reject a YAML header that would take too long to read.

    Raises
    ------
    CatalogError
        The header merges maps, is too long, or has an implausible unit.
    """
    units = (found[1] for found in YAML_UNIT.finditer(text))
    if len(text) > HEADER_LIMIT_BYTES or YAML_MERGE.search(text) or not all(map(is_plausible_unit, units)):
        raise CatalogError(
            f"{origin} has an unsupported header (longer than {HEADER_LIMIT_BYTES:,} characters, merged maps, or an "
            "invalid unit): write it again with astropy"
        )


def _read_columns(source: CatalogSource) -> tuple[DeliveredColumn, ...]:
    from astropy.table import Table

    raw = source.read_whole()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CatalogError(
            f"{source.origin} is an ECSV but not UTF-8 text ({error.reason} at {error.start}): save it as UTF-8"
        ) from error
    header = "\n".join(line[1:] for line in text.split("\n") if line.startswith("#"))
    check_yaml_header(header, origin=source.origin)
    n_values = sum(math.prod(map(int, re.findall(r"\d+", found[1]))) for found in ARRAY_SHAPE.finditer(header))
    if n_values * text.count("\n") > ARRAY_FREE_VALUES + len(text):
        raise CatalogError(
            f"{source.origin} claims arrays of {n_values:,} values a row, more than the file can hold: fix their "
            "subtype, or export it again"
        )
    table = Table.read(text.split("\n"), format="ascii.ecsv")
    return tuple(_to_column(column, len(table)) for column in table.itercols())


def _to_column(column: Column, n_rows: int) -> DeliveredColumn:
    info = column.info
    meta = {str(key).lower(): value for key, value in (info.meta or {}).items()}
    # coordinates and times are astropy objects, not arrays
    is_array = isinstance(column, np.ndarray)
    unit = "" if info.unit is None or not is_array else info.unit.to_string()
    missing = np.ma.getmaskarray(column) if isinstance(column, np.ma.MaskedArray) else None
    values = build_series(np.asarray(column), missing) if is_array else text_series(type(column).__name__, n_rows)
    return DeliveredColumn(name=str(info.name), values=values, unit=unit, ucd=str(meta.get("ucd") or ""))

"""Catalogs as ECSV, astropy's CSV with a header that gives types and units; read whole."""

from __future__ import annotations

import csv
import math
import re
from typing import Any

import numpy as np

from galstore.survey.catalog_files.columns import DeliveredColumn, Pages, series_of, text_series
from galstore.survey.catalog_files.source import CatalogSource, damage_told
from galstore.survey.catalog_files.units import is_plausible_unit
from schemas.errors import CatalogError

HEADER_LIMIT_BYTES = 4 << 20

YAML_MERGE = re.compile(r"<<\s*:")
"""Merging of maps, which no ECSV header needs, doubles with each level: 30 lines fill any memory."""

ARRAY_SHAPE = re.compile(r"\bsubtype\b[^\n\[]*\[([\d,\s]*)\]")
"""The shape of a column of arrays; each of their values takes two characters, unless their row is masked."""

ARRAY_FREE_VALUES = 1 << 22

YAML_UNIT = re.compile(r"\bunit\b[\"']?\s*:\s*([^\n]*)")


def read_ecsv_pages(source: CatalogSource, page_rows: int) -> Pages:
    """Pages of an ECSV file, which is read whole: several times its size in memory.

    Raises
    ------
    CatalogError
        It is no UTF-8 text, its header is no YAML, or its rows are not what the header says.
    """
    from yaml import YAMLError

    with damage_told(source, YAMLError, csv.Error):
        columns = _read_columns(source)
    n_rows = len(columns[0].values) if columns else 0
    yield from cut_in_pages(columns, n_rows, page_rows)


def cut_in_pages(columns: tuple[DeliveredColumn, ...], n_rows: int, page_rows: int) -> Pages:
    """Pages of columns that are in memory as a whole."""
    for first in range(0, max(1, n_rows), page_rows):
        yield tuple(
            DeliveredColumn(
                name=column.name, values=column.values.iloc[first : first + page_rows], unit=column.unit, ucd=column.ucd
            )
            for column in columns
        )


def check_yaml_header(text: str, *, origin: str) -> None:
    """Refuse a YAML header that would take for ever to read.

    Raises
    ------
    CatalogError
        It merges maps, is longer than any table's, or has a unit that is none.
    """
    units = (found[1] for found in YAML_UNIT.finditer(text))
    if len(text) > HEADER_LIMIT_BYTES or YAML_MERGE.search(text) or not all(map(is_plausible_unit, units)):
        raise CatalogError(
            f"{origin} has a header that no table needs (longer than {HEADER_LIMIT_BYTES:,} characters, merged maps, "
            "or a unit that is none): write it again by astropy"
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
            f"{source.origin} claims arrays of {n_values:,} values a row, more than the file can hold: mend their "
            "subtype, or export it again"
        )
    table = Table.read(text.split("\n"), format="ascii.ecsv")
    return tuple(_delivered(column, len(table)) for column in table.itercols())


def _delivered(column: Any, n_rows: int) -> DeliveredColumn:
    info = column.info
    meta = {str(key).lower(): value for key, value in (info.meta or {}).items()}
    # coordinates and times come as objects of astropy's, not as arrays
    is_array = isinstance(column, np.ndarray)
    unit = "" if info.unit is None or not is_array else info.unit.to_string()
    missing = np.ma.getmaskarray(column) if isinstance(column, np.ma.MaskedArray) else None
    values = series_of(np.asarray(column), missing) if is_array else text_series(type(column).__name__, n_rows)
    return DeliveredColumn(name=str(info.name), values=values, unit=unit, ucd=str(meta.get("ucd") or ""))

"""Columns of a catalog file, and the data frame with the contract's names and units that they form.

Every column is included: values that are not one number per row (arrays, complex numbers, times) become text.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.survey.catalog_files.units import convert_unit
from galstore.survey.row_checks import match_columns
from schemas.catalog import COLUMN, UCD_ALIASES
from schemas.errors import CatalogError

MAX_TEXT_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredColumn:
    """Column of a catalog file, with the unit and the UCD that the file declares; empty if it declares none."""

    name: str
    values: pd.Series
    unit: str = ""
    ucd: str = ""


Pages = Generator[tuple[DeliveredColumn, ...], None, None]
"""Pages of a file's columns; at least one page, which may be empty."""


def build_frame(columns: Iterable[DeliveredColumn], *, origin: str) -> pd.DataFrame:
    """Build a data frame that `prepare_catalog` can check.

    Known columns are converted to the contract's unit. A column with an unknown name is identified by its UCD, if this
    UCD is unique in the file, and renamed. The second of two columns with the same name becomes `name.1`.
    """
    named = _with_unique_names(columns)
    if not named:
        raise CatalogError(f"{origin} has no columns: give at least object_id, ra, dec")
    by_name = match_columns(list(named))
    by_ucd = _match_by_ucd(named, by_name)
    series = {}
    for name, column in named.items():
        known_as = by_ucd.get(name) or by_name.get(name)
        values = column.values.reset_index(drop=True)
        if known_as is not None and column.unit.strip() and COLUMN[known_as].dtype != "int64":
            values = _in_contract_unit(values, column, known_as, origin)
        series[by_ucd.get(name, name)] = values
    return pd.DataFrame(series)


def _with_unique_names(columns: Iterable[DeliveredColumn]) -> dict[str, DeliveredColumn]:
    columns = tuple(columns)
    taken = {column.name for column in columns}
    named: dict[str, DeliveredColumn] = {}
    for column in columns:
        name = column.name
        if name in named:
            name = next(new for number in count(1) if (new := f"{column.name}.{number}") not in taken)
            taken.add(name)
        named[name] = column
    return named


def _match_by_ucd(columns: Mapping[str, DeliveredColumn], by_name: dict[str, str]) -> dict[str, str]:
    """Map the names of further columns to the contract's names, by UCDs that occur once in the file."""
    words = {name: _split_ucd(column.ucd) for name, column in columns.items() if column.ucd}
    matches: dict[str, str] = {}
    for name, ucds in UCD_ALIASES.items():
        candidates: list[str] = []
        for ucd in ucds:
            candidates = candidates or [given for given in words if words[given] == _split_ucd(ucd)]
        if name in by_name.values() or len(candidates) != 1 or candidates[0] in {*by_name, *matches}:
            continue
        # text in an optional column would reject rows because of a column that the user did not name
        if COLUMN[name].required or pd.api.types.is_numeric_dtype(columns[candidates[0]].values.dtype):
            matches[candidates[0]] = name
    return matches


def _split_ucd(ucd: str) -> frozenset[str]:
    """Return the words of a UCD; their order and case have no meaning."""
    return frozenset(word.strip().lower() for word in ucd.split(";") if word.strip())


def build_series(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_] | None = None) -> pd.Series:
    """Convert an array of any type to a pandas column; integers never become floats.

    Rows are along the first axis; further axes become text, unless they hold one value. Missing values (a mask) become
    NaN among floats, NA among integers, None among texts.
    """
    if values.ndim > 1 and math.prod(values.shape[1:]) != 1:
        return pd.Series([f"array of {'x'.join(map(str, values.shape[1:]))} values"] * len(values), dtype=object)
    values = values.reshape(len(values))
    missing = None if missing is None or not missing.any() else missing.reshape(len(values))
    if values.dtype.kind in "mM":
        values = values.astype(str)
    kind = values.dtype.kind
    if kind in "iu":
        native = values.astype(values.dtype.newbyteorder("="))
        return pd.Series(native if missing is None else pd.arrays.IntegerArray(native, missing))
    if kind == "f":
        # pandas has little support for float16 and float128
        series = pd.Series(values.astype("float32" if values.dtype.itemsize == 4 else "float64"))
        return series if missing is None else series.mask(missing)
    if kind == "b" and missing is None:
        return pd.Series(values)
    series = pd.Series([_to_plain(value) for value in values.tolist()], dtype=object)
    return series if missing is None else series.mask(missing, None)


def _to_plain(value: object) -> object:
    """Return a value as text without padding, a number, or None."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        # FITS and VOTable pad a text that is shorter than its field with nulls
        return value.split("\0", 1)[0].strip()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return None if value is np.ma.masked else str(value)[:MAX_TEXT_CHARACTERS]


def _in_contract_unit(values: pd.Series, column: DeliveredColumn, known_as: str, origin: str) -> pd.Series:
    is_number = pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)
    numbers = values if is_number else pd.to_numeric(values.astype(object), errors="coerce")
    known = numbers.notna()
    if not is_number and not known.any():
        # sexagesimal text: rows are rejected with the value, which is clearer than an error about the unit
        return values
    as_numbers = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    contract = COLUMN[known_as]
    # the logarithm of a plain number
    expected = "dex" if not contract.unit and "log" in contract.symbol else contract.unit
    try:
        converted = convert_unit(as_numbers, got=column.unit, expected=expected)
    except CatalogError as error:
        raise CatalogError(f"{origin}: column {column.name!r} {error}") from error
    if converted is as_numbers:
        return values
    return pd.Series(converted) if is_number else values.astype(object).mask(known, pd.Series(converted, dtype=object))

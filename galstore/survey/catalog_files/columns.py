"""Columns of a catalog file, and the data frame with the contract's names and units that they form.

Every column is included: values that are not one number per row (arrays, complex numbers, times) become text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.survey.catalog_files.units import contract_unit, convert_unit
from galstore.survey.row_checks import match_columns
from schemas.catalog import COLUMN, UCD_ALIASES
from schemas.errors import CatalogError

MAX_TEXT_CHARACTERS = 200
"""Characters stored of a value that is neither a number nor text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredColumn:
    """Column of a catalog file.

    Attributes
    ----------
    name
        Name in the file.
    values
        One value per row: numbers in native byte order, nullable integers if some are missing, or text.
    unit, ucd
        Unit and UCD declared by the file; empty if it declares none.
    """

    name: str
    values: pd.Series
    unit: str = ""
    ucd: str = ""


Pages = Generator[tuple[DeliveredColumn, ...], None, None]
"""Pages of a file's columns; at least one page, which may be empty."""


def build_frame(columns: Sequence[DeliveredColumn], *, origin: str) -> pd.DataFrame:
    """Build a data frame that `prepare_catalog` can check.

    Known columns are converted to the contract's unit. A column with an unknown name is identified by its UCD, if this
    UCD is unique in the file, and renamed. The second of two columns with the same name becomes `name.1`.

    Parameters
    ----------
    columns
        All columns of the file, of equal length.
    origin
        Name of the file in error messages.

    Raises
    ------
    CatalogError
        A known column has a unit that is unknown or cannot be converted; or there are no columns.
    """
    if not columns:
        raise CatalogError(f"{origin} has no columns: give at least object_id, ra, dec")
    columns = _with_unique_names(columns)
    by_name = match_columns([column.name for column in columns])
    by_ucd = match_columns_by_ucd(columns, by_name)
    series = {}
    for column in columns:
        known_as = by_ucd.get(column.name) or by_name.get(column.name)
        values = column.values.reset_index(drop=True)
        if known_as is not None and column.unit.strip() and COLUMN[known_as].dtype != "int64":
            values = _in_contract_unit(values, column, known_as, origin)
        series[by_ucd.get(column.name, column.name)] = values
    return pd.DataFrame(series)


def match_columns_by_ucd(columns: Iterable[DeliveredColumn], by_name: dict[str, str]) -> dict[str, str]:
    """Map the names of further columns to the contract's names, by UCDs that occur once in the file."""
    described = {column.name: (split_ucd(column.ucd), column.values.dtype) for column in columns if column.ucd}
    matches: dict[str, str] = {}
    for name, ucds in UCD_ALIASES.items():
        if name in by_name.values():
            continue
        candidates: list[str] = []
        for ucd in ucds:
            candidates = candidates or [given for given, (words, _) in described.items() if words == split_ucd(ucd)]
        if len(candidates) != 1 or candidates[0] in by_name or candidates[0] in matches:
            continue
        # text in an optional column would reject rows because of a column that the user did not name
        if COLUMN[name].required or pd.api.types.is_numeric_dtype(described[candidates[0]][1]):
            matches[candidates[0]] = name
    return matches


def split_ucd(ucd: str) -> frozenset[str]:
    """Return the words of a UCD; their order and case have no meaning.

    Examples
    --------
    >>> sorted(split_ucd("meta.main; POS.EQ.RA"))
    ['meta.main', 'pos.eq.ra']
    """
    return frozenset(word.strip().lower() for word in ucd.split(";") if word.strip())


def build_series(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_] | None = None) -> pd.Series:
    """Convert an array of any type to a pandas column; integers never become floats.

    Parameters
    ----------
    values
        One row along the first axis. Further axes become text, unless they hold one value.
    missing
        Mask of missing values: NaN among floats, NA among integers, None among texts.
    """
    if values.ndim > 1:
        n_values = math.prod(values.shape[1:])
        if n_values != 1:
            return text_series(f"array of {'x'.join(map(str, values.shape[1:]))} values", len(values))
        values = values.reshape(len(values))
        missing = missing.reshape(len(values)) if missing is not None else None
    if values.dtype.kind in "mM":
        values = values.astype(str)
    kind = values.dtype.kind
    if kind in "iu":
        native = values.astype(values.dtype.newbyteorder("="))
        if missing is None:
            return pd.Series(native)
        return pd.Series(pd.arrays.IntegerArray(native, missing.astype(bool)))
    if kind == "f":
        # pandas has little support for float16 and float128
        native = values.astype("float32" if values.dtype.itemsize == 4 else "float64")
        return pd.Series(native if missing is None else np.where(missing, np.nan, native).astype(native.dtype))
    if kind == "b" and (missing is None or not missing.any()):
        return pd.Series(values)
    absent = missing if missing is not None else np.zeros(len(values), dtype=bool)
    plain = [
        None if is_absent else _to_plain(value)
        for value, is_absent in zip(values.tolist(), absent.tolist(), strict=True)
    ]
    return pd.Series(plain, dtype=object)


def text_series(text: str, n_rows: int) -> pd.Series:
    """Return a column with the same text in each row."""
    return pd.Series(np.full(n_rows, text, dtype=object), dtype=object)


def _to_plain(value: object) -> object:
    """Return a value as text without padding, a number, or None."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        # FITS and VOTable pad a text that is shorter than its field with nulls
        return value.split("\0", 1)[0].strip()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (np.ndarray, list, tuple)):
        return f"array of {len(value) if np.ndim(value) else 0} values"
    if value is np.ma.masked:
        return None
    return str(value)[:MAX_TEXT_CHARACTERS]


def _with_unique_names(columns: Sequence[DeliveredColumn]) -> list[DeliveredColumn]:
    seen: Counter[str] = Counter()
    taken = {column.name for column in columns}
    unique = []
    for column in columns:
        name = column.name
        while seen[column.name] and name in taken:
            name = f"{column.name}.{seen[column.name]}"
            seen[column.name] += name in taken
        seen[column.name] += 1
        taken.add(name)
        unique.append(column if name == column.name else replace(column, name=name))
    return unique


def _in_contract_unit(values: pd.Series, column: DeliveredColumn, known_as: str, origin: str) -> pd.Series:
    expected = contract_unit(COLUMN[known_as])
    is_number = pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)
    numbers = values if is_number else pd.to_numeric(values.astype(object), errors="coerce")
    known = numbers.notna()
    if not is_number and not known.any():
        # sexagesimal text: rows are rejected with the value, which is clearer than an error about the unit
        return values
    as_numbers = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    try:
        converted = convert_unit(as_numbers, got=column.unit, expected=expected)
    except CatalogError as error:
        raise CatalogError(f"{origin}: column {column.name!r} {error}") from error
    if converted is as_numbers:
        return values
    return pd.Series(converted) if is_number else values.astype(object).mask(known, pd.Series(converted, dtype=object))

"""Columns of a catalog file, and the frame that they make: known ones by their names and in the contract's units.

No column is left out: what has no number for each row (arrays, complex numbers, times) is there as text.
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
from schemas.catalog import COLUMN, OBJECT_ID_ALIASES, UCD_ALIASES
from schemas.errors import CatalogError

LONGEST_TEXT = 200
"""Characters kept of a value that is neither number nor text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredColumn:
    """A column as a file delivers it.

    Attributes
    ----------
    name
        Its name in the file.
    values
        One value a row: numbers of the machine's byte order, nullable integers where some are missing, or text.
    unit, ucd
        What the file says about it, empty where it says nothing.
    """

    name: str
    values: pd.Series[Any]
    unit: str = ""
    ucd: str = ""


Pages = Generator[tuple[DeliveredColumn, ...], None, None]
"""The columns of a file, some rows at a time; at least once, be it without rows."""


def build_frame(columns: Sequence[DeliveredColumn], *, origin: str) -> pd.DataFrame:
    """The frame of some columns, ready to be checked against the contract.

    Known columns are converted to the contract's unit. One that no name tells is told by its UCD, where exactly one
    column of the file has it, and gets the contract's name. Of two columns of one name the later becomes `name.1`.

    Parameters
    ----------
    columns
        All of them, of the same length.
    origin
        What error messages call the file.

    Raises
    ------
    CatalogError
        A known column has a unit that is unknown or cannot be converted; or there is no column.
    """
    if not columns:
        raise CatalogError(f"{origin} has no columns: it needs object_id, ra, dec")
    columns = _with_unique_names(columns)
    by_name = known_by_name([column.name for column in columns])
    by_ucd = known_by_ucd(columns, by_name)
    series = {}
    for column in columns:
        known_as = by_ucd.get(column.name) or by_name.get(column.name)
        values = column.values.reset_index(drop=True)
        if known_as is not None and column.unit.strip() and COLUMN[known_as].dtype != "int64":
            values = _in_contract_unit(values, column, known_as, origin)
        series[by_ucd.get(column.name, column.name)] = values
    return pd.DataFrame(series)


def known_by_name(names: Sequence[str]) -> dict[str, str]:
    """Which columns the contract knows by their name: exact ones first, then in any case, as `prepare_catalog` does.

    Examples
    --------
    >>> known_by_name(["objID", "RA", "colour"])
    {'objID': 'object_id', 'RA': 'ra'}
    """
    found: dict[str, str] = {}
    for name in COLUMN:
        wanted = OBJECT_ID_ALIASES if name == "object_id" else (name,)
        exact = {*COLUMN, *found}
        folded = {one.lower(): one for one in names if one not in exact}
        candidates = [one for one in wanted if one in names] or [
            folded[one.lower()] for one in wanted if one.lower() in folded
        ]
        if candidates:
            found[candidates[0]] = name
    return found


def known_by_ucd(columns: Iterable[DeliveredColumn], by_name: dict[str, str]) -> dict[str, str]:
    """Which of the other columns the contract knows by their UCD, where exactly one column of the file has it."""
    words = {column.name: (ucd_words(column.ucd), column.values.dtype) for column in columns if column.ucd}
    found: dict[str, str] = {}
    for name, ucds in UCD_ALIASES.items():
        if name in by_name.values():
            continue
        bearers = next(filter(None, ([one for one in words if words[one][0] == ucd_words(ucd)] for ucd in ucds)), [])
        if len(bearers) != 1 or bearers[0] in by_name or bearers[0] in found:
            continue
        # text in an optional column would reject rows for a column that nobody named
        if COLUMN[name].required or pd.api.types.is_numeric_dtype(words[bearers[0]][1]):
            found[bearers[0]] = name
    return found


def ucd_words(ucd: str) -> frozenset[str]:
    """The words of a UCD, whatever their order and case.

    Examples
    --------
    >>> sorted(ucd_words("meta.main; POS.EQ.RA"))
    ['meta.main', 'pos.eq.ra']
    """
    return frozenset(word.strip().lower() for word in ucd.split(";") if word.strip())


def series_of(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_] | None = None) -> pd.Series[Any]:
    """Values of one column, of whatever type an array can have, as a pandas column; integers never become floats.

    Parameters
    ----------
    values
        One row along the first axis; further axes become text, unless they hold one value.
    missing
        Where there is no value: NaN among floats, NA among integers, None among texts.
    """
    if values.ndim > 1:
        each = math.prod(values.shape[1:])
        if each != 1:
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
        # float16 and float128 are nothing that pandas keeps well
        native = values.astype("float32" if values.dtype.itemsize == 4 else "float64")
        return pd.Series(native if missing is None else np.where(missing, np.nan, native).astype(native.dtype))
    if kind == "b" and (missing is None or not missing.any()):
        return pd.Series(values)
    absent = missing if missing is not None else np.zeros(len(values), dtype=bool)
    plain = [None if none else _plain(value) for value, none in zip(values.tolist(), absent.tolist(), strict=True)]
    return pd.Series(plain, dtype=object)


def text_series(text: str, n_rows: int) -> pd.Series[Any]:
    """A column that says the same in each row."""
    return pd.Series(np.full(n_rows, text, dtype=object), dtype=object)


def _plain(value: object) -> object:
    """A value without padding: text, number or None."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        # FITS and VOTable end a text that is shorter than its field with a null
        return value.split("\0", 1)[0].strip()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (np.ndarray, list, tuple)):
        return f"array of {len(value) if np.ndim(value) else 0} values"
    if value is np.ma.masked:
        return None
    return str(value)[:LONGEST_TEXT]


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


def _in_contract_unit(values: pd.Series[Any], column: DeliveredColumn, known_as: str, origin: str) -> pd.Series[Any]:
    expected = contract_unit(COLUMN[known_as])
    is_number = pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)
    numbers = values if is_number else pd.to_numeric(values.astype(object), errors="coerce")
    known = numbers.notna()
    if not is_number and not known.any():
        # sexagesimal text: rows are rejected for it with its value, which says more than its unit does
        return values
    as_numbers = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    try:
        converted = convert_unit(as_numbers, got=column.unit, expected=expected)
    except CatalogError as error:
        raise CatalogError(f"{origin}: column {column.name!r} {error}") from error
    if converted is as_numbers:
        return values
    return pd.Series(converted) if is_number else values.astype(object).mask(known, pd.Series(converted, dtype=object))

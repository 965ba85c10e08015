"""Catalog checks: rows that the cube can store, and rejected rows with column, reason and value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from schemas.catalog import COLUMN, OBJECT_ID_ALIASES, REJECTED_TABLE_COLUMNS, SENTINEL, RejectReason, catalog_schema
from schemas.errors import CatalogError

FLOAT_EXACT_LIMIT = 2**53
"""Above this, a float cannot distinguish neighbouring integers; SDSS ids are about 10^18."""

MAX_VALUE_CHARACTERS = 60
"""Characters stored of a rejected value."""

REMEDY: Mapping[RejectReason, str] = {
    RejectReason.MISSING: "fill the field",
    RejectReason.NOT_A_NUMBER: "write numbers, or leave the field empty",
    RejectReason.OUT_OF_RANGE: "fix the values, or their unit",
    RejectReason.DAMAGED_ID: (
        "it was written as a decimal number beyond 2^53, so its last digits are lost: export the ids again as integers "
        "or as text"
    ),
    RejectReason.NOT_AN_ID: "give every row a whole-number id below 2^63",
    RejectReason.REPEATED_ID: "give every object one row",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCatalog:
    """Accepted and rejected rows of a catalog; together they are all rows of the input.

    `rows` has columns from `schemas.catalog.COLUMN` in their types; missing values are NaN. `rejected` has the columns
    `REJECTED_TABLE_COLUMNS`. `ignored_columns` are those of the input without a contract; they are not stored.
    """

    rows: pd.DataFrame
    rejected: pd.DataFrame
    ignored_columns: tuple[str, ...]


def prepare_catalog(frame: pd.DataFrame, *, origin: str, first_row: int = 0) -> PreparedCatalog:
    """Check a catalog against its contract, row by row.

    Columns are found by `match_columns`. The sentinel -9999 becomes NaN. A row is rejected for its first fault: an
    invalid or damaged id, text in place of a number, a value outside its column's range (a magnitude of 0), a missing
    id or position. SDSS observes some galaxies more than once: of several valid rows with one object id, the first is
    accepted.

    `frame` is the catalog or one page of it, which starts at `first_row`; `origin` names it in error messages.

    Raises
    ------
    CatalogError
        There are no rows, or no columns for id, ra and dec.
    """
    if frame.empty:
        raise CatalogError(f"{origin} has no rows: check the selection, or the file")
    frame = _rename_columns(frame, origin).reset_index(drop=True)
    known = [name for name in COLUMN if name in frame]
    ignored = tuple(str(name) for name in frame.columns if name not in COLUMN)
    faults = _Faults(len(frame))
    parsers = {name: _parse_ids if COLUMN[name].dtype == "int64" else _parse_numbers for name in known}
    table = pd.DataFrame({name: parse(frame[name], name, faults) for name, parse in parsers.items()})
    _check_ranges(table, faults)
    repeated = np.zeros(len(table), dtype=bool)
    repeated[faults.none] = table.loc[faults.none, "object_id"].duplicated(keep="first")
    faults.add(repeated, "object_id", RejectReason.REPEATED_ID)
    return PreparedCatalog(
        rows=table[faults.none].reset_index(drop=True),
        rejected=faults.to_table(frame, first_row),
        ignored_columns=ignored,
    )


def require_kept_rows(n_kept: int, rejected: pd.DataFrame, *, origin: str) -> None:
    """Raise `CatalogError` with the most frequent reason, a value and the remedy if all rows were rejected."""
    if n_kept or rejected.empty:
        return
    reason = str(rejected["reason"].mode().iloc[0])
    first = rejected[rejected["reason"] == reason].iloc[0]
    raise CatalogError(
        f"{origin}: all {len(rejected)} rows were rejected, most for {reason}, such as {first['value']!r} in column "
        f"{first['column']!r}: {REMEDY[RejectReason[reason.upper()]]}"
    )


def match_columns(names: Sequence[str]) -> dict[str, str]:
    """Map column names of a catalog to those of the contract: first by exact name, then ignoring case.

    The id may have any name from `OBJECT_ID_ALIASES`.

    Examples
    --------
    >>> match_columns(["objID", "RA", "colour"])
    {'objID': 'object_id', 'RA': 'ra'}
    """
    matches: dict[str, str] = {}
    for name in COLUMN:
        aliases = OBJECT_ID_ALIASES if name == "object_id" else (name,)
        by_lower = {given.lower(): given for given in names if given not in COLUMN and given not in matches}
        candidates = [alias for alias in aliases if alias in names] or [
            by_lower[alias.lower()] for alias in aliases if alias.lower() in by_lower
        ]
        if candidates:
            matches[candidates[0]] = name
    return matches


class _Faults:
    """First fault of each row."""

    def __init__(self, n_rows: int) -> None:
        self._reason = np.full(n_rows, -1, dtype=np.int16)
        self._column = np.full(n_rows, "", dtype=object)

    @property
    def none(self) -> npt.NDArray[np.bool_]:
        """Mask of the rows without a fault."""
        return np.asarray(self._reason < 0)

    def add(self, at_fault: npt.NDArray[np.bool_], column: str, reason: RejectReason) -> None:
        first = at_fault & self.none
        self._reason[first] = reason
        self._column[first] = column

    def to_table(self, frame: pd.DataFrame, first_row: int) -> pd.DataFrame:
        rows = np.flatnonzero(~self.none)
        columns = self._column[rows]
        at_fault = frame.iloc[rows]
        values = {name: at_fault[name].array for name in {"object_id", *columns}}
        return pd.DataFrame(
            {
                "row": rows + first_row,
                "object_id": [_shorten(value) for value in values["object_id"]],
                "column": columns,
                "reason": [RejectReason(code).name.lower() for code in self._reason[rows]],
                "value": [_shorten(values[name][number]) for number, name in enumerate(columns)],
            },
            columns=list(REJECTED_TABLE_COLUMNS),
        )


def _shorten(value: object) -> str:
    is_missing = value is None or value is pd.NA or value != value  # noqa: PLR0124 - NaN
    return "" if is_missing else str(value)[:MAX_VALUE_CHARACTERS]


def _rename_columns(frame: pd.DataFrame, origin: str) -> pd.DataFrame:
    names = [str(name) for name in frame.columns]
    matches = match_columns(names)
    missing = {"object_id", "ra", "dec"} - set(matches.values())
    if "object_id" in missing:
        raise CatalogError(
            f"{origin} has no object id: call its column one of {', '.join(OBJECT_ID_ALIASES)} "
            f"(columns found: {', '.join(names)})"
        )
    if missing:
        raise CatalogError(
            f"{origin} has no column {' and no column '.join(sorted(missing, reverse=True))}: add the position in "
            f"degrees, which cutouts need (columns found: {', '.join(names)})"
        )
    return frame.loc[:, ~frame.columns.duplicated()].rename(columns=matches)


def _parse_numbers(values: pd.Series, name: str, faults: _Faults) -> pd.Series:
    # float first: to_numeric makes an object column of integers beyond 64 bits
    numbers = pd.to_numeric(values.astype(object).where(values.notna(), None), errors="coerce").astype("float64")
    blank = values.isna() | (values.astype(str).str.strip().str.lower().isin(("", "null", "nan")))
    faults.add((numbers.isna() & ~blank).to_numpy(dtype=bool), name, RejectReason.NOT_A_NUMBER)
    return numbers.mask(numbers == SENTINEL)


def _parse_ids(values: pd.Series, name: str, faults: _Faults) -> pd.Series:
    """Return ids as 64-bit integers, without conversion to float; missing and invalid ids are -1."""
    text = values.astype(str).str.strip()
    blank = (values.isna() | text.str.lower().isin(("", "null", "nan", "<na>", "none"))).to_numpy(dtype=bool)
    # a float turns 17 into 17.0, which is exact for small ids
    text = text.str.replace(r"^([+-]?\d{1,15})\.0*$", r"\1", regex=True)
    whole = text.str.fullmatch(r"\+?\d{1,30}").to_numpy(dtype=bool) & ~blank
    is_float = pd.api.types.is_float_dtype(values.dtype)
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype="float64")
    with np.errstate(invalid="ignore"):
        damaged = ~blank & (is_float | ~whole) & (np.abs(numbers) >= FLOAT_EXACT_LIMIT)
    ids = np.full(len(values), -1, dtype=np.int64)
    good = whole & ~damaged
    exact = np.array([int(digits) for digits in text[good]], dtype=object)
    fits = np.array([number < 2**63 for number in exact], dtype=bool)
    ids[np.flatnonzero(good)[fits]] = exact[fits].astype(np.int64)
    if COLUMN[name].required:
        faults.add(blank, name, RejectReason.MISSING)
    faults.add(damaged, name, RejectReason.DAMAGED_ID)
    faults.add((ids < 0) & ~blank, name, RejectReason.NOT_AN_ID)
    return pd.Series(ids, index=values.index)


def _check_ranges(table: pd.DataFrame, faults: _Faults) -> None:
    import pandera.errors

    with np.errstate(over="ignore"):  # 1e39 becomes infinite, which is out of range
        for name in table:
            table[name] = table[name].astype(COLUMN[str(name)].dtype)
    # rows with an invalid object id are rejected already; -1 marks a missing value of other ids
    checked = [str(name) for name in table if COLUMN[str(name)].required or COLUMN[str(name)].dtype != "int64"]
    try:
        catalog_schema(tuple(checked)).validate(table.loc[faults.none, checked], lazy=True)
    except pandera.errors.SchemaErrors as problems:
        cases = problems.failure_cases.dropna(subset=["index"])
        for name, column_cases in cases.groupby("column", sort=False):
            for is_missing, reason in ((True, RejectReason.MISSING), (False, RejectReason.OUT_OF_RANGE)):
                at_fault = np.zeros(len(table), dtype=bool)
                at_fault[column_cases.loc[column_cases["failure_case"].isna() == is_missing, "index"].astype(int)] = (
                    True
                )
                faults.add(at_fault, str(name), reason)

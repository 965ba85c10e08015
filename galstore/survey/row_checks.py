"""Catalogs: from what a service or a file delivers to rows that the cube can keep, and rows that it cannot.

No row is dropped in silence: what cannot be kept comes back with its column, the reason and the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from schemas.catalog import COLUMN, OBJECT_ID_ALIASES, SENTINEL, catalog_schema
from schemas.errors import CatalogError
from schemas.rejections import REJECTED_TABLE_COLUMNS, RejectReason

FLOAT_EXACT_LIMIT = 2**53
"""Above this, a float cannot tell neighbouring integers apart; SDSS ids are 10^18."""

LONGEST_VALUE = 60
"""Characters kept of a value at fault."""

REMEDY: Mapping[RejectReason, str] = {
    RejectReason.MISSING: "fill the field",
    RejectReason.NOT_A_NUMBER: "write numbers, or leave the field empty",
    RejectReason.OUT_OF_RANGE: "mend the values, or their unit",
    RejectReason.DAMAGED_ID: (
        "it was written as a decimal number beyond 2^53, so its last digits are lost: export the ids again as integers "
        "or as text"
    ),
    RejectReason.NOT_AN_ID: "give every row a whole-number id below 2^63",
    RejectReason.REPEATED_ID: "give every object one row",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCatalog:
    """A catalog sorted into what is kept and what is not: `len(rows) + len(rejected)` is what was delivered.

    Attributes
    ----------
    rows
        One row an object, columns out of `schemas.catalog.COLUMN` with their types, missing values as NaN.
    rejected
        Columns `REJECTED_TABLE_COLUMNS`, one line a rejected row.
    ignored_columns
        Columns of the input that no contract describes; they are not kept.
    """

    rows: pd.DataFrame
    rejected: pd.DataFrame
    ignored_columns: tuple[str, ...]


def prepare_catalog(frame: pd.DataFrame, *, origin: str, first_row: int = 0) -> PreparedCatalog:
    """Check a catalog against its contract, row by row.

    The id may have any name of `OBJECT_ID_ALIASES`; columns are found by their exact name, else in any case. The
    sentinel -9999 becomes NaN. A row is rejected for its first fault: an id that is none or was damaged, text for a
    number, a value out of its column's range (a magnitude of 0), a missing id or position. Of several rows with one
    object id (SDSS observes some plates more than once) the first in the order of delivery that is not rejected is
    kept.

    Parameters
    ----------
    frame
        The catalog as delivered, or one page of it.
    origin
        What error messages call it.
    first_row
        Row of the delivery with which the page begins.

    Raises
    ------
    CatalogError
        No rows, no id, no ra or dec.
    """
    if frame.empty:
        raise CatalogError(f"{origin} has no rows: check the selection, or the file")
    frame = _named(frame, origin).reset_index(drop=True)
    known = [name for name in COLUMN if name in frame]
    ignored = tuple(str(name) for name in frame.columns if name not in COLUMN)
    typed, faults = {}, _Faults(len(frame))
    for name in known:
        typed[name] = _typed_id(frame[name], name, faults) if COLUMN[name].dtype == "int64" else None
        if typed[name] is None:
            typed[name] = _typed_number(frame[name], name, faults)
    table = pd.DataFrame(typed)
    _check_ranges(table, faults)
    repeated = np.zeros(len(table), dtype=bool)
    repeated[faults.none] = table.loc[faults.none, "object_id"].duplicated(keep="first")
    faults.add(repeated, "object_id", RejectReason.REPEATED_ID)
    return PreparedCatalog(
        rows=table[faults.none].reset_index(drop=True),
        rejected=faults.table(frame, first_row),
        ignored_columns=ignored,
    )


class _Faults:
    """The first fault of each row."""

    def __init__(self, n_rows: int) -> None:
        self._reason = np.full(n_rows, -1, dtype=np.int16)
        self._column = np.full(n_rows, "", dtype=object)

    @property
    def none(self) -> npt.NDArray[np.bool_]:
        """Rows without any."""
        return np.asarray(self._reason < 0)

    def add(self, at_fault: npt.NDArray[np.bool_], column: str, reason: RejectReason) -> None:
        first = at_fault & self.none
        self._reason[first] = reason
        self._column[first] = column

    def table(self, frame: pd.DataFrame, first_row: int) -> pd.DataFrame:
        rows = np.flatnonzero(~self.none)
        columns = self._column[rows]
        at_fault = frame.iloc[rows]
        values = {name: at_fault[name].array for name in {"object_id", *columns}}
        return pd.DataFrame(
            {
                "row": rows + first_row,
                "object_id": [_told(value) for value in values["object_id"]],
                "column": columns,
                "reason": [RejectReason(code).name.lower() for code in self._reason[rows]],
                "value": [_told(values[name][number]) for number, name in enumerate(columns)],
            },
            columns=list(REJECTED_TABLE_COLUMNS),
        )


def require_kept_rows(n_kept: int, rejected: pd.DataFrame, *, origin: str) -> None:
    """Refuse a catalog of which nothing can be kept.

    Parameters
    ----------
    n_kept, rejected
        How many rows are kept, and the table of the others.
    origin
        What the error message calls the catalog.

    Raises
    ------
    CatalogError
        All rows were rejected; it tells the most frequent reason, a value, and what to do.
    """
    if n_kept or rejected.empty:
        return
    reason = str(rejected["reason"].mode().iloc[0])
    first = rejected[rejected["reason"] == reason].iloc[0]
    raise CatalogError(
        f"{origin}: not one of {len(rejected)} rows can be kept; most fail by {reason}, such as {first['value']!r} in "
        f"column {first['column']!r}: {REMEDY[RejectReason[reason.upper()]]}"
    )


def _told(value: object) -> str:
    return "" if value is None or value is pd.NA or value != value else str(value)[:LONGEST_VALUE]  # noqa: PLR0124 - NaN


def _named(frame: pd.DataFrame, origin: str) -> pd.DataFrame:
    found: dict[str, str] = {}
    for name in COLUMN:
        wanted = OBJECT_ID_ALIASES if name == "object_id" else (name,)
        actual = next((one for one in wanted if one in frame), None) or _in_any_case(frame, wanted, set(found))
        if actual is not None:
            found[actual] = name
    found_names = ", ".join(map(str, frame.columns))
    if "object_id" not in found.values():
        raise CatalogError(
            f"{origin} has no object id: call its column one of {', '.join(OBJECT_ID_ALIASES)} "
            f"(columns found: {found_names})"
        )
    missing = [name for name in ("ra", "dec") if name not in found.values()]
    if missing:
        raise CatalogError(
            f"{origin} has no column {' and no column '.join(missing)}: cutouts are asked for by position in degrees "
            f"(columns found: {found_names})"
        )
    unique = frame.loc[:, ~frame.columns.duplicated()]
    return unique.rename(columns=found)


def _in_any_case(frame: pd.DataFrame, wanted: tuple[str, ...], taken: set[str]) -> str | None:
    exact = set(COLUMN) | taken
    folded = {str(name).lower(): str(name) for name in frame.columns if str(name) not in exact}
    return next((folded[name.lower()] for name in wanted if name.lower() in folded), None)


def _typed_number(values: pd.Series, name: str, faults: _Faults) -> pd.Series:
    # float first: to_numeric makes an object column of integers beyond 64 bits
    numbers = pd.to_numeric(values.astype(object).where(values.notna(), None), errors="coerce").astype("float64")
    blank = values.isna() | (values.astype(str).str.strip().str.lower().isin(("", "null", "nan")))
    faults.add((numbers.isna() & ~blank).to_numpy(dtype=bool), name, RejectReason.NOT_A_NUMBER)
    return numbers.mask(numbers == SENTINEL)


def _typed_id(values: pd.Series, name: str, faults: _Faults) -> pd.Series:
    """Ids as 64-bit integers, never through a float; -1 where there is none."""
    text = values.astype(str).str.strip()
    blank = (values.isna() | text.str.lower().isin(("", "null", "nan", "<na>", "none"))).to_numpy(dtype=bool)
    # 17.0 is what a float makes of 17: exact where it is small
    text = text.str.replace(r"^([+-]?\d{1,15})\.0*$", r"\1", regex=True)
    whole = text.str.fullmatch(r"\+?\d{1,30}").to_numpy(dtype=bool) & ~blank
    is_float = pd.api.types.is_float_dtype(values.dtype)
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype="float64")
    with np.errstate(invalid="ignore"):
        damaged = ~blank & (is_float | ~whole) & (np.abs(numbers) >= FLOAT_EXACT_LIMIT)
    ids = np.full(len(values), -1, dtype=np.int64)
    good = whole & ~damaged
    exact = np.array([int(one) for one in text[good]], dtype=object)
    fits = np.array([one < 2**63 for one in exact], dtype=bool)
    ids[np.flatnonzero(good)[fits]] = exact[fits].astype(np.int64)
    if COLUMN[name].required:
        faults.add(blank, name, RejectReason.MISSING)
    faults.add(damaged, name, RejectReason.DAMAGED_ID)
    faults.add((ids < 0) & ~blank, name, RejectReason.NOT_AN_ID)
    return pd.Series(ids, index=values.index)


def _check_ranges(table: pd.DataFrame, faults: _Faults) -> None:
    import pandera.errors

    with np.errstate(over="ignore"):  # 1e39 becomes infinite, and is out of range
        for name in table:
            table[name] = table[name].astype(COLUMN[str(name)].dtype)
    # rows whose id is none are rejected already; -1 is how the cube says that a second id is missing
    checked = [str(name) for name in table if COLUMN[str(name)].required or COLUMN[str(name)].dtype != "int64"]
    try:
        catalog_schema(tuple(checked)).validate(table.loc[faults.none, checked], lazy=True)
    except pandera.errors.SchemaErrors as problems:
        cases = problems.failure_cases.dropna(subset=["index"])
        for name, of_column in cases.groupby("column", sort=False):
            for got_none, reason in ((True, RejectReason.MISSING), (False, RejectReason.OUT_OF_RANGE)):
                at_fault = np.zeros(len(table), dtype=bool)
                at_fault[of_column.loc[of_column["failure_case"].isna() == got_none, "index"].astype(int)] = True
                faults.add(at_fault, str(name), reason)

"""Catalogs: from what a service or a file delivers to rows that the cube can keep, and rows that it cannot.

No row is dropped in silence: what cannot be kept comes back with its column and the reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from schemas.catalog import COLUMN, OBJECT_ID_ALIASES, SENTINEL, catalog_schema
from schemas.errors import CatalogError

FLOAT_EXACT_LIMIT = 2**53
"""Above this, a float cannot tell neighbouring integers apart; SDSS ids are 10^18."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCatalog:
    """A catalog sorted into what is kept and what is not.

    Attributes
    ----------
    rows
        One row an object, columns out of `schemas.catalog.COLUMN` with their types, missing values as NaN.
    rejected
        object_id (as text), column, reason: one line a rejected row.
    ignored_columns
        Columns of the input that no contract describes; they are not kept.
    """

    rows: pd.DataFrame
    rejected: pd.DataFrame
    ignored_columns: tuple[str, ...]


def prepare_catalog(frame: pd.DataFrame, *, origin: str) -> PreparedCatalog:
    """Check a catalog against its contract.

    The id may have any name of `OBJECT_ID_ALIASES`. The sentinel -9999 becomes NaN. Of several rows with one object id
    (SDSS observes some plates more than once) the first in the order of delivery is kept.

    Parameters
    ----------
    frame
        The catalog as delivered.
    origin
        What error messages call it.

    Raises
    ------
    CatalogError
        No rows, no id, no ra or dec, or ids that went through a float.
    """
    if frame.empty:
        raise CatalogError(f"{origin} has no rows: check the selection, or the file")
    frame = _named(frame, origin)
    known = [name for name in COLUMN if name in frame]
    ignored = tuple(name for name in frame.columns if name not in COLUMN)
    typed = pd.DataFrame({name: _typed(frame[name], name, origin) for name in known}).reset_index(drop=True)
    reasons = _contradictions(typed)
    repeated = typed["object_id"].duplicated(keep="first") & ~typed.index.isin(reasons.index)
    repeats = pd.DataFrame({"column": "object_id", "reason": "repeats an object id"}, index=typed.index[repeated])
    rejected = pd.concat([reasons, repeats]).sort_index()
    rejected.insert(0, "object_id", typed["object_id"].loc[rejected.index].astype(str))
    return PreparedCatalog(
        rows=typed.drop(index=rejected.index).reset_index(drop=True),
        rejected=rejected.reset_index(names="row"),
        ignored_columns=ignored,
    )


def _named(frame: pd.DataFrame, origin: str) -> pd.DataFrame:
    identifier = next((alias for alias in OBJECT_ID_ALIASES if alias in frame), None)
    if identifier is None:
        raise CatalogError(
            f"{origin} has no object id: call its column one of {', '.join(OBJECT_ID_ALIASES)} "
            f"(columns found: {', '.join(map(str, frame.columns))})"
        )
    missing = [name for name in ("ra", "dec") if name not in frame]
    if missing:
        raise CatalogError(
            f"{origin} has no column {' and no column '.join(missing)}: cutouts are asked for by position in degrees "
            f"(columns found: {', '.join(map(str, frame.columns))})"
        )
    return frame.rename(columns={identifier: "object_id"})


def _typed(values: pd.Series, name: str, origin: str) -> pd.Series:
    column = COLUMN[name]
    if column.dtype == "int64":
        return parse_ids(values, name=name, origin=origin)
    numbers = pd.to_numeric(values, errors="coerce")
    unreadable = numbers.isna() & values.notna() & (values.astype(str).str.strip() != "")
    if unreadable.any():
        first = values[unreadable].iloc[0]
        raise CatalogError(
            f"{origin}: column {name!r} has {int(unreadable.sum())} values that are no numbers, the first is "
            f"{first!r}: write numbers, or leave the field empty"
        )
    return numbers.mask(numbers == SENTINEL).astype(column.dtype)


def parse_ids(values: pd.Series, *, name: str, origin: str) -> pd.Series:
    """Ids as 64-bit integers, never through a float.

    Raises
    ------
    CatalogError
        Ids that a float or a spreadsheet has rounded, that exceed 64 bits, or that are no integers.

    Examples
    --------
    >>> parse_ids(pd.Series(["1237648702973411443"]), name="objID", origin="new.csv").tolist()
    [1237648702973411443]
    >>> parse_ids(pd.Series(["1.23764870297341E+18"]), name="objID", origin="new.csv")
    Traceback (most recent call last):
    ...
    schemas.errors.CatalogError: new.csv: id '1.23764870297341E+18' in column 'objID' was written as a decimal ...
    """
    if pd.api.types.is_integer_dtype(values.dtype):
        if (values > np.iinfo(np.int64).max).any():
            raise CatalogError(f"{origin}: column {name!r} has ids beyond 64 bits (2^63 - 1): use signed 64-bit ids")
        return values.astype("int64")
    text = values.astype(str).str.strip()
    whole = text.str.fullmatch(r"[+-]?\d+")
    if whole.all():
        try:
            return text.astype("int64")
        except (ValueError, OverflowError) as error:
            raise CatalogError(
                f"{origin}: column {name!r} has ids beyond 64 bits (2^63 - 1): use signed 64-bit ids"
            ) from error
    first = text[~whole].iloc[0]
    number = pd.to_numeric(pd.Series([first]), errors="coerce").iloc[0]
    if np.isfinite(number) and abs(number) >= FLOAT_EXACT_LIMIT:
        raise CatalogError(
            f"{origin}: id {first!r} in column {name!r} was written as a decimal number beyond 2^53, so its last "
            "digits are lost: export the ids again as integers or as text"
        )
    if np.isfinite(number) and number == int(number):
        return parse_ids(text.str.replace(r"\.0*$", "", regex=True), name=name, origin=origin)
    raise CatalogError(f"{origin}: id {first!r} in column {name!r} is no integer: give every row a whole-number id")


def _contradictions(typed: pd.DataFrame) -> pd.DataFrame:
    """First column and reason of each row that contradicts the contract, indexed by row."""
    import pandera.errors

    try:
        catalog_schema(tuple(typed.columns)).validate(typed, lazy=True)
    except pandera.errors.SchemaErrors as problems:
        cases = problems.failure_cases.dropna(subset=["index"])
        cases = cases.assign(index=cases["index"].astype(int)).drop_duplicates("index").set_index("index")
        got = cases["failure_case"]
        reason = np.where(got.isna(), "missing", cases["check"].astype(str) + ": " + got.astype(str))
        return pd.DataFrame({"column": cases["column"], "reason": reason}, index=cases.index)
    return pd.DataFrame({"column": [], "reason": []}, index=pd.Index([], dtype="int64"), dtype=str)

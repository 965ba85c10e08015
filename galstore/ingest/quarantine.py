"""Tables of quarantined objects, which have no usable cutout."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.cube.reader import Cube
from schemas.cutouts import Reason, Status
from schemas.errors import RecipeError

QUARANTINE_COLUMNS = ("row", "object_id", "ra", "dec", "catalog", "reason", "attempts", "http_status")
"""Row in the cube, id, position (degrees), source catalog, reason, number of requests, last HTTP status."""

_STATE = ("catalog", "reason", "attempts", "http_status")


def read_quarantine(cube: Cube, reasons: Collection[Reason] = ()) -> pd.DataFrame:
    """Return the quarantined objects of some reasons (by default all) in row order, columns `QUARANTINE_COLUMNS`."""
    codes = cube.read_state("reason")
    chosen = cube.read_state("status") == Status.QUARANTINED
    if reasons:
        chosen &= np.isin(codes, [int(reason) for reason in reasons])
    return _table(cube, np.flatnonzero(chosen))


def sample_quarantine(cube: Cube, max_per_reason: int) -> pd.DataFrame:
    """Return the first quarantined objects of each reason, columns `QUARANTINE_COLUMNS`.

    The most frequent reasons come first.
    """
    rows = np.flatnonzero(cube.read_state("status") == Status.QUARANTINED)
    codes = cube.read_state("reason")[rows]
    present, n_objects = np.unique(codes, return_counts=True)
    ordered = present[np.argsort(-n_objects, kind="stable")]
    chosen = [rows[codes == code][:max_per_reason] for code in ordered]
    return _table(cube, np.concatenate([np.empty(0, dtype=np.int64), *chosen]))


def _table(cube: Cube, rows: npt.NDArray[np.int64]) -> pd.DataFrame:
    columns = ("catalog/object_id", "catalog/ra", "catalog/dec", *(f"state/{name}" for name in _STATE))
    values = {path.split("/")[1]: column for path, column in cube.read_values(columns, rows).items()}
    names = [str(entry["name"]) for entry in cube.attributes["catalogs"]]
    catalogs = [names[index] for index in values["catalog"]]
    reasons = [Reason(code).name.lower() for code in values["reason"]]
    table = {"row": rows, **values, "catalog": catalogs, "reason": reasons}
    return pd.DataFrame(table, columns=list(QUARANTINE_COLUMNS))


def parse_reasons(names: Collection[str]) -> frozenset[Reason]:
    """Return reasons of quarantine by their names in lower case; "all" stands for every reason.

    Another name raises `RecipeError`.

    Examples
    --------
    >>> sorted(parse_reasons(["truncated", "flat"]))
    [<Reason.TRUNCATED: 3>, <Reason.FLAT: 5>]
    """
    known = {reason.name.lower(): reason for reason in Reason if reason is not Reason.NONE}
    if "all" in names:
        return frozenset(known.values())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RecipeError(f"unknown reason of quarantine {unknown[0]!r}: choose 'all' or some of {', '.join(known)}")
    return frozenset(known[name] for name in names)

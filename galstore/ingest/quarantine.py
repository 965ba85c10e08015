"""Quarantine: which objects have no image and why, and which rows of catalogs became no object."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.cube.reader import Cube
from schemas.cutouts import Reason, Status
from schemas.errors import RecipeError

QUARANTINE_COLUMNS = ("row", "object_id", "ra", "dec", "catalog", "reason", "attempts", "http_status")
"""Row in the cube, id, place (degrees), catalog that brought it, reason, requests so far, last HTTP status."""

_STATE = ("catalog", "reason", "attempts", "http_status")


def read_quarantine(cube: Cube, reasons: Collection[Reason] = ()) -> pd.DataFrame:
    """Quarantined objects, one line each in row order, columns `QUARANTINE_COLUMNS`.

    Parameters
    ----------
    cube
        A snapshot.
    reasons
        Only those quarantined for one of these; all by default.
    """
    codes = cube.read_state("reason")
    chosen = cube.read_state("status") == Status.QUARANTINED
    if reasons:
        chosen &= np.isin(codes, [int(reason) for reason in reasons])
    return _table(cube, np.flatnonzero(chosen))


def sample_quarantine(cube: Cube, most: int) -> pd.DataFrame:
    """The first quarantined objects of each reason, at most so many: columns as of `read_quarantine`.

    Reasons with the most objects come first.
    """
    rows = np.flatnonzero(cube.read_state("status") == Status.QUARANTINED)
    codes = cube.read_state("reason")[rows]
    known, tally = np.unique(codes, return_counts=True)
    ordered = known[np.argsort(-tally, kind="stable")]
    chosen = [rows[codes == code][:most] for code in ordered]
    return _table(cube, np.concatenate([np.empty(0, dtype=np.int64), *chosen]))


def _table(cube: Cube, rows: npt.NDArray[np.int64]) -> pd.DataFrame:
    columns = ("catalog/object_id", "catalog/ra", "catalog/dec", *(f"state/{name}" for name in _STATE))
    read = cube.read_values(columns, rows)
    names = [str(entry["name"]) for entry in cube.attributes["catalogs"]]
    return pd.DataFrame(
        {
            "row": rows,
            "object_id": read["catalog/object_id"],
            "ra": read["catalog/ra"],
            "dec": read["catalog/dec"],
            "catalog": [names[index] for index in read["state/catalog"]],
            "reason": [Reason(code).name.lower() for code in read["state/reason"]],
            "attempts": read["state/attempts"],
            "http_status": read["state/http_status"],
        },
        columns=list(QUARANTINE_COLUMNS),
    )


def reasons_named(names: Collection[str]) -> frozenset[Reason]:
    """Reasons of quarantine by their names in lower case; "all" is every reason.

    Raises
    ------
    RecipeError
        No such reason.

    Examples
    --------
    >>> sorted(reasons_named(["truncated", "flat"]))
    [<Reason.TRUNCATED: 3>, <Reason.FLAT: 5>]
    """
    known = {reason.name.lower(): reason for reason in Reason if reason is not Reason.NONE}
    if "all" in names:
        return frozenset(known.values())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RecipeError(f"there is no reason of quarantine {unknown[0]!r}: choose all, or of {', '.join(known)}")
    return frozenset(known[name] for name in names)

"""Quarantine: which objects have no image and why, and which rows of catalogs became no object."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from galstore.reader import Cube
from schemas.cutouts import Reason, Status
from schemas.errors import RecipeError

QUARANTINE_COLUMNS = ("row", "object_id", "ra", "dec", "catalog", "reason", "attempts", "http_status")
"""Row in the cube, id, place (degrees), catalog that brought it, reason, requests so far, last HTTP status."""


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
    rows = np.flatnonzero(chosen)
    places = cube.read_catalog(["object_id", "ra", "dec"]).iloc[rows]
    names = [str(entry["name"]) for entry in cube.attributes["catalogs"]]
    return pd.DataFrame(
        {
            "row": rows,
            "object_id": places["object_id"].to_numpy(),
            "ra": places["ra"].to_numpy(),
            "dec": places["dec"].to_numpy(),
            "catalog": [names[index] for index in cube.read_state("catalog")[rows]],
            "reason": [Reason(code).name.lower() for code in codes[rows]],
            "attempts": cube.read_state("attempts")[rows],
            "http_status": cube.read_state("http_status")[rows],
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

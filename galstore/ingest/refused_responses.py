"""Refused answers: of each reason the cube keeps a few, so that somebody can look at what came in place of an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.layout import ensure_refused_arrays
from galstore.cube.reader import Cube
from galstore.survey.responses import Delivery
from schemas.cube import DELIVERED_BYTES, MOST_REFUSED, REFUSED_COLUMNS
from schemas.cutouts import Reason, Status

_BODY = "refused/body"


def keep_refused(root: zarr.Group, deliveries: Iterable[Delivery]) -> None:
    """Keep what came for objects that a commit quarantines, while there are fewer than `MOST_REFUSED` of a reason.

    Answers for objects that have an image by now, or another reason, make room.

    Parameters
    ----------
    root
        Of a session that can be written, with the state of these deliveries.
    deliveries
        Of the commit; what is stored, or came without a body, has nothing to keep.
    """
    refused = [one for one in deliveries if one.refused]
    if not refused:
        return
    ensure_refused_arrays(root)
    held = _held(root)
    # tried again, and refused again: the last answer counts
    held = held[~held["row"].isin([one.row for one in refused])]
    tally = Counter(held["reason"].tolist())
    added = []
    for one in refused:
        if tally[int(one.reason)] < MOST_REFUSED:
            tally[int(one.reason)] += 1
            added.append({"row": one.row, "reason": int(one.reason), "body": one.refused[:DELIVERED_BYTES]})
    if added:
        _write(root, pd.concat([held, pd.DataFrame(added)], ignore_index=True))


def read_refused(cube: Cube) -> pd.DataFrame:
    """Answers that were kept of objects that are quarantined, in the order in which they came.

    Returns
    -------
    DataFrame
        `row`, `reason` (a code of `Reason`) and `body` (the beginning, at most 16 kB, bytes).
    """
    root = zarr.open_group(cube.store, mode="r")
    return _held(root) if _BODY in root else pd.DataFrame({"row": [], "reason": [], "body": []})


def without_surplus(deliveries: Sequence[Delivery]) -> tuple[Delivery, ...]:
    """The same deliveries with refused bodies of `MOST_REFUSED` of each reason: more are not kept anyway."""
    tally: Counter[Reason] = Counter()
    kept = []
    for one in deliveries:
        tally[one.reason] += bool(one.refused)
        kept.append(replace(one, refused=b"") if tally[one.reason] > MOST_REFUSED else one)
    return tuple(kept)


def _held(root: zarr.Group) -> pd.DataFrame:
    """What is kept of objects that are quarantined for that very reason."""
    row, reason, length = (_read(root, f"refused/{column.name}") for column in REFUSED_COLUMNS)
    bodies = _read(root, _BODY)
    status, current = (np.asarray(_array(root, f"state/{name}").oindex[row]) for name in ("status", "reason"))
    still = (status == Status.QUARANTINED) & (current == reason)
    body = [bodies[k, : length[k]].tobytes() for k in np.flatnonzero(still)]
    return pd.DataFrame({"row": row[still], "reason": reason[still], "body": body})


def _write(root: zarr.Group, kept: pd.DataFrame) -> None:
    bodies = np.zeros((len(kept), DELIVERED_BYTES), dtype=np.uint8)
    for padded, body in zip(bodies, kept["body"], strict=True):
        padded[: len(body)] = np.frombuffer(body, dtype=np.uint8)
    values = {"row": kept["row"], "reason": kept["reason"], "length": kept["body"].map(len)}
    for name, column in values.items():
        array = _array(root, f"refused/{name}")
        array.resize((len(kept),))
        array[:] = column.to_numpy(dtype=array.dtype)
    array = _array(root, _BODY)
    array.resize(bodies.shape)
    array[:] = bodies


def _array(root: zarr.Group, name: str) -> Any:
    return root[name]


def _read(root: zarr.Group, name: str) -> npt.NDArray[Any]:
    return np.asarray(_array(root, name)[:])

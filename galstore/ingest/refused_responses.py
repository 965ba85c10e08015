"""Refused responses: the cube stores a few bodies per reason of quarantine that were not valid images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import zarr

from galstore.cube.arrays import pad_bytes, read_array, require_array
from galstore.cube.layout import create_body_array, create_state_column
from galstore.cube.reader import Cube
from galstore.survey.responses import CutoutResponse
from schemas.cube import DELIVERED_BYTES, MOST_REFUSED, REFUSED_COLUMNS
from schemas.cutouts import Reason, Status

_BODY = "refused/body"


def store_refused(root: zarr.Group, responses: Iterable[CutoutResponse]) -> None:
    """Store the bodies of refused responses, up to `MOST_REFUSED` per reason.

    Earlier bodies are dropped if their object has an image or another reason by now. `root` holds the state of these
    responses, all of one commit; valid images and responses without a body are ignored.
    """
    refused = [response for response in responses if response.refused]
    if not refused:
        return
    _ensure_arrays(root)
    stored = _read_current(root)
    # the last response of a retried object counts
    stored = stored[~stored["row"].isin([response.row for response in refused])]
    n_of_reason = Counter(stored["reason"].tolist())
    added = []
    for response in refused:
        reason = int(response.reason)
        if n_of_reason[reason] < MOST_REFUSED:
            n_of_reason[reason] += 1
            added.append({"row": response.row, "reason": reason, "body": response.refused[:DELIVERED_BYTES]})
    if added:
        _write(root, pd.concat([stored, pd.DataFrame(added)], ignore_index=True))


def read_refused(cube: Cube) -> pd.DataFrame:
    """Return the stored refused responses of quarantined objects, in order of arrival.

    Columns are `row`, `reason` (a code of `Reason`) and `body` (the beginning, at most 16 kB, bytes).
    """
    root = zarr.open_group(cube.store, mode="r")
    return _read_current(root) if _BODY in root else pd.DataFrame({"row": [], "reason": [], "body": []})


def limit_refused(responses: Sequence[CutoutResponse]) -> tuple[CutoutResponse, ...]:
    """Drop refused bodies beyond `MOST_REFUSED` per reason, which would not be stored."""
    n_of_reason: Counter[Reason] = Counter()
    limited = []
    for response in responses:
        n_of_reason[response.reason] += bool(response.refused)
        limited.append(replace(response, refused=b"") if n_of_reason[response.reason] > MOST_REFUSED else response)
    return tuple(limited)


def _ensure_arrays(root: zarr.Group) -> None:
    if "refused" in root:
        return
    group = root.create_group("refused")
    for column in REFUSED_COLUMNS:
        create_state_column(group, column, dimension="refused")
    long_name = "Beginning of the answer, padded with zeros"
    create_body_array(group, "body", dimension="refused", chunk_rows=MOST_REFUSED, long_name=long_name)


def _read_current(root: zarr.Group) -> pd.DataFrame:
    """Return the responses of objects that are still quarantined for the same reason."""
    row, reason, length = (read_array(root, f"refused/{column.name}") for column in REFUSED_COLUMNS)
    bodies = read_array(root, _BODY)
    is_current = (read_array(root, "state/status", row) == Status.QUARANTINED) & (
        read_array(root, "state/reason", row) == reason
    )
    body = [bodies[index, : length[index]].tobytes() for index in np.flatnonzero(is_current)]
    return pd.DataFrame({"row": row[is_current], "reason": reason[is_current], "body": body})


def _write(root: zarr.Group, refused: pd.DataFrame) -> None:
    bodies = pad_bytes(refused["body"].tolist(), DELIVERED_BYTES)
    columns = {"row": refused["row"], "reason": refused["reason"], "length": refused["body"].map(len)}
    for name, values in {**columns, "body": bodies}.items():
        array = require_array(root, f"refused/{name}")
        array.resize((len(refused), *array.shape[1:]))
        array[:] = np.asarray(values, dtype=array.dtype)

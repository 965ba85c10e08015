"""Rejected rows: the cube stores the rows of each catalog that were not registered."""

from __future__ import annotations

import numpy as np
import pandas as pd
import zarr

from galstore.cube.arrays import Values, pad_bytes, read_array, require_array
from schemas.catalog import REJECTED_TABLE_COLUMNS, RejectReason
from schemas.cube import REJECTED_COLUMNS


def empty_rejected() -> pd.DataFrame:
    return pd.DataFrame(columns=list(REJECTED_TABLE_COLUMNS))


def reject_repeated(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rejection of rows whose object id occurred earlier in the catalog."""
    ids = rows["object_id"].astype(str)
    reason = RejectReason.REPEATED_ID.name.lower()
    return pd.DataFrame({"row": -1, "object_id": ids, "column": "object_id", "reason": reason, "value": ids})


def store_rejected(root: zarr.Group, catalog: int, rejected: pd.DataFrame, *, whole: bool) -> None:
    """Replace the rejected rows of the catalog with this index: all if `whole`, or those of the same objects."""
    old = {column.name: read_array(root, f"rejected/{column.name}") for column in REJECTED_COLUMNS}
    widths = {name: old[name].shape[1] for name in ("object_id", "column", "value")}
    new: dict[str, Values] = {
        "catalog": np.full(len(rejected), catalog),
        "row": rejected["row"].to_numpy(dtype=np.int64),
        "reason": np.array([RejectReason[name.upper()] for name in rejected["reason"]], dtype=np.uint8),
        **{name: pad_bytes(_encode(rejected[name], width), width) for name, width in widths.items()},
    }
    is_superseded = old["catalog"] == catalog
    if not whole:
        new_ids = {text.tobytes() for text in new["object_id"]}
        is_superseded &= np.array([text.tobytes() in new_ids for text in old["object_id"]], dtype=bool)
    if all(np.array_equal(old[name][is_superseded], new[name]) for name in new):
        return
    for name, values in new.items():
        array = require_array(root, f"rejected/{name}")
        merged = np.concatenate([old[name][~is_superseded], values.astype(array.dtype)])
        array.resize(merged.shape)
        array[:] = merged


def _encode(texts: pd.Series[str], width: int) -> list[bytes]:
    """Encode texts as UTF-8 of at most `width` bytes, cut between characters."""
    return [str(text).encode()[:width].decode(errors="ignore").encode() for text in texts]

"""Rejected rows: the cube stores the rows of each catalog that were not registered."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.arrays import Values, read_array, require_array
from schemas.catalog import REJECTED_TABLE_COLUMNS, RejectReason
from schemas.cube import REJECTED_COLUMNS


def empty_rejected() -> pd.DataFrame:
    """Return a table without rejected rows."""
    return pd.DataFrame(columns=list(REJECTED_TABLE_COLUMNS))


def reject_repeated(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rejection of rows whose object id occurred earlier in the catalog."""
    ids = rows["object_id"].astype(str)
    reason = RejectReason.REPEATED_ID.name.lower()
    return pd.DataFrame({"row": -1, "object_id": ids, "column": "object_id", "reason": reason, "value": ids})


def store_rejected(root: zarr.Group, catalog: int, rejected: pd.DataFrame, *, whole: bool) -> None:
    """Replace the rejected rows of a catalog: all of them, or those of the same objects.

    Parameters
    ----------
    root
        Root group of a writable session.
    catalog
        Index of the catalog.
    rejected
        Columns `REJECTED_TABLE_COLUMNS`.
    whole
        Replace all rows of the catalog.
    """
    old = {column.name: read_array(root, f"rejected/{column.name}") for column in REJECTED_COLUMNS}
    new: dict[str, Values] = {
        "catalog": np.full(len(rejected), catalog),
        "row": rejected["row"].to_numpy(dtype=np.int64),
        "reason": np.array([RejectReason[name.upper()] for name in rejected["reason"]], dtype=np.uint8),
        **{name: _encode(rejected[name], old[name].shape[1]) for name in ("object_id", "column", "value")},
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


def _encode(texts: pd.Series[str], width: int) -> npt.NDArray[np.uint8]:
    """Encode texts as UTF-8 of at most `width` bytes, padded with zeros."""
    encoded = np.zeros((len(texts), width), dtype=np.uint8)
    for padded, text in zip(encoded, texts, strict=True):
        # cut between characters, not inside one
        raw = str(text).encode()[:width].decode(errors="ignore").encode()
        padded[: len(raw)] = np.frombuffer(raw, dtype=np.uint8)
    return encoded

"""Predictions beside the cube: one group a model, one value an object, NaN where nothing was scored yet.

Cubes of earlier versions hold `mean` and `view_spread` alone: the other columns read as not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.commits import commit
from galstore.cube.layout import ensure_embedding_array, ensure_prediction_arrays
from galstore.cube.reader import Cube
from schemas.cube import STATE_COLUMNS
from schemas.cutouts import Status
from schemas.errors import StoreError
from schemas.predictions import PREDICTION_COLUMN, PREDICTION_COLUMNS


def write_predictions(
    path: str,
    model_id: str,
    rows: npt.NDArray[np.int64],
    values: Mapping[str, npt.NDArray[Any]],
    *,
    attributes: Mapping[str, Any],
    embeddings: npt.NDArray[np.float32] | None = None,
) -> None:
    """Write a model's predictions of some objects in one commit.

    Parameters
    ----------
    path
        Folder of the cube.
    model_id
        Which model.
    rows
        Row numbers, shape (n,).
    values
        Arrays of shape (n,) by names of `PREDICTION_COLUMNS`; `mean` is one of them, and of those that are absent
        nothing is known afterwards.
    attributes
        Kept with the group when it is created: target, units, network, snapshot that was read.
    embeddings
        How the model sees these objects, shape (n, feature); kept in float16.

    Raises
    ------
    StoreError
        `mean` is absent, or there is no column of a given name.
    """
    strange = sorted(values.keys() - PREDICTION_COLUMN.keys())
    if strange or "mean" not in values:
        raise StoreError(
            f"got predictions {', '.join(values)}: expected 'mean' and perhaps others of {', '.join(PREDICTION_COLUMN)}"
        )

    def write(session: icechunk.Session) -> None:
        root = zarr.open_group(session.store, mode="a")
        ensure_prediction_arrays(root, model_id, attributes)
        for column in PREDICTION_COLUMNS:
            target: Any = root[f"predictions/{model_id}/{column.name}"]
            # absent values are written too: a row that is scored anew keeps nothing of the last time
            target.oindex[rows] = np.asarray(values.get(column.name, column.fill), dtype=column.dtype)
        if embeddings is not None:
            ensure_embedding_array(root, model_id, embeddings.shape[1])
            vectors: Any = root[f"embeddings/{model_id}/vector"]
            vectors.oindex[rows, :] = embeddings.astype(np.float16)

    metadata = {"operation": "predict", "model": model_id, "n_objects": int(rows.size)}
    commit(path, write, message=f"predict with {model_id}", metadata=metadata)


def read_predictions(cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> pd.DataFrame:
    """A model's predictions of some objects, in the order of `rows`: every one of `PREDICTION_COLUMNS`.

    NaN, and -1 in the flags, where there is none, or where the cube was written before there was this column.
    """
    present: tuple[str, ...] = ()
    if model_id in cube.group_names("predictions"):
        present = cube.array_names(f"predictions/{model_id}")
    known = {name: f"predictions/{model_id}/{name}" for name in PREDICTION_COLUMN if name in present}
    values = cube.read_values(list(known.values()), rows)
    return pd.DataFrame(
        {
            column.name: values[known[column.name]]
            if column.name in known
            else np.full(rows.size, column.fill, dtype=column.dtype)
            for column in PREDICTION_COLUMNS
        }
    )


def read_known(cube: Cube, rows: npt.NDArray[np.int64], names: Sequence[str]) -> pd.DataFrame:
    """What is known of objects without their images, in the order of `rows`: columns of the catalog, and pixel_scale.

    NaN where there is no value.
    """
    state = {column.name for column in STATE_COLUMNS}
    arrays = {name: f"{'state' if name in state else 'catalog'}/{name}" for name in names}
    values = cube.read_values(list(arrays.values()), rows)
    return pd.DataFrame({name: values[array] for name, array in arrays.items()})


def unscored_rows(cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Those of some objects that have a stored cutout and no prediction of this model yet, ascending."""
    rows = np.unique(rows)
    missing = read_predictions(cube, model_id, rows)["mean"].isna().to_numpy()
    stored = cube.read_state("status")[rows] == Status.STORED
    return np.asarray(rows[missing & stored], dtype=np.int64)

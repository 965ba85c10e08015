"""Predictions in the cube: one group per model, one value per object, NaN where no prediction exists.

Cubes of earlier versions hold `mean` and `view_spread` only; the other columns are read as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.arrays import Attributes, Values, require_array, require_group
from galstore.cube.commits import commit
from galstore.cube.layout import CHECKSUM, COLUMN_CODEC, create_column
from galstore.cube.reader import Cube
from schemas.catalog import COLUMN
from schemas.cube import BLOCK_ROWS, STATE_COLUMNS
from schemas.cutouts import Status
from schemas.errors import StoreError
from schemas.predictions import PREDICTION_COLUMN, PREDICTION_COLUMNS, flag_attributes


def write_predictions(
    path: str,
    model_id: str,
    rows: npt.NDArray[np.int64],
    values: Mapping[str, Values],
    *,
    attributes: Attributes,
    embeddings: npt.NDArray[np.float32] | None = None,
) -> None:
    """Write predictions of one model in one commit.

    Parameters
    ----------
    values
        Arrays of shape (n,) by names of `PREDICTION_COLUMNS`. `mean` is required; absent columns become unknown.
    attributes
        Attributes of a new group: target, units, network, snapshot that was read.
    embeddings
        Features of the images, shape (n, feature); stored as float16.

    Raises
    ------
    StoreError
        `mean` is absent, or a name is not one of `PREDICTION_COLUMNS`.
    """
    unknown = sorted(values.keys() - PREDICTION_COLUMN.keys())
    if unknown or "mean" not in values:
        raise StoreError(
            f"got predictions {', '.join(values)}: expected 'mean' and perhaps others of {', '.join(PREDICTION_COLUMN)}"
        )

    def write(session: icechunk.Session) -> None:
        root = zarr.open_group(session.store, mode="a")
        _ensure_prediction_arrays(root, model_id, attributes)
        for column in PREDICTION_COLUMNS:
            # absent values are written too, so that a row never mixes two predictions
            array = require_array(root, f"predictions/{model_id}/{column.name}")
            array.oindex[rows] = np.asarray(values.get(column.name, column.fill), dtype=column.dtype)
        if embeddings is not None:
            _ensure_embedding_array(root, model_id, embeddings.shape[1])
            vectors = require_array(root, f"embeddings/{model_id}/vector")
            vectors.oindex[rows, :] = embeddings.astype(np.float16)

    metadata = {"operation": "predict", "model": model_id, "n_objects": int(rows.size)}
    commit(path, write, message=f"predict with {model_id}", metadata=metadata)


def _ensure_prediction_arrays(root: zarr.Group, model_id: str, attributes: Attributes) -> None:
    name = f"predictions/{model_id}"
    if name not in root:
        root.create_group(name, attributes=dict(attributes))
    group = require_group(root, name)
    target = COLUMN.get(str(group.attrs.get("target", "")))
    for column in PREDICTION_COLUMNS:
        if column.name in group:
            continue
        is_float = column.dtype == "float32"
        create_column(
            group,
            column.name,
            column.dtype,
            fill=column.fill,
            n_objects=require_array(root, "state/status").shape[0],
            attributes={
                "long_name": column.description,
                "units": group.attrs.get("units", "") if is_float else "",
                "ucd": column.ucd_for("" if target is None else target.ucd),
                **({} if is_float else flag_attributes()),
            },
        )


def _ensure_embedding_array(root: zarr.Group, model_id: str, n_features: int) -> None:
    if f"embeddings/{model_id}" in root:
        return
    root.create_array(
        f"embeddings/{model_id}/vector",
        shape=(require_array(root, "state/status").shape[0], n_features),
        chunks=(BLOCK_ROWS, n_features),
        dtype="float16",
        fill_value=np.nan,
        compressors=(COLUMN_CODEC, CHECKSUM),
        dimension_names=("object", "feature"),
        attributes={"long_name": f"Features of the images as model {model_id} sees them, averaged over the views"},
    )


def read_predictions(cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Return all `PREDICTION_COLUMNS` of one model, in the order of `rows`.

    Values without a prediction, or of columns that the cube lacks, are NaN, and -1 in the flags.
    """
    present: tuple[str, ...] = ()
    if model_id in cube.group_names("predictions"):
        present = cube.array_names(f"predictions/{model_id}")
    paths = {name: f"predictions/{model_id}/{name}" for name in PREDICTION_COLUMN if name in present}
    values = cube.read_values(list(paths.values()), rows)
    return pd.DataFrame(
        {
            column.name: values[paths[column.name]]
            if column.name in paths
            else np.full(rows.size, column.fill, dtype=column.dtype)
            for column in PREDICTION_COLUMNS
        }
    )


def read_object_columns(cube: Cube, rows: npt.NDArray[np.int64], names: Sequence[str]) -> pd.DataFrame:
    """Return columns of the catalog or the state, in the order of `rows`; NaN = no value."""
    state = {column.name for column in STATE_COLUMNS}
    paths = {name: f"{'state' if name in state else 'catalog'}/{name}" for name in names}
    values = cube.read_values(list(paths.values()), rows)
    return pd.DataFrame({name: values[path] for name, path in paths.items()})


def unscored_rows(cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the unique rows with a stored cutout and no prediction of this model, ascending."""
    rows = np.unique(rows)
    missing = read_predictions(cube, model_id, rows)["mean"].isna().to_numpy()
    stored = cube.read_state("status")[rows] == Status.STORED
    return np.asarray(rows[missing & stored], dtype=np.int64)

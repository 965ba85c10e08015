"""Predictions beside the cube: one group a model, one value an object, NaN where nothing was scored yet.

Cubes of earlier versions hold `mean` and `view_spread` alone: the other columns read as not known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import zarr

from galstore.commits import commit
from galstore.cube import ensure_embedding_array, ensure_prediction_arrays
from galstore.reader import Cube
from schemas.catalog import COLUMN
from schemas.cutouts import Reason, Status
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


def read_magnitudes(cube: Cube, rows: npt.NDArray[np.int64], names: Sequence[str]) -> pd.DataFrame:
    """Columns of the catalog that scoring compares with the training set, in the order of `rows`; NaN = missing."""
    values = cube.read_values([f"catalog/{name}" for name in names], rows)
    return pd.DataFrame({name: values[f"catalog/{name}"] for name in names})


def unscored_rows(cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Those of some objects that have a stored cutout and no prediction of this model yet, ascending."""
    rows = np.unique(rows)
    missing = read_predictions(cube, model_id, rows)["mean"].isna().to_numpy()
    stored = cube.read_state("status")[rows] == Status.STORED
    return np.asarray(rows[missing & stored], dtype=np.int64)


def prediction_catalog(cube: Cube, model_id: str, objects: pd.DataFrame) -> pd.DataFrame:
    """Predictions of a catalog's objects, one row each, also of those that could not be scored.

    Parameters
    ----------
    cube
        Where the predictions are.
    model_id
        Of which model.
    objects
        Columns object_id, ra, dec (deg).

    Returns
    -------
    DataFrame
        object_id, ra, dec, prediction, view_spread (both in the unit of the target, NaN where there is none), status
        ('scored', 'pending', or the reason of quarantine), model_id; rows in the order of `objects`.
    """
    rows = cube.rows_of(objects["object_id"].to_numpy())
    predictions = read_predictions(cube, model_id, rows)
    reasons = [Reason(code).name.lower() for code in cube.read_state("reason")[rows]]
    status = np.where(cube.read_state("status")[rows] == Status.QUARANTINED, reasons, "pending")
    return objects[["object_id", "ra", "dec"]].assign(
        prediction=predictions["mean"].to_numpy(),
        view_spread=predictions["view_spread"].to_numpy(),
        status=np.where(predictions["mean"].notna(), "scored", status),
        model_id=model_id,
    )


def write_prediction_catalog(path: Path, catalog: pd.DataFrame, *, provenance: Mapping[str, str]) -> None:
    """Write a catalog of predictions as Parquet, whole or not at all; units and provenance stand in its metadata."""
    table = pa.Table.from_pandas(catalog, preserve_index=False)
    fields = [
        field.with_metadata({"unit": COLUMN[field.name].unit}) if field.name in COLUMN else field
        for field in table.schema
    ]
    schema = pa.schema(fields, metadata={**(table.schema.metadata or {}), **provenance})
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    pyarrow.parquet.write_table(table.cast(schema), draft)
    draft.replace(path)

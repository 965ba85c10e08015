"""Published predictions: catalogs of predictions with intervals, flags, units and provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from galstore.atomic_write import atomic_file
from galstore.cube.arrays import Attributes
from galstore.cube.commits import open_repository
from galstore.cube.predictions import read_predictions
from galstore.cube.reader import Cube
from galstore.export.formats import IN_MEMORY_FORMATS, Exported, PredictionFormat, write_export
from galstore.export.object_table import (
    GROUP_ROWS,
    ExportRequest,
    ObjectTable,
    TableColumn,
    catalog_column,
    missing_reasons,
    read_columns,
)
from galstore.export.parquet import voparquet_schema
from galstore.export.provenance import ExportProvenance, read_provenance
from galstore.export.sparse_rows import iter_slices
from schemas.catalog import COLUMN
from schemas.cutouts import Reason
from schemas.errors import ExportError
from schemas.predictions import PREDICTION_COLUMNS, UNKNOWN_FLAGS, Flag, flag_names

MAX_ROWS_IN_MEMORY = 1_000_000
"""Maximum number of rows of a format whose writer holds the whole table: 150 MB."""

_POSITIONS = tuple(catalog_column(COLUMN[name]) for name in ("object_id", "ra", "dec"))
_PUBLISHED_NAMES = {"mean": "prediction"}
"""Names of published columns that differ from the names in the cube."""


def publish_predictions(
    cube: Cube,
    model_id: str,
    out: Path,
    *,
    format: PredictionFormat = PredictionFormat.PARQUET,  # noqa: A002 - the word that users of exporters know
    catalog: str | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write the predictions of a model as a catalog, which appears complete or not at all.

    Parameters
    ----------
    model_id
        Id of a model or an ensemble.
    out
        Folder (hats) or file to create.
    format
        hats, parquet and csv take any number of objects; the other formats up to `MAX_ROWS_IN_MEMORY`.
    catalog
        Name of a catalog: publish all its objects, and the reason of each missing prediction. None = all objects with
        a prediction.

    Raises
    ------
    ExportError
        The predictions or the catalog do not exist, no objects are selected, the format cannot take all rows, `out`
        exists, or a library of the format is not installed.
    """
    rows = _select_rows(cube, model_id, catalog)
    if format in IN_MEMORY_FORMATS and rows.size > MAX_ROWS_IN_MEMORY:
        raise ExportError(
            f"{rows.size:,} rows are too many for format '{format}', which takes up to {MAX_ROWS_IN_MEMORY:,}: "
            "use parquet, hats or csv"
        )
    provenance, table = _read_provenance(cube, model_id, n_objects=rows.size), _prediction_table(cube, model_id)
    request = ExportRequest(cube=cube, rows=rows, provenance=provenance, table=table, on_progress=on_progress)
    return write_export(request, out, format)


def write_scored_catalog(
    path: Path, cube: Cube, model_id: str, objects: pd.DataFrame, *, page_rows: int = GROUP_ROWS
) -> dict[str, int]:
    """Write the predictions of a catalog's objects as VOParquet, in the order of the catalog.

    Parameters
    ----------
    path
        File to create or to replace, in one step.
    model_id
        Id of a model or an ensemble.
    objects
        Columns object_id, ra, dec (deg) of registered objects; positions are taken from here.

    Returns
    -------
    dict
        Number of objects by status ('scored', 'pending', or the reason of quarantine), the most frequent first.
    """
    table = _prediction_table(cube, model_id)
    schema = voparquet_schema(table.columns, _read_provenance(cube, model_id, n_objects=len(objects)))
    counts: Counter[str] = Counter()
    with atomic_file(path) as draft, pyarrow.parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
        for part in iter_slices(len(objects), page_rows):
            page = objects.iloc[part]
            # a catalog may contain an object twice
            rows, inverse = np.unique(cube.rows_of(page["object_id"].to_numpy()), return_inverse=True)
            content = table.read(rows).take(pa.array(inverse.reshape(-1)))
            for name in ("ra", "dec"):
                values = pa.array(page[name].to_numpy(dtype=np.float64))
                content = content.set_column(content.column_names.index(name), name, values)
            writer.write_table(content.cast(schema))
            counts.update(content["status"].to_pylist())
    return dict(counts.most_common())


def _prediction_table(cube: Cube, model_id: str) -> ObjectTable:
    return ObjectTable(columns=_prediction_columns(cube, model_id), read=lambda rows: _read_page(cube, model_id, rows))


def _prediction_columns(cube: Cube, model_id: str) -> tuple[TableColumn, ...]:
    attributes = _attributes(cube, model_id)
    target = COLUMN.get(str(attributes.get("target", "")))
    predictions = []
    for column in PREDICTION_COLUMNS:
        is_float = column.dtype == "float32"
        of_target = f": {target.description}" if target and column.name == "mean" else ""
        predictions.append(
            TableColumn(
                _PUBLISHED_NAMES.get(column.name, column.name),
                pa.float32() if is_float else pa.int32(),
                column.description + of_target,
                unit=str(attributes.get("units", "")) if is_float else "",
                ucd=column.ucd_for(target.ucd if target else ""),
                null=None if is_float else UNKNOWN_FLAGS,
            )
        )
    flags_length, status_length = (
        sum(len(str(flag.name)) + 1 for flag in Flag),
        max(len(reason.name) for reason in Reason),
    )
    texts = (
        ("flag_names", flags_length, "meta.code.qual", "Names of the flags, joined by |"),
        ("status", status_length, "meta.code", "'scored', 'pending', or the reason without an image"),
        ("model_id", max(len(model_id), 1), "meta.id", "Id of the model or ensemble"),
    )
    described = (TableColumn(name, pa.string(), text, length=length, ucd=ucd) for name, length, ucd, text in texts)
    return (*_POSITIONS, *predictions, *described)


def _read_provenance(cube: Cube, model_id: str, *, n_objects: int) -> ExportProvenance:
    """Return the provenance with model, training set, and the run or commit of the last predictions."""
    attributes = _attributes(cube, model_id)
    further = {"model_id": model_id}
    for name in ("target", "training_set", "level", "views", "members", "training_sets"):
        if name in attributes:
            value = attributes[name]
            further[name] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    for ancestor in open_repository(cube.path).ancestry(snapshot_id=cube.snapshot_id):
        metadata = ancestor.metadata
        if metadata.get("operation") == "predict" and metadata.get("model") == model_id:
            further["run"] = str(metadata.get("run") or metadata.get("commit_id", ancestor.id))
            break
    return replace(read_provenance(cube, n_objects=n_objects), model_id=model_id, further=further)


def _attributes(cube: Cube, model_id: str) -> Attributes:
    return cube.group_attributes(f"predictions/{model_id}") if model_id in cube.group_names("predictions") else {}


def _select_rows(cube: Cube, model_id: str, catalog: str | None) -> npt.NDArray[np.int64]:
    known = cube.group_names("predictions")
    if model_id not in known:
        raise ExportError(
            f"{cube.path} has no predictions of model {model_id!r}: choose one of {', '.join(known) or 'none'}, or run "
            "`galstore score`"
        )
    if catalog is None:
        rows = np.flatnonzero(np.isfinite(np.asarray(cube.array(f"predictions/{model_id}/mean")[:])))
    else:
        names = [str(entry["name"]) for entry in cube.attributes["catalogs"]]
        if catalog not in names:
            raise ExportError(f"{cube.path} has no catalog {catalog!r}: choose one of {', '.join(names)}")
        rows = np.flatnonzero(cube.read_state("catalog") == names.index(catalog))
    if not rows.size:
        raise ExportError(f"{cube.path} has no objects to publish: score objects with model {model_id} first")
    return rows.astype(np.int64)


def _read_page(cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> pa.Table:
    predictions = read_predictions(cube, model_id, rows)
    is_scored = np.isfinite(predictions["mean"].to_numpy())
    codes = predictions["flags"].to_numpy()
    # only a few combinations of flags occur
    names = {int(code): flag_names(int(code)) for code in np.unique(codes)}
    table = read_columns(cube, rows, _POSITIONS)
    for column in PREDICTION_COLUMNS:
        name = _PUBLISHED_NAMES.get(column.name, column.name)
        table = table.append_column(name, pa.array(predictions[column.name].to_numpy()))
    flags = [names[int(code)] if scored else "" for code, scored in zip(codes, is_scored, strict=True)]
    reasons = missing_reasons(cube, rows)
    status = ["scored" if scored else reason for scored, reason in zip(is_scored, reasons, strict=True)]
    for name, values in (("flag_names", flags), ("status", status), ("model_id", [model_id] * rows.size)):
        table = table.append_column(name, pa.array(values, pa.string()))
    return table

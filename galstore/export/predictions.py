"""Published predictions: what a model says of a catalog's objects, with error bars, flags, units and provenance."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from galstore.cube.commits import open_repository
from galstore.cube.predictions import read_predictions
from galstore.cube.reader import Cube
from galstore.export.cube import Exported, draft_file, draft_folder
from galstore.export.hats import write_hats
from galstore.export.parquet import write_parquet
from galstore.export.provenance import Provenance, provenance_of
from galstore.export.rows import in_steps, read_rows
from galstore.export.small_tables import write_csv, write_small_table
from galstore.export.table import GROUP_ROWS, TableColumn, TableSource, arrow_schema, why_missing
from schemas.catalog import COLUMN
from schemas.cutouts import Reason
from schemas.errors import ExportError
from schemas.predictions import PREDICTION_COLUMNS, UNKNOWN_FLAGS, Flag, flag_names

MOST_SMALL_ROWS = 1_000_000
"""Of a format whose writer holds the whole table: 150 MB."""


class PredictionFormat(StrEnum):
    """As what predictions are published."""

    HATS = "hats"
    """A folder of Parquet files split by position on the sky, for lsdb and hats."""
    PARQUET = "parquet"
    """One file with units, UCDs and provenance (VOParquet), for astropy, TOPCAT, pandas, DuckDB."""
    CSV = "csv"
    ECSV = "ecsv"
    FITS = "fits"
    VOTABLE = "votable"


def publish_predictions(
    cube: Cube,
    model_id: str,
    out: Path,
    *,
    format: PredictionFormat = PredictionFormat.PARQUET,  # noqa: A002 - the word that every exporter's users know
    catalog: str | None = None,
    most_small_rows: int = MOST_SMALL_ROWS,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write a model's predictions as a catalog that others can use, whole or not at all.

    Parameters
    ----------
    cube
        The snapshot.
    model_id
        Id of a model or an ensemble that has scored objects of it.
    out
        Folder (hats) or file to be made.
    format
        hats, parquet and csv are written in pages, whatever the number of objects; the others hold up to
        `most_small_rows`.
    catalog
        Name of a catalog: all objects that it brought, also those without a prediction, with the reason. None = every
        object with a prediction.
    most_small_rows
        The most rows of a file that is written in one piece.
    on_progress
        Called with how many objects have been written since the last call.

    Raises
    ------
    ExportError
        No such predictions or catalog, nothing to write, too many rows for the format, `out` is there already, or a
        library that the format needs is not installed.
    """
    rows = _chosen_rows(cube, model_id, catalog)
    source = prediction_source(cube, model_id)
    provenance = prediction_provenance(cube, model_id, n_objects=rows.size)
    if format is PredictionFormat.HATS:
        with draft_folder(out) as draft:
            write_hats(cube, draft, rows, provenance, source=source, on_progress=on_progress)
            lengths = [file.stat().st_size for file in draft.rglob("*") if file.is_file()]
        return Exported(path=out, n_objects=rows.size, n_files=len(lengths), bytes=sum(lengths))
    with draft_file(out) as draft:
        if format is PredictionFormat.PARQUET:
            write_parquet(cube, draft, rows, provenance, source=source, on_progress=on_progress)
        elif format is PredictionFormat.CSV:
            write_csv(draft, rows, source, on_progress=on_progress)
        else:
            if rows.size > most_small_rows:
                raise ExportError(
                    f"{rows.size:,} rows are too many for format '{format}', which holds up to {most_small_rows:,}: "
                    "use parquet, hats or csv"
                )
            write_small_table(draft, format.value, source.read(rows), source.columns, provenance.to_dict())
            on_progress(rows.size)
        n_bytes = draft.stat().st_size
    return Exported(path=out, n_objects=rows.size, n_files=1, bytes=n_bytes)


def write_scored_catalog(
    path: Path, cube: Cube, model_id: str, objects: pd.DataFrame, *, page_rows: int = GROUP_ROWS
) -> dict[str, int]:
    """Write the predictions of a catalog's objects as VOParquet, in its order, a page at a time, whole or not at all.

    Parameters
    ----------
    path
        File to be made, or replaced.
    cube
        The snapshot.
    model_id
        Of which model or ensemble.
    objects
        Columns object_id, ra, dec (deg), all registered; places are written as they are here.
    page_rows
        How many objects are read and written at a time.

    Returns
    -------
    dict
        Objects by status: 'scored', 'pending', or the reason of quarantine; the most frequent first.
    """
    source = prediction_source(cube, model_id)
    schema = arrow_schema(source.columns, prediction_provenance(cube, model_id, n_objects=len(objects)))
    counts: Counter[str] = Counter()
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with pyarrow.parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
            for part in in_steps(len(objects), page_rows):
                page = objects.iloc[part]
                rows = cube.rows_of(page["object_id"].to_numpy())
                # an object may stand in the catalog twice
                ascending, place = np.unique(rows, return_inverse=True)
                table = source.read(ascending).take(pa.array(place.reshape(-1)))
                for name in ("ra", "dec"):
                    values = pa.array(page[name].to_numpy(dtype=np.float64))
                    table = table.set_column(table.column_names.index(name), name, values)
                writer.write_table(table.cast(schema))
                counts.update(table["status"].to_pylist())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return dict(counts.most_common())


def prediction_source(cube: Cube, model_id: str) -> TableSource:
    """The columns of published predictions: places, predictions, flags by bits and by name, status, model."""
    return TableSource(
        columns=prediction_table_columns(cube, model_id), read=lambda rows: _read_page(cube, model_id, rows)
    )


def prediction_table_columns(cube: Cube, model_id: str) -> tuple[TableColumn, ...]:
    """Columns of published predictions, with units and UCDs of the model's target."""
    attributes = _attributes(cube, model_id)
    target = COLUMN.get(str(attributes.get("target", "")))
    unit, target_ucd = str(attributes.get("units", "")), "" if target is None else target.ucd
    named = {"mean": "prediction"}
    places = [
        TableColumn(name=one.name, type=pa.int64() if one.dtype == "int64" else pa.float64(),
                    description=one.description, unit=one.unit, ucd=one.ucd)
        for one in (COLUMN["object_id"], COLUMN["ra"], COLUMN["dec"])
    ]  # fmt: skip
    told = [
        TableColumn(
            name=named.get(one.name, one.name),
            type=pa.float32() if one.dtype == "float32" else pa.int32(),
            description=_described(one.description, one.name, target.description if target else ""),
            unit=unit if one.dtype == "float32" else "", ucd=one.ucd_for(target_ucd),
            null=UNKNOWN_FLAGS if one.dtype == "int32" else None,
        )
        for one in PREDICTION_COLUMNS
    ]  # fmt: skip
    longest = sum(len(str(one.name)) + 1 for one in Flag)
    return (
        *places, *told,
        TableColumn(name="flag_names", type=pa.string(), length=longest, ucd="meta.code.qual",
                    description="Names of the flags, apart by |; empty where there are none"),
        TableColumn(name="status", type=pa.string(), length=max(len(one.name) for one in Reason), ucd="meta.code",
                    description="'scored', 'pending', or why there is no image"),
        TableColumn(name="model_id", type=pa.string(), length=max(len(model_id), 1), ucd="meta.id",
                    description="Id of the model or ensemble that predicted"),
    )  # fmt: skip


def prediction_provenance(cube: Cube, model_id: str, *, n_objects: int) -> Provenance:
    """The parents of predictions: model, training set, snapshot, and the commit or run that wrote the last of them."""
    attributes = _attributes(cube, model_id)
    told = {"model_id": model_id}
    for name in ("target", "training_set", "level", "views"):
        if name in attributes:
            told[name] = str(attributes[name])
    for name in ("members", "training_sets"):
        if name in attributes:
            told[name] = " ".join(map(str, attributes[name]))
    for ancestor in open_repository(cube.path).ancestry(snapshot_id=cube.snapshot_id):
        metadata = ancestor.metadata
        if metadata.get("operation") == "predict" and metadata.get("model") == model_id:
            told["run"] = str(metadata.get("run") or metadata.get("commit_id", ancestor.id))
            break
    return replace(provenance_of(cube, n_objects=n_objects), model_id=model_id, further=told)


def _attributes(cube: Cube, model_id: str) -> Mapping[str, Any]:
    if model_id not in cube.group_names("predictions"):
        return {}
    return cube.group_attributes(f"predictions/{model_id}")


def _described(description: str, name: str, of_target: str) -> str:
    return f"{description}: {of_target}" if of_target and name == "mean" else description


def _chosen_rows(cube: Cube, model_id: str, catalog: str | None) -> npt.NDArray[np.int64]:
    known = cube.group_names("predictions")
    if model_id not in known:
        raise ExportError(
            f"{cube.path} has no predictions of model {model_id!r}: there are {', '.join(known) or 'none yet'}; "
            "`galstore score` makes them"
        )
    if catalog is None:
        rows = np.flatnonzero(np.isfinite(np.asarray(cube.array(f"predictions/{model_id}/mean")[:])))
    else:
        names = [str(one["name"]) for one in cube.attributes["catalogs"]]
        if catalog not in names:
            raise ExportError(f"{cube.path} has no catalog {catalog!r}: choose one of {', '.join(names)}")
        rows = np.flatnonzero(cube.read_state("catalog") == names.index(catalog))
    if not rows.size:
        raise ExportError(f"{cube.path} has no objects to publish: score some with model {model_id} first")
    return rows.astype(np.int64)


def _read_page(cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> pa.Table:
    predictions = read_predictions(cube, model_id, rows)
    scored = np.isfinite(predictions["mean"].to_numpy())
    codes = predictions["flags"].to_numpy()
    # few combinations occur
    names = {int(code): flag_names(int(code)) for code in np.unique(codes)}
    arrays = {name: pa.array(read_rows(cube.array(f"catalog/{name}"), rows)) for name in ("object_id", "ra", "dec")}
    arrays |= {
        "prediction" if column.name == "mean" else column.name: pa.array(predictions[column.name].to_numpy())
        for column in PREDICTION_COLUMNS
    }
    reasons = why_missing(cube, rows)
    arrays["flag_names"] = pa.array(
        [names[int(code)] if there else "" for code, there in zip(codes, scored, strict=True)], pa.string()
    )
    arrays["status"] = pa.array(
        ["scored" if there else reason for there, reason in zip(scored, reasons, strict=True)], pa.string()
    )
    arrays["model_id"] = pa.array([model_id] * rows.size, pa.string())
    return pa.table(arrays)

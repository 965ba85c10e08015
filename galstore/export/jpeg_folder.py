"""Folder of the delivered JPEGs with CSV tables of the objects."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from galstore.export.object_table import (
    IMAGE_FILE,
    ExportRequest,
    TableColumn,
    cube_columns,
    has_image,
    image_column,
    image_path,
    missing_reasons,
    read_columns,
)
from galstore.export.provenance import ExportProvenance
from galstore.export.sparse_rows import iter_slices, read_sparse_rows
from schemas.cube import BLOCK_ROWS
from schemas.cutouts import SIDE_PX


def write_jpeg_folder(request: ExportRequest, folder: Path) -> None:
    """Write `images/`, `catalog.csv` (all objects), `missing.csv` (objects without an image) and `README.txt`."""
    cube = request.cube
    object_id, *others = (column for column in cube_columns(cube) if not column.path.startswith("state/"))
    columns = (object_id, image_column(), *others)
    n_missing = 0
    for part in iter_slices(request.rows.size, request.group_rows):
        rows = request.rows[part]
        table = read_columns(cube, rows, columns).to_pandas().rename(columns={IMAGE_FILE: "file"})
        _append_csv(folder / "catalog.csv", _blank_nulls(table, columns))
        absent = rows[~has_image(cube, rows)]
        ids = read_sparse_rows(cube.array("catalog/object_id"), absent)
        _append_csv(folder / "missing.csv", pd.DataFrame({"object_id": ids, "reason": missing_reasons(cube, absent)}))
        n_missing += absent.size
    write_images(request, folder)
    (folder / "README.txt").write_text(_readme(columns, request.provenance, n_missing), encoding="utf-8")


def write_images(request: ExportRequest, folder: Path) -> None:
    """Write the delivered JPEGs as `images/<object_id>.jpg`, one block of objects at a time."""
    cube = request.cube
    (folder / "images").mkdir()
    for part in iter_slices(request.rows.size, BLOCK_ROWS):
        rows = request.rows[part]
        stored = rows[has_image(cube, rows)]
        ids = read_sparse_rows(cube.array("catalog/object_id"), stored)
        lengths = read_sparse_rows(cube.array("state/body_length"), stored)
        bodies = read_sparse_rows(cube.array("delivered/body"), stored, stride=BLOCK_ROWS)
        for object_id, length, body in zip(ids, lengths, bodies, strict=True):
            (folder / image_path(object_id)).write_bytes(body[:length].tobytes())
        request.on_progress(rows.size)


def _append_csv(file: Path, table: pd.DataFrame) -> None:
    table.to_csv(file, mode="a", header=not file.exists(), index=False, lineterminator="\n")


def _blank_nulls(table: pd.DataFrame, columns: tuple[TableColumn, ...]) -> pd.DataFrame:
    """Replace missing integers by NA, which is empty in CSV."""
    nulls = {column.name: column.null for column in columns if column.null is not None}
    return table.assign(**{name: table[name].astype("Int64").mask(table[name] == null) for name, null in nulls.items()})


def _readme(columns: tuple[TableColumn, ...], provenance: ExportProvenance, n_missing: int) -> str:
    described = []
    for column in columns:
        name = "file" if column.name == IMAGE_FILE else column.name
        described.append(f"  {name}{f' [{column.unit}]' if column.unit else ''}: {column.description}")
    lines = [
        f"Galaxy images of {provenance.sky}",
        "",
        f"images/<object_id>.jpg  JPEGs as delivered, {SIDE_PX} x {SIDE_PX} px; {provenance.image_description}",
        f"catalog.csv             {provenance.n_objects} objects, with and without images; empty = unknown",
        f"missing.csv             {n_missing} objects without an image; 'pending' = not fetched, else quarantined",
        "",
        "Columns of catalog.csv, units in brackets:",
        *described,
        "",
        "Provenance:",
        *(f"  {name}: {text}" for name, text in provenance.to_dict().items()),
        "",
    ]
    return "\n".join(lines)

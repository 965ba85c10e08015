"""Table of an export: catalog, labels and state of objects, each column with unit and UCD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galstore.cube.arrays import Values
from galstore.cube.reader import Cube
from galstore.export.provenance import ExportProvenance
from galstore.export.sparse_rows import read_sparse_rows
from schemas.catalog import CATALOG_COLUMNS, COLUMN, LABEL_COLUMNS, Column
from schemas.cube import CATALOG_CHUNK_ROWS, LABEL_VIEW, LEVELS, STATE_COLUMNS, StateColumn
from schemas.cutouts import Reason, Status

GROUP_ROWS = 4 * CATALOG_CHUNK_ROWS
"""Rows read and written at a time, about 20 MB: whole chunks of the cube's columns, so that each is read once."""

IMAGE_FILE = "image_file"
"""Column with the file of an object's image, in exports with images."""

_ARROW = {"float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64()}
_STATE_ARROW = {"uint8": pa.int32(), "uint16": pa.int32(), "uint32": pa.int64(), "float32": pa.float32()}


@dataclass(frozen=True, slots=True)
class TableColumn:
    """Column of an exported table.

    Attributes
    ----------
    length
        Maximum length of a string in bytes.
    null
        Missing value of an integer column; floats use NaN.
    path
        Array of the cube; empty for a column made for the export.
    flags
        Codes in the cube; the table contains their names in lower case.
    """

    name: str
    type: pa.DataType
    description: str
    _: KW_ONLY
    unit: str = ""
    ucd: str = ""
    length: int = 0
    null: int | None = None
    path: str = ""
    flags: type[IntEnum] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectTable:
    """Columns of a table of objects, and a function that reads them at ascending rows of the cube."""

    columns: tuple[TableColumn, ...]
    read: Callable[[npt.NDArray[np.int64]], pa.Table]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Input of the writer of a format.

    `rows` of the cube, shape (n,), are ascending and unique. Zarr ignores `table`, and only Zarr uses `levels` (px).
    `group_rows` rows are read at a time. `on_progress` gets the number of objects written since its last call.
    """

    cube: Cube
    rows: npt.NDArray[np.int64]
    provenance: ExportProvenance
    table: ObjectTable
    levels: tuple[int, ...] = LEVELS
    group_rows: int = GROUP_ROWS
    on_progress: Callable[[int], None] = field(default=lambda _: None)


def cube_table(cube: Cube, *, with_images: bool = False) -> ObjectTable:
    """Return the table of catalog, labels and state, followed by the image files if requested."""
    columns = (*cube_columns(cube), image_column()) if with_images else cube_columns(cube)
    return ObjectTable(columns=columns, read=lambda rows: read_columns(cube, rows, columns))


def cube_columns(cube: Cube) -> tuple[TableColumn, ...]:
    """Return the columns object_id, catalog, labels and state."""
    catalog = [catalog_column(COLUMN[name]) for name in ("object_id", *CATALOG_COLUMNS)]
    labels = [catalog_column(COLUMN[name], f"labels/{LABEL_VIEW}") for name in LABEL_COLUMNS]
    return (*catalog, *labels, *(_state_column(column, cube) for column in STATE_COLUMNS))


def image_column() -> TableColumn:
    description, length = "File of the delivered JPEG; empty if none is stored", len(image_path(2**63 - 1))
    return TableColumn(IMAGE_FILE, pa.string(), description, ucd="meta.file", length=length)


def image_path(object_id: int) -> str:
    """Return the file of an object's image, relative to the folder of the export."""
    return f"images/{object_id}.jpg"


def read_columns(cube: Cube, rows: npt.NDArray[np.int64], columns: tuple[TableColumn, ...]) -> pa.Table:
    """Read columns of objects at ascending rows; missing values are NaN or `TableColumn.null`."""
    schema = pa.schema([pa.field(column.name, column.type) for column in columns])
    return pa.table([_read_column(cube, rows, column) for column in columns], schema=schema)


def has_image(cube: Cube, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return whether the cube stores the JPEG of each object, shape (n,)."""
    stored = read_sparse_rows(cube.array("state/status"), rows) == Status.STORED
    return np.asarray(stored & (read_sparse_rows(cube.array("state/body_length"), rows) > 0))


def missing_reasons(cube: Cube, rows: npt.NDArray[np.int64]) -> list[str]:
    """Return the reason of quarantine, or 'pending', of objects without an image."""
    states, reasons = (read_sparse_rows(cube.array(f"state/{name}"), rows) for name in ("status", "reason"))
    return [
        Reason(reason).name.lower() if status == Status.QUARANTINED else "pending"
        for status, reason in zip(states, reasons, strict=True)
    ]


def catalog_column(column: Column, group: str = "catalog") -> TableColumn:
    """Return the table column of a column of the catalog or of labels, which is in a group of the cube."""
    null = -1 if column.dtype == "int64" and not column.required else None
    name, path, described = column.name, f"{group}/{column.name}", column.description
    return TableColumn(name, _ARROW[column.dtype], described, unit=column.unit, ucd=column.ucd, null=null, path=path)


def _state_column(column: StateColumn, cube: Cube) -> TableColumn:
    length, description = 0, column.description
    if column.name == "catalog":
        description = "Name of the object's catalog"
        length = max(len(name.encode()) for name in _catalog_names(cube))
    elif column.flags is not None:
        length = max(len(code.name) for code in column.flags)
    elif column.width > 1:
        length = 2 * column.width
    kind, path = pa.string() if length else _STATE_ARROW[column.dtype], f"state/{column.name}"
    return TableColumn(column.name, kind, description, unit=column.unit, length=length, path=path, flags=column.flags)


def _catalog_names(cube: Cube) -> list[str]:
    return [str(entry["name"]) for entry in cube.attributes["catalogs"]]


def _read_column(cube: Cube, rows: npt.NDArray[np.int64], column: TableColumn) -> pa.Array:
    if column.name == IMAGE_FILE:
        ids, stored = read_sparse_rows(cube.array("catalog/object_id"), rows), has_image(cube, rows)
        paths = [image_path(object_id) if is_stored else "" for object_id, is_stored in zip(ids, stored, strict=True)]
        return pa.array(paths, pa.string())
    values = read_sparse_rows(cube.array(column.path), rows)
    if column.flags is not None:
        return _decode_names(values, {int(code): code.name.lower() for code in column.flags})
    if column.path == "state/catalog":
        return _decode_names(values, dict(enumerate(_catalog_names(cube))))
    if values.ndim > 1:
        return pa.array([digest.tobytes().hex() if digest.any() else "" for digest in values], type=column.type)
    return pa.array(values).cast(column.type)


def _decode_names(codes: Values, names: dict[int, str]) -> pa.Array:
    return pa.array([names[int(code)] for code in codes], type=pa.string())

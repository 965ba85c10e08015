"""The table of an export: catalog, labels and state of some objects, each column with its unit and meaning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from galstore.cube.reader import Cube
from galstore.export.provenance import Provenance
from galstore.export.rows import read_rows
from schemas.catalog import CATALOG_COLUMNS, COLUMN, LABEL_COLUMNS, Column
from schemas.cube import CATALOG_CHUNK_ROWS, LABEL_VIEW, STATE_COLUMNS, StateColumn
from schemas.cutouts import Reason, Status

GROUP_ROWS = 4 * CATALOG_CHUNK_ROWS
"""Rows of a Parquet row group, about 20 MB: whole chunks of the cube's columns, each of which is read once."""

IMAGE_FILE = "image_file"
"""Name of the column that holds the file of an object's image, where the export has images."""

_VO_TYPES = {"int64": "long", "int32": "int", "float": "float", "double": "double", "string": "char"}
_ARROW = {"float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64()}
_STATE_ARROW = {"uint8": pa.int32(), "uint16": pa.int32(), "uint32": pa.int64(), "float32": pa.float32()}
_NAMESPACE = "http://www.ivoa.net/xml/VOTable/v1.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """One column of an exported table."""

    name: str
    type: pa.DataType
    description: str
    unit: str = ""
    ucd: str = ""
    length: int = 0
    """Bytes of the longest text, in a column of texts."""
    null: int | None = None
    """The number that stands for none, in a column of integers; of floats it is NaN."""
    path: str = ""
    """Its array in the cube; empty where it is made for the export."""
    flags: type[IntEnum] | None = None
    """Codes whose names the table holds in their place, in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSource:
    """What an export tells of objects: its columns, and how their values at some ascending rows are read."""

    columns: tuple[TableColumn, ...]
    read: Callable[[npt.NDArray[np.int64]], pa.Table]


def cube_source(cube: Cube, extra_columns: tuple[TableColumn, ...] = ()) -> TableSource:
    """Catalog, labels and state of a cube, and extra columns behind them."""
    columns = (*table_columns(cube), *extra_columns)
    return TableSource(columns=columns, read=lambda rows: read_table(cube, rows, columns))


def image_column() -> TableColumn:
    """The column of the images' files."""
    return TableColumn(
        name=IMAGE_FILE, type=pa.string(), description="File of the delivered JPEG; empty where none is stored",
        ucd="meta.file", length=len(image_path(2**63 - 1)),
    )  # fmt: skip


def table_columns(cube: Cube) -> tuple[TableColumn, ...]:
    """Columns of every table: object_id, catalog, labels, state."""
    catalog = [_described(COLUMN[name], f"catalog/{name}") for name in ("object_id", *CATALOG_COLUMNS)]
    labels = [_described(COLUMN[name], f"labels/{LABEL_VIEW}/{name}") for name in LABEL_COLUMNS]
    return (*catalog, *labels, *(_state(column, cube) for column in STATE_COLUMNS))


def read_table(cube: Cube, rows: npt.NDArray[np.int64], columns: tuple[TableColumn, ...]) -> pa.Table:
    """Columns of some objects.

    Parameters
    ----------
    cube
        The snapshot.
    rows
        Row numbers, shape (n,), ascending.
    columns
        Which; the images' files follow from the objects' ids.

    Returns
    -------
    pyarrow.Table
        n rows; NaN where a float is missing, `TableColumn.null` where an integer is.
    """
    arrays = [
        _read_images(cube, rows) if column.name == IMAGE_FILE else _read(cube, rows, column) for column in columns
    ]
    return pa.table(arrays, schema=pa.schema([pa.field(column.name, column.type) for column in columns]))


def has_image(cube: Cube, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the cube holds the delivered image of each object, shape (n,)."""
    stored = read_rows(cube.array("state/status"), rows) == Status.STORED
    return np.asarray(stored & (read_rows(cube.array("state/body_length"), rows) > 0))


def why_missing(cube: Cube, rows: npt.NDArray[np.int64]) -> list[str]:
    """Why each of some objects has no image: 'pending', or the reason of its quarantine."""
    status, reason = (read_rows(cube.array(f"state/{name}"), rows) for name in ("status", "reason"))
    return [
        Reason(why).name.lower() if one == Status.QUARANTINED else "pending"
        for one, why in zip(status, reason, strict=True)
    ]


def arrow_schema(columns: tuple[TableColumn, ...], provenance: Provenance) -> pa.Schema:
    """The schema of a file with its metadata: VOParquet 1.0's two keys, and the provenance as `galstore.*`.

    See the IVOA note VOParquet 1.0 (2025-01-16): `IVOA.VOTable-Parquet.version` and `.content`, a VOTable without
    data.
    """
    fields = [
        pa.field(
            column.name,
            column.type,
            metadata={
                key: text
                for key, text in {"unit": column.unit, "ucd": column.ucd, "description": column.description}.items()
                if text
            },
        )
        for column in columns
    ]
    metadata = {
        "IVOA.VOTable-Parquet.version": "1.0",
        "IVOA.VOTable-Parquet.content": _votable(columns, provenance),
        **{f"galstore.{name}": text for name, text in provenance.to_dict().items()},
        # astropy reads the lengths of texts from here
        **{f"table::len::{column.name}": str(column.length) for column in columns if column.length},
    }
    return pa.schema(fields, metadata=metadata)


def _described(column: Column, path: str) -> TableColumn:
    whole = column.dtype == "int64"
    return TableColumn(
        name=column.name, type=_ARROW[column.dtype], description=column.description, unit=column.unit, ucd=column.ucd,
        null=-1 if whole and not column.required else None, path=path,
    )  # fmt: skip


def _state(column: StateColumn, cube: Cube) -> TableColumn:
    path, length, description = f"state/{column.name}", 0, column.description
    if column.name == "catalog":
        description = "Name of the catalog that brought the object"
        length = max(len(name.encode()) for name in _catalog_names(cube))
    elif column.flags is not None:
        length = max(len(code.name) for code in column.flags)
    elif column.width > 1:
        length = 2 * column.width
    return TableColumn(
        name=column.name, type=pa.string() if length else _STATE_ARROW[column.dtype], description=description,
        unit=column.unit, length=length, path=path, flags=column.flags,
    )  # fmt: skip


def _catalog_names(cube: Cube) -> list[str]:
    return [str(one["name"]) for one in cube.attributes["catalogs"]]


def _read(cube: Cube, rows: npt.NDArray[np.int64], column: TableColumn) -> pa.Array:
    values = read_rows(cube.array(column.path), rows)
    if column.flags is not None:
        return _names_of(values, {int(code): code.name.lower() for code in column.flags})
    if column.path == "state/catalog":
        return _names_of(values, dict(enumerate(_catalog_names(cube))))
    if values.ndim > 1:
        return pa.array([digest.tobytes().hex() if digest.any() else "" for digest in values], type=column.type)
    return pa.array(values).cast(column.type)


def _names_of(codes: npt.NDArray[Any], names: dict[int, str]) -> pa.Array:
    return pa.array([names[int(code)] for code in codes], type=pa.string())


def _read_images(cube: Cube, rows: npt.NDArray[np.int64]) -> pa.Array:
    ids, present = read_rows(cube.array("catalog/object_id"), rows), has_image(cube, rows)
    return pa.array([image_path(one) if there else "" for one, there in zip(ids, present, strict=True)], pa.string())


def image_path(object_id: int) -> str:
    """File of an object's image, relative to the export's folder."""
    return f"images/{object_id}.jpg"


def _votable(columns: tuple[TableColumn, ...], provenance: Provenance) -> str:
    root = ET.Element("VOTABLE", {"version": "1.4", "xmlns": _NAMESPACE})
    resource = ET.SubElement(root, "RESOURCE", {"type": "results"})
    ET.SubElement(resource, "COOSYS", {"ID": "icrs", "system": "ICRS"})
    for name, text in provenance.to_dict().items():
        ET.SubElement(resource, "INFO", {"name": name, "value": text})
    table = ET.SubElement(resource, "TABLE", {"name": "objects", "nrows": str(provenance.n_objects)})
    ET.SubElement(table, "DESCRIPTION").text = provenance.title
    for column in columns:
        field = {"name": column.name, "datatype": _VO_TYPES[str(column.type)]}
        if column.length:
            # not a bare "*": astropy cannot join columns of texts without a length
            field["arraysize"] = f"{column.length}*"
        if column.unit:
            # VOUnits have no space between a power of ten and its unit
            field["unit"] = column.unit.replace(" ", "")
        if column.ucd:
            field["ucd"] = column.ucd
        if column.name in {"ra", "dec"}:
            field["ref"] = "icrs"
        element = ET.SubElement(table, "FIELD", field)
        ET.SubElement(element, "DESCRIPTION").text = column.description
        if column.null is not None:
            ET.SubElement(element, "VALUES", {"null": str(column.null)})
    return ET.tostring(root, encoding="unicode", xml_declaration=False)

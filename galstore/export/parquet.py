"""Parquet files with units and UCDs: the IVOA note VOParquet 1.0 (2025-01-16)."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pyarrow as pa
import pyarrow.parquet

from galstore.export.object_table import ExportRequest, TableColumn
from galstore.export.provenance import ExportProvenance
from galstore.export.sparse_rows import iter_slices

_VO_TYPES = {"int64": "long", "int32": "int", "float": "float", "double": "double", "string": "char"}
_NAMESPACE = "http://www.ivoa.net/xml/VOTable/v1.3"


def write_parquet(request: ExportRequest, file: Path) -> None:
    """Write the table as VOParquet, one row group at a time."""
    schema = voparquet_schema(request.table.columns, request.provenance)
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in iter_slices(request.rows.size, request.group_rows):
            table = request.table.read(request.rows[part]).cast(schema)
            writer.write_table(table, row_group_size=request.group_rows)
            request.on_progress(part.stop - part.start)


def voparquet_schema(columns: tuple[TableColumn, ...], provenance: ExportProvenance) -> pa.Schema:
    """Return the schema of a VOParquet file.

    Its metadata has the keys `IVOA.VOTable-Parquet.version` and `IVOA.VOTable-Parquet.content` (a VOTable without
    data), and the provenance as `galstore.*`.
    """
    fields = []
    for column in columns:
        texts = {"unit": column.unit, "ucd": column.ucd, "description": column.description}
        metadata = {key: text for key, text in texts.items() if text}
        fields.append(pa.field(column.name, column.type, metadata=metadata))
    return pa.schema(
        fields,
        metadata={
            "IVOA.VOTable-Parquet.version": "1.0",
            "IVOA.VOTable-Parquet.content": _votable(columns, provenance),
            **{f"galstore.{name}": text for name, text in provenance.to_dict().items()},
            # astropy reads the lengths of strings from here
            **{f"table::len::{column.name}": str(column.length) for column in columns if column.length},
        },
    )


def _votable(columns: tuple[TableColumn, ...], provenance: ExportProvenance) -> str:
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
            # not a bare "*": astropy cannot join string columns without a length
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

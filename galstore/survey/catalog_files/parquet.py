"""Parquet catalogs, read in batches.

Units and UCDs come from the field metadata `unit` and `ucd`, astropy's header, or the VOTable of VOParquet.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from galstore.survey.catalog_files.columns import MAX_TEXT_CHARACTERS, DeliveredColumn, Pages, build_series

if TYPE_CHECKING:
    import pyarrow as pa


def read_parquet_pages(path: Path, page_rows: int) -> Pages:
    """Read a Parquet file in pages."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # by default pyarrow reads a whole row group ahead, which is often the whole file
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        schema = file.schema_arrow
        described = _units_and_ucds(schema)
        empty = pa.RecordBatch.from_pylist([], schema=schema)
        for batch in file.iter_batches(page_rows, use_threads=False) if file.metadata.num_rows else [empty]:
            yield tuple(
                DeliveredColumn(name=field.name.strip(), values=_to_series(values), unit=unit, ucd=ucd)
                for field, values, (unit, ucd) in zip(schema, batch.columns, described, strict=True)
            )


def _units_and_ucds(schema: pa.Schema) -> list[tuple[str, str]]:
    """Return unit and UCD of each column; metadata of the column overrides the header of the file."""
    file_metadata = schema.metadata or {}
    found: dict[str, tuple[str, str]] = {}
    if b"IVOA.VOTable-Parquet.content" in file_metadata:
        from astropy.io.votable import parse_single_table

        fields = parse_single_table(io.BytesIO(file_metadata[b"IVOA.VOTable-Parquet.content"])).fields
        found |= {field.name: (str(field.unit or ""), field.ucd or "") for field in fields}
    if b"table_meta_yaml" in file_metadata:
        from astropy.table.meta import get_header_from_yaml

        for column in get_header_from_yaml(file_metadata[b"table_meta_yaml"].decode().split("\n"))["datatype"]:
            meta = {str(key).lower(): value for key, value in dict(column.get("meta") or {}).items()}
            found[column["name"]] = (str(column.get("unit") or ""), str(meta.get("ucd") or ""))
    described = []
    for field in schema:
        own = {key.decode().lower(): value.decode().strip() for key, value in (field.metadata or {}).items()}
        unit, ucd = found.get(field.name, ("", ""))
        described.append((own.get("unit", unit), own.get("ucd", ucd)))
    return described


def _to_series(values: pa.Array) -> pd.Series:
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if types.is_decimal(values.type):
        # exact, for ids of 20 digits from a database
        values = values.cast(pa.string())
    kind = values.type
    missing = np.asarray(values.is_null(), dtype=bool)
    if types.is_integer(kind):
        return build_series(values.fill_null(0).to_numpy(zero_copy_only=False), missing)
    if types.is_floating(kind):
        return build_series(values.to_numpy(zero_copy_only=False))
    if types.is_nested(kind) or types.is_temporal(kind):
        return pd.Series([str(kind)[:MAX_TEXT_CHARACTERS]] * len(values), dtype=object)
    return build_series(np.array(values.to_pylist(), dtype=object), missing)

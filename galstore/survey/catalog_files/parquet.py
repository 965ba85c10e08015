"""Parquet catalogs, read in batches.

Units and UCDs come from the field metadata `unit` and `ucd`, astropy's header, or the VOTable of VOParquet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from galstore.survey.catalog_files.columns import MAX_TEXT_CHARACTERS, DeliveredColumn, Pages, build_series, text_series
from galstore.survey.catalog_files.ecsv import check_yaml_header
from galstore.survey.catalog_files.source import BLOCK_BYTES, CatalogSource, reading_errors
from galstore.survey.catalog_files.votable import read_votable_fields

ASTROPY_HEADER = b"table_meta_yaml"
VOPARQUET_HEADER = b"IVOA.VOTable-Parquet.content"

if TYPE_CHECKING:
    import pyarrow as pa


def read_parquet_pages(source: CatalogSource, page_rows: int) -> Pages:
    """Read a Parquet file in pages.

    Raises
    ------
    CatalogError
        The file is cut off or damaged, or pyarrow does not support it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from astropy.table.meta import YamlParseError
    from yaml import YAMLError

    own = (pa.ArrowException, YAMLError, YamlParseError)
    with source.open_stream() as stream:
        with reading_errors(source, *own):
            schema = pq.read_schema(stream)
            # by default pyarrow reads a whole row group ahead, which is often the whole file
            file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=BLOCK_BYTES)
            described = _units_and_ucds(schema, source)
            batches = file.iter_batches(batch_size=page_rows, use_threads=False)
            page = _page([pa.array([], type=field.type) for field in schema], schema, described)
        with file:
            yield page
            while True:
                with reading_errors(source, *own):
                    batch = next(batches, None)
                    if batch is None:
                        return
                    page = _page(batch.columns, schema, described)
                yield page


def _page(
    columns: list[pa.Array], schema: pa.Schema, described: dict[str, tuple[str, str]]
) -> tuple[DeliveredColumn, ...]:
    return tuple(
        DeliveredColumn(name=str(field.name).strip(), values=_to_series(column), unit=unit, ucd=ucd)
        for field, column in zip(schema, columns, strict=True)
        for unit, ucd in (described.get(field.name, ("", "")),)
    )


def _units_and_ucds(schema: pa.Schema, source: CatalogSource) -> dict[str, tuple[str, str]]:
    """Return unit and UCD by column; metadata of the column overrides the header of the file."""
    from astropy.table.meta import get_header_from_yaml

    file_metadata = schema.metadata or {}
    found: dict[str, tuple[str, str]] = {}
    if VOPARQUET_HEADER in file_metadata:
        found |= read_votable_fields(file_metadata[VOPARQUET_HEADER], source=source)
    if ASTROPY_HEADER in file_metadata:
        text = file_metadata[ASTROPY_HEADER].decode("utf-8")
        check_yaml_header(text, origin=source.origin)
        for column in get_header_from_yaml(text.split("\n"))["datatype"]:
            meta = {str(key).lower(): value for key, value in dict(column.get("meta") or {}).items()}
            found[column["name"]] = (str(column.get("unit") or ""), str(meta.get("ucd") or ""))
    for field in schema:
        field_metadata = {
            key.decode("utf-8", "replace").lower(): value.decode("utf-8", "replace").strip()
            for key, value in (field.metadata or {}).items()
        }
        unit, ucd = found.get(field.name, ("", ""))
        found[field.name] = (field_metadata.get("unit", unit), field_metadata.get("ucd", ucd))
    return found


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    short = types.is_string(kind) or types.is_binary(kind) or types.is_fixed_size_binary(kind)
    return bool(short or types.is_large_string(kind) or types.is_large_binary(kind))


def _to_series(values: pa.Array) -> pd.Series:
    import pyarrow as pa
    from pyarrow import types

    kind = values.type
    missing = np.asarray(values.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    if types.is_dictionary(kind):
        # decode only the entries that these rows use: the dictionary belongs to the whole file
        used, rows = np.unique(values.indices.filter(values.is_valid()).to_numpy(), return_inverse=True)
        texts = np.full(len(values), None, dtype=object)
        texts[~missing] = _to_series(values.dictionary.take(pa.array(used))).to_numpy(dtype=object)[rows]
        return pd.Series(texts, dtype=object)
    if types.is_integer(kind):
        return build_series(values.fill_null(0).to_numpy(zero_copy_only=False), missing if missing.any() else None)
    if types.is_floating(kind):
        return build_series(values.to_numpy(zero_copy_only=False))
    if types.is_decimal(kind):
        # exact, for ids of 20 digits from a database
        return pd.Series([None if number is None else str(number) for number in values.to_pylist()], dtype=object)
    if not (_is_text(kind) or types.is_boolean(kind)):
        return text_series(str(kind)[:MAX_TEXT_CHARACTERS], len(values))
    objects = np.empty(len(values), dtype=object)
    objects[:] = values.to_pylist()
    return build_series(objects, missing)

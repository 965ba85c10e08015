"""Catalogs as Parquet, read in batches.

Units and UCDs come from what the writers of astronomy put beside the columns: field metadata `unit` and `ucd`, the
header that astropy writes, or the VOTable of VOParquet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from galstore.survey.catalog_files.columns import LONGEST_TEXT, DeliveredColumn, Pages, series_of, text_series
from galstore.survey.catalog_files.ecsv import check_yaml_header
from galstore.survey.catalog_files.source import BLOCK_BYTES, CatalogSource, damage_told
from galstore.survey.catalog_files.votable import read_votable_fields

ASTROPY_HEADER = b"table_meta_yaml"
VOPARQUET_HEADER = b"IVOA.VOTable-Parquet.content"


def read_parquet_pages(source: CatalogSource, page_rows: int) -> Pages:
    """Pages of a Parquet file.

    Raises
    ------
    CatalogError
        It is cut off or damaged, or of a kind that pyarrow does not read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from astropy.table.meta import YamlParseError
    from yaml import YAMLError

    own = (pa.ArrowException, YAMLError, YamlParseError)
    with source.open_stream() as stream:
        with damage_told(source, *own):
            schema = pq.read_schema(stream)
            # by default all of a row group is fetched ahead, which is often all of the file
            file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=BLOCK_BYTES)
            described = _descriptions(schema, source)
            batches = file.iter_batches(batch_size=page_rows, use_threads=False)
            page = _page([pa.array([], type=one.type) for one in schema], schema, described)
        with file:
            yield page
            while True:
                with damage_told(source, *own):
                    batch = next(batches, None)
                    if batch is None:
                        return
                    page = _page(batch.columns, schema, described)
                yield page


def _page(columns: list[Any], schema: Any, described: dict[str, tuple[str, str]]) -> tuple[DeliveredColumn, ...]:
    return tuple(
        DeliveredColumn(name=str(field.name).strip(), values=_decoded(column), unit=unit, ucd=ucd)
        for field, column in zip(schema, columns, strict=True)
        for unit, ucd in (described.get(field.name, ("", "")),)
    )


def _descriptions(schema: Any, source: CatalogSource) -> dict[str, tuple[str, str]]:
    """Unit and UCD by column; what stands beside the column itself goes before what the file's header says."""
    from astropy.table.meta import get_header_from_yaml

    of_file = schema.metadata or {}
    found: dict[str, tuple[str, str]] = {}
    if VOPARQUET_HEADER in of_file:
        found |= read_votable_fields(of_file[VOPARQUET_HEADER], source=source)
    if ASTROPY_HEADER in of_file:
        text = of_file[ASTROPY_HEADER].decode("utf-8")
        check_yaml_header(text, origin=source.origin)
        for column in get_header_from_yaml(text.split("\n"))["datatype"]:
            meta = {str(key).lower(): value for key, value in dict(column.get("meta") or {}).items()}
            found[column["name"]] = (str(column.get("unit") or ""), str(meta.get("ucd") or ""))
    for field in schema:
        beside = {
            key.decode("utf-8", "replace").lower(): value.decode("utf-8", "replace").strip()
            for key, value in (field.metadata or {}).items()
        }
        unit, ucd = found.get(field.name, ("", ""))
        found[field.name] = (beside.get("unit", unit), beside.get("ucd", ucd))
    return found


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    short = types.is_string(kind) or types.is_binary(kind) or types.is_fixed_size_binary(kind)
    return bool(short or types.is_large_string(kind) or types.is_large_binary(kind))


def _decoded(values: Any) -> pd.Series[Any]:
    import pyarrow as pa
    from pyarrow import types

    kind = values.type
    missing = np.asarray(values.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    if types.is_dictionary(kind):
        # the entries of these rows alone: the dictionary is the whole file's
        used, rows = np.unique(values.indices.filter(values.is_valid()).to_numpy(), return_inverse=True)
        texts = np.full(len(values), None, dtype=object)
        texts[~missing] = _decoded(values.dictionary.take(pa.array(used))).to_numpy(dtype=object)[rows]
        return pd.Series(texts, dtype=object)
    if types.is_integer(kind):
        return series_of(values.fill_null(0).to_numpy(zero_copy_only=False), missing if missing.any() else None)
    if types.is_floating(kind):
        return series_of(values.to_numpy(zero_copy_only=False))
    if types.is_decimal(kind):
        # exact, as ids of 20 digits from a database are
        return pd.Series([None if one is None else str(one) for one in values.to_pylist()], dtype=object)
    if not (_is_text(kind) or types.is_boolean(kind)):
        return text_series(str(kind)[:LONGEST_TEXT], len(values))
    objects = np.empty(len(values), dtype=object)
    objects[:] = values.to_pylist()
    return series_of(objects, missing)

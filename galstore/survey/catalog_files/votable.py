"""VOTable catalogs in the serialisations TABLEDATA, BINARY and BINARY2, read at once.

A first pass over the elements, before astropy reads the file, rejects entities, rows in other files, and claims of more
rows than the file can hold.
Reference: IVOA VOTable 1.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.parsers import expat

import numpy as np
import numpy.typing as npt

from galstore.survey.catalog_files.columns import DeliveredColumn, Pages, build_series
from galstore.survey.catalog_files.ecsv import cut_in_pages
from galstore.survey.catalog_files.source import (
    BLOCK_BYTES,
    INFLATION_LIMIT,
    WHOLE_FILE_LIMIT_BYTES,
    CatalogSource,
    reading_errors,
)
from galstore.survey.catalog_files.units import is_plausible_unit
from schemas.errors import CatalogError

if TYPE_CHECKING:
    from astropy.io.votable.tree import Field

MAX_VALUE_BYTES = 16
"""Size of a complex number of two doubles; characters take 4 bytes."""

MIN_MEMORY_BYTES = 256 << 20

MEMORY_PER_FILE_BYTE = 64
"""A table of empty text fields of 64 characters takes 50 bytes in memory per byte of the file."""

MAX_TAG_BYTES = 16 << 20
"""Before expat 2.6, an open tag is parsed again with every block: 200 MB of it take minutes."""

MIN_ROWS = 512
"""astropy allocates at least this many rows."""


def read_votable_pages(source: CatalogSource, page_rows: int) -> Pages:
    """Read the first table with data of a VOTable, which takes several times its size in memory, and yield pages.

    Raises
    ------
    CatalogError
        The file is not a VOTable or is cut off; it lacks a table, declares entities, stores its rows in another file,
        or claims more rows than it has.
    """
    from astropy.io.votable import parse

    with reading_errors(source, expat.ExpatError):
        outline = _read_outline(source)
        number = next((index for index, table in enumerate(outline.tables) if table.has_data), 0)
        if not outline.tables:
            raise CatalogError(f"{source.origin} is a VOTable without a table: save the table, not only its metadata")
        with source.open_stream(at_most_bytes=WHOLE_FILE_LIMIT_BYTES) as stream:
            table = parse(stream.read, table_number=number, filename=str(source.path)).get_first_table()
        claimed, n_rows = outline.tables[number].n_rows_claimed, len(table.array)
        if claimed is not None and claimed != n_rows:
            raise CatalogError(
                f"{source.origin} claims {claimed:,} rows (nrows) but has {n_rows:,}: it is cut off or damaged, so "
                "export or download it again"
            )
        columns = tuple(_to_column(field, table.array[field.ID]) for field in table.fields)
    yield from cut_in_pages(columns, n_rows, page_rows)


def read_votable_fields(xml: bytes, *, source: CatalogSource) -> dict[str, tuple[str, str]]:
    """Return unit and UCD of each field of a VOTable without rows, such as a Parquet file contains.

    Raises
    ------
    CatalogError
        The text is not a VOTable.
    """
    outline = _Outline(source, len(xml))
    with reading_errors(source, expat.ExpatError):
        parser = outline.parser()
        parser.Parse(xml, True)
    return {
        attributes.get("name", ""): (attributes.get("unit", ""), attributes.get("ucd", ""))
        for table in outline.tables
        for attributes in table.fields
    }


def _to_column(description: Field, values: npt.NDArray[np.generic]) -> DeliveredColumn:
    missing: npt.NDArray[np.bool_] = np.ma.getmaskarray(values)
    if missing.ndim > 1:
        missing = np.asarray(missing.reshape(len(missing), -1).all(axis=1))
    unit = "" if description.unit is None else description.unit.to_string()
    name = (description.name or description.ID or "").strip()
    return DeliveredColumn(
        name=name,
        values=build_series(np.asarray(values), missing if missing.any() else None),
        unit=unit,
        ucd=description.ucd or "",
    )


@dataclass(slots=True)
class _TableOutline:
    n_rows_claimed: int | None
    n_rows: int = 0
    row_bytes: int = 0
    fields: list[dict[str, str]] = field(default_factory=list)
    has_data: bool = False


def _read_outline(source: CatalogSource) -> _Outline:
    n_bytes = 0
    outline = _Outline(source, source.size_bytes * (INFLATION_LIMIT if source.is_gzipped else 1))
    parser = outline.parser()
    with source.open_stream(at_most_bytes=WHOLE_FILE_LIMIT_BYTES) as stream:
        while block := stream.read(BLOCK_BYTES):
            n_bytes += len(block)
            parser.Parse(block, False)
            if n_bytes - parser.CurrentByteIndex > MAX_TAG_BYTES:
                raise CatalogError(
                    f"{source.origin} has a tag or comment of more than {MAX_TAG_BYTES:,} bytes: it is cut off or "
                    "damaged, so export or download it again"
                )
        parser.Parse(b"", True)
    outline.check_memory(n_bytes)
    return outline


class _Outline:
    """Structure of a VOTable, from the names and attributes of its elements."""

    def __init__(self, source: CatalogSource, n_bytes: int) -> None:
        self.tables: list[_TableOutline] = []
        self._source = source
        # each value of an array, even an empty one, takes at least a byte
        self._values_left = max(n_bytes, BLOCK_BYTES)
        self._is_begun = False

    def parser(self) -> expat.XMLParserType:
        parser = expat.ParserCreate()
        parser.EntityDeclHandler = self._refuse_entity
        parser.StartElementHandler = self._start
        return parser

    def check_memory(self, n_bytes: int) -> None:
        """Reject tables that would take far more memory than the size of the file."""
        rows = max((max(table.n_rows, table.n_rows_claimed or 0, MIN_ROWS) for table in self.tables), default=0)
        widest = max((table.row_bytes for table in self.tables), default=0)
        if rows * widest > MIN_MEMORY_BYTES + MEMORY_PER_FILE_BYTE * n_bytes or rows > max(n_bytes, MIN_ROWS):
            raise CatalogError(
                f"{self._source.origin} claims {rows:,} rows of up to {widest:,} bytes but the file has {n_bytes:,}: "
                "fix nrows and arraysize, or export it again"
            )

    def _refuse_entity(self, name: str, *_: object) -> None:
        raise CatalogError(
            f"{self._source.origin} declares the XML entity {name!r}, which a VOTable does not need and an attack may "
            "use: write it without <!ENTITY>"
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition(":")[2]
        if not self._is_begun and tag != "VOTABLE":
            raise CatalogError(
                f"{self._source.origin} is an XML or HTML file with the root <{tag[:40]}>, not a VOTable: if it is the "
                "error page of a service, open it to read why; else export the table as VOTable"
            )
        self._is_begun = True
        if tag == "TR" and self.tables:
            self.tables[-1].n_rows += 1
        elif tag == "TABLE":
            claimed = attributes.get("nrows")
            self.tables.append(_TableOutline(n_rows_claimed=None if claimed is None else int(claimed)))
        elif tag in ("FIELD", "PARAM"):
            self._start_field(tag, attributes)
        elif tag == "DATA" and self.tables:
            self.tables[-1].has_data = True
        elif tag == "BINARY" and self.tables and self.tables[-1].fields and not self.tables[-1].row_bytes:
            raise ValueError("a row has no bytes")
        elif tag in ("FITS", "PARQUET") or (tag == "STREAM" and "href" in attributes):
            raise CatalogError(
                f"{self._source.origin} stores its rows in another file ({attributes.get('href') or tag}), which is "
                "not fetched: download that file and give its path, or export the table as BINARY2"
            )

    def _start_field(self, tag: str, attributes: dict[str, str]) -> None:
        name = attributes.get("name", "")
        if not is_plausible_unit(attributes.get("unit", "")):
            raise CatalogError(
                f"{self._source.origin}: {tag} {name!r} has the unknown unit {attributes['unit'][:40]!r}: use a "
                "unit of the VOUnit standard, or leave it empty"
            )
        sides = attributes.get("arraysize", "1").strip().split("x")
        is_varying = sides[-1].endswith("*")
        counts = [int(side.removesuffix("*") or 1) for side in sides]
        self._values_left -= math.prod(counts)
        # variable-length arrays of empty elements never end
        is_endless = is_varying and 0 in counts[:-1]
        if is_endless or min(counts) < 0 or self._values_left < 0:
            raise CatalogError(
                f"{self._source.origin}: {tag} {name!r} claims an array of {attributes['arraysize'][:40]} values, "
                "which the file cannot hold: fix its arraysize, or export it again"
            )
        if tag == "FIELD" and self.tables:
            n_bytes = math.prod(counts) * MAX_VALUE_BYTES
            self.tables[-1].row_bytes += max(n_bytes, 8) if is_varying else n_bytes
            self.tables[-1].fields.append(attributes)

"""FITS, ECSV and VOTable catalogs, read by astropy.

FITS is read in pages: astropy finds the table and the layout of its rows. Values are scaled here, because astropy
converts shifted 64-bit integers to floats. ECSV and VOTable take several times their size in memory.
"""

from __future__ import annotations

import io
import logging
import re
from dataclasses import replace
from gzip import GzipFile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.survey.catalog_files.columns import DeliveredColumn, Pages, build_series
from galstore.survey.catalog_files.source import open_content, read_whole
from schemas.errors import CatalogError

if TYPE_CHECKING:
    from astropy.io import fits
    from astropy.table import Column, Table

ROOT = re.compile(rb"(?:\xef\xbb\xbf|\s+|<\?.*?\?>|<!--.*?-->|<!(?!--)[^>]*>)*+<([\w:.-]+)", re.DOTALL)
"""Name of the first element of an XML file."""

ELSEWHERE = re.compile(rb"<!ENTITY\s[^>]*>|<(?:\w+:)?STREAM\b[^>]*\bhref\s*=[^>]*>")
"""Content in other files, which astropy would open, and entities."""

HUGE_POWER = re.compile(rb"""\bunit\s*[=:]\s*["']?[^"'\n>,}]{0,80}(?:\*\*|\^)\s*\(?\s*[-+]?\d{4,}""")
"""Unit with a power of four digits or more, which astropy would compute without end."""

logger = logging.getLogger(__name__)


def read_fits_pages(path: Path, page_rows: int) -> Pages:
    """Read the first binary table of a FITS file in pages; images and ASCII tables are skipped."""
    from astropy.io import fits

    # astropy leaves a file open if it fails while opening it by name
    with path.open("rb") as file, fits.open(file, memmap=False) as hdus, open_content(path) as stream:
        number, table = next((found for found in enumerate(hdus) if isinstance(found[1], fits.BinTableHDU)), (0, None))
        if table is None:
            found = ", ".join(
                f"{n}: {'ASCII table' if isinstance(h, fits.TableHDU) else 'image'}" for n, h in enumerate(hdus)
            )
            raise CatalogError(
                f"catalog {path} is a FITS file without a binary table (HDUs {found}): export its table as a binary "
                "table, with object_id, ra, dec; or download it again if it is cut off"
            )
        place, header = f"HDU {number}" + (f" ({table.name})" if table.name else ""), table.header
        if header.get("ZTABLE") is True:
            raise CatalogError(f"catalog {path}, {place}, is a compressed table: decompress it with funpack")
        if not 0 < header["TFIELDS"] <= 999 or header["NAXIS2"] < 0:
            raise ValueError(f"TFIELDS is {header['TFIELDS']} (1 to 999), NAXIS2 is {header['NAXIS2']}")
        # numbers as names, because a dtype needs unique ones
        layout = [(str(number), column.dtype) for number, column in enumerate(table.columns, 1)]
        row, n_rows = np.dtype(layout).newbyteorder(">"), header["NAXIS2"]
        if row.itemsize != header["NAXIS1"] or row.itemsize == 0:
            raise ValueError(f"a row has {header['NAXIS1']} bytes (NAXIS1) but its columns {row.itemsize}")
        stream.seek(table.fileinfo()["datLoc"])
        rest_bytes = path.stat().st_size - stream.tell()
        if not isinstance(stream, GzipFile) and n_rows * row.itemsize > rest_bytes:
            raise CatalogError(
                f"catalog {path}, {place}, claims {n_rows:,} rows of {row.itemsize:,} bytes but the file ends after "
                f"{rest_bytes:,}: it is cut off, so export or download it again"
            )
        logger.info("catalog %s: rows of %s", path, place)
        # 256 MiB: 50,000 rows of 5 KiB, or fewer rows of a wider table
        n_at_once = min(page_rows, max(1, (256 << 20) // row.itemsize))
        for first in range(0, max(1, n_rows), n_at_once):
            n_page = min(n_at_once, n_rows - first)
            records = np.frombuffer(stream.read(n_page * row.itemsize), dtype=row)
            if len(records) < n_page:
                raise EOFError(f"{n_page - len(records):,} rows of {n_rows:,} are missing")
            yield tuple(
                DeliveredColumn(
                    name=(column.name or "").strip() or f"column {key}",
                    values=_decode(records[key], column),
                    unit=str(column.unit or "").strip(),
                    ucd=str(header.get(f"TUCD{key}", "")).strip(),
                )
                for (key, _), column in zip(layout, table.columns, strict=True)
            )


def _decode(stored: npt.NDArray[Any], column: fits.Column) -> pd.Series:
    """Return the physical values; integers are exact for any shift (FITS Standard 4.0, section 7.3)."""
    letter = column.format.format
    if letter in "PQX":
        return pd.Series(["array of bits" if letter == "X" else "array of varying length"] * len(stored), dtype=object)
    if stored.size != len(stored):
        return build_series(stored)
    stored = stored.reshape(len(stored))
    if letter == "L":
        return build_series(stored == ord("T"), ~np.isin(stored, (ord("T"), ord("F"))))
    missing = None if column.null is None else np.asarray(stored == column.null)
    scale, zero = column.bscale or 1, column.bzero or 0
    if (scale, zero) != (1, 0):
        if letter in "BIJK" and scale == 1 and zero == int(zero) and abs(zero) <= 2**63:
            # modulo 2**64, so that the sum neither overflows nor becomes a float
            shifted = stored.astype(np.int64).view(np.uint64) + np.uint64(int(zero) % 2**64)
            stored = shifted if zero == 2**63 else shifted.view(np.int64)
        else:
            stored = stored.astype(np.float64) * scale + zero
    return build_series(stored, missing)


def read_ecsv_pages(path: Path, page_rows: int) -> Pages:
    """Read an ECSV file and yield pages."""
    from astropy.table import Table

    content = read_whole(path)
    _check_units(path, content)
    lines = content.decode("utf-8").split("\n")
    yield from _cut_in_pages(Table.read(lines, format="ascii.ecsv"), page_rows)


def read_votable_pages(path: Path, page_rows: int) -> Pages:
    """Read the first table with rows of a VOTable and yield pages."""
    from astropy.io.votable import parse

    content = read_whole(path)
    root = ROOT.match(content)
    if root and root[1].rpartition(b":")[2] != b"VOTABLE":
        raise CatalogError(
            f"catalog {path} is an XML or HTML file with the root <{root[1].decode()[:40]}>, not a VOTable: if it is "
            "the error page of a service, open it to read why; else export the table as VOTable"
        )
    _check_units(path, content)
    if elsewhere := ELSEWHERE.search(content):
        raise CatalogError(
            f"catalog {path} refers to content outside its tables ({elsewhere[0].decode(errors='replace')[:200]}), "
            "which is not fetched: download that file and give its path, or export the table as BINARY2"
        )
    # with verify="warn", astropy warns of a wrong number of rows, which the caller turns into an error
    tables = list(parse(io.BytesIO(content), filename=str(path), verify="warn").iter_tables())
    if not tables:
        raise CatalogError(f"catalog {path} is a VOTable without a table: save the table, not only its metadata")
    table = next((table for table in tables if len(table.array)), tables[0])
    if table.nrows is not None and table.nrows != len(table.array):
        raise ValueError(f"nrows={table.nrows} is claimed, but the table has {len(table.array)} rows")
    yield from _cut_in_pages(table.to_table(use_names_over_ids=True), page_rows)


def _check_units(path: Path, content: bytes) -> None:
    if found := HUGE_POWER.search(content):
        raise CatalogError(f"catalog {path} has {found[0].decode(errors='replace')!r}, expected a unit: correct it")


def _cut_in_pages(table: Table, page_rows: int) -> Pages:
    columns = tuple(_to_column(column, len(table)) for column in table.itercols())
    for first in range(0, max(1, len(table)), page_rows):
        yield tuple(replace(column, values=column.values.iloc[first : first + page_rows]) for column in columns)


def _to_column(column: Column, n_rows: int) -> DeliveredColumn:
    info = column.info
    meta = {str(key).lower(): value for key, value in (info.meta or {}).items()}
    # coordinates and times are astropy objects, not arrays
    is_array = isinstance(column, np.ndarray)
    unit = "" if info.unit is None or not is_array else info.unit.to_string()
    missing = np.ma.getmaskarray(column) if isinstance(column, np.ma.MaskedArray) else None
    texts = [] if is_array else [type(column).__name__] * n_rows
    values = build_series(np.asarray(column), missing) if is_array else pd.Series(texts, dtype=object)
    return DeliveredColumn(name=str(info.name).strip(), values=values, unit=unit, ucd=str(meta.get("ucd") or ""))

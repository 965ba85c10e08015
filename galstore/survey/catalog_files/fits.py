"""FITS binary tables, read in pages.

astropy parses the headers and the layout of a row. The rows are read and decoded here, because astropy's table reads
everything that a header claims, ignores TNULL, and converts shifted 64-bit integers to floats.
Reference: FITS Standard 4.0, section 7.3.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.survey.catalog_files.columns import DeliveredColumn, Pages, build_series, text_series
from galstore.survey.catalog_files.source import BLOCK_BYTES, CatalogSource, reading_errors
from schemas.errors import CatalogError

if TYPE_CHECKING:
    from astropy.io.fits import Header

FITS_BLOCK_BYTES = 2880
CARD_BYTES = 80

MAX_HEADER_BLOCKS = 10_000
"""29 MB of header; a table with the 999 columns that FITS allows has 300 blocks."""

MAX_COLUMNS = 999

PAGE_LIMIT_BYTES = 256 << 20
"""Pages of wide rows have fewer rows: this is 50,000 rows of 5 KiB."""

MAX_SHIFT = 2**62
"""Columns of up to 32 bits are shifted in 64 bits, which smaller shifts cannot overflow."""

UNSIGNED_64_SHIFT = 2**63

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _TableColumn:
    """Column with its type letter (section 7.3.1), TSCAL (`scale`), TZERO (`zero`) and TNULL (`null`)."""

    name: str
    letter: str
    scale: int | float
    zero: int | float
    null: int | None
    unit: str
    ucd: str


def read_fits_pages(source: CatalogSource, page_rows: int) -> Pages:
    """Read the first binary table of a FITS file in pages.

    Images, ASCII tables and compressed images are skipped; the log names the HDU that is read.

    Raises
    ------
    CatalogError
        There is no binary table, or its header is invalid or claims more than the file has.
    """
    from astropy.io.fits import VerifyError

    with source.open_stream() as stream:
        with reading_errors(source, VerifyError):
            header, place = _find_table(stream, source)
            row, columns = _table_layout(header)
            n_rows = _count(header, "NAXIS2")
            if not source.is_gzipped and stream.tell() + n_rows * row.itemsize > source.size_bytes:
                raise CatalogError(
                    f"{source.origin}, {place}, claims {n_rows:,} rows of {row.itemsize:,} bytes but the file ends "
                    f"after {source.size_bytes - stream.tell():,}: it is cut off, so export or download it again"
                )
        logger.info("%s: rows of %s", source.origin, place)
        n_at_once = min(page_rows, max(1, PAGE_LIMIT_BYTES // row.itemsize))
        for first in range(0, max(1, n_rows), n_at_once):
            with reading_errors(source, VerifyError):
                n_page = min(n_at_once, n_rows - first)
                records = np.frombuffer(_read_exactly(stream, n_page * row.itemsize), dtype=row)
                page = tuple(
                    DeliveredColumn(
                        name=column.name, values=_decode(records[key], column), unit=column.unit, ucd=column.ucd
                    )
                    for key, column in zip(row.names or (), columns, strict=True)
                )
            yield page


def _find_table(stream: BinaryIO, source: CatalogSource) -> tuple[Header, str]:
    """Return the header and the name of the first binary table, with the stream at its first row."""
    from astropy.io import fits

    skipped: list[str] = []
    while raw := _read_header(stream):
        header = fits.Header.fromstring(raw)
        kind = str(header.get("XTENSION", "image")).strip() if skipped else "image"
        if kind == "BINTABLE" and header.get("ZTABLE") is True:
            raise CatalogError(
                f"{source.origin}, HDU {len(skipped)}, is a compressed table: decompress it with funpack"
            )
        if kind == "BINTABLE" and header.get("ZIMAGE") is not True:
            named = str(header.get("EXTNAME", "")).strip()
            return header, f"HDU {len(skipped)}" + (f" ({named})" if named else "")
        skipped.append("compressed image" if kind == "BINTABLE" else {"TABLE": "ASCII table"}.get(kind, kind.lower()))
        padded = -(-_data_bytes(header) // FITS_BLOCK_BYTES) * FITS_BLOCK_BYTES
        if source.is_gzipped:
            _skip(stream, padded)
        elif stream.tell() + _data_bytes(header) > source.size_bytes:
            raise CatalogError(
                f"{source.origin}, HDU {len(skipped) - 1}, claims {_data_bytes(header):,} bytes but the file ends "
                f"after {source.size_bytes - stream.tell():,}: it is cut off, so export or download it again"
            )
        else:
            stream.seek(padded, 1)
    found = ", ".join(f"{index}: {kind}" for index, kind in enumerate(skipped))
    raise CatalogError(
        f"{source.origin} is a FITS file without a binary table (HDUs {found}): export its table as a binary table, "
        "with object_id, ra, dec"
    )


def _read_header(stream: BinaryIO) -> bytes:
    """Read the cards of one header up to END; empty at the end of the file."""
    blocks: list[bytes] = []
    while len(blocks) < MAX_HEADER_BLOCKS:
        block = stream.read(FITS_BLOCK_BYTES)
        if not blocks and not block:
            return b""
        if not blocks and not block.startswith((b"SIMPLE", b"XTENSION")):
            raise ValueError("no header follows after the data of the previous HDU")
        if len(block) < FITS_BLOCK_BYTES:
            break
        blocks.append(block)
        if any(
            block[start : start + CARD_BYTES].rstrip() == b"END" for start in range(0, FITS_BLOCK_BYTES, CARD_BYTES)
        ):
            return b"".join(blocks)
    raise EOFError("a header has no END")


def _data_bytes(header: Header) -> int:
    """Return the size of the data after a header, without padding (sections 4.4.1 and 6.1)."""
    n_axes = _count(header, "NAXIS")
    if n_axes > MAX_COLUMNS:
        raise ValueError(f"NAXIS is {n_axes}")
    sides = [_count(header, f"NAXIS{axis + 1}") for axis in range(n_axes)]
    if header.get("GROUPS") is True and sides and sides[0] == 0:
        sides = sides[1:]
    n_values = math.prod(sides) if sides else 0
    n_groups = _count(header, "GCOUNT", 1)
    return abs(int(header["BITPIX"])) // 8 * n_groups * (_count(header, "PCOUNT", 0) + n_values)


def _count(header: Header, key: str, default: int | None = None) -> int:
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{key} is {value!r}, not a count")
    return value


def _skip(stream: BinaryIO, n_bytes: int) -> None:
    while n_bytes > 0 and (block := stream.read(min(n_bytes, BLOCK_BYTES))):
        n_bytes -= len(block)


def _read_exactly(stream: BinaryIO, n_bytes: int) -> bytes:
    parts, n_missing = [], n_bytes
    # in parts: a single read would allocate all that a header claims
    while n_missing and (part := stream.read(min(n_missing, 16 * BLOCK_BYTES))):
        parts.append(part)
        n_missing -= len(part)
    if n_missing:
        raise EOFError(f"{n_missing:,} bytes of {n_bytes:,} are missing")
    return b"".join(parts)


def _table_layout(header: Header) -> tuple[np.dtype[Any], list[_TableColumn]]:
    """Return the big-endian dtype of one row, and its columns in the same order."""
    from astropy.io import fits

    n_columns = _count(header, "TFIELDS")
    if not 0 < n_columns <= MAX_COLUMNS:
        raise ValueError(f"TFIELDS is {n_columns}; a table has 1 to {MAX_COLUMNS} columns")
    row_bytes = _count(header, "NAXIS1")
    # only the layout, with unique names; astropy fails on other invalid cards
    layout = fits.Header()
    layout["XTENSION"], layout["BITPIX"], layout["NAXIS"] = "BINTABLE", 8, 2
    layout["NAXIS1"], layout["NAXIS2"], layout["PCOUNT"], layout["GCOUNT"] = row_bytes, 0, 0, 1
    layout["TFIELDS"] = n_columns
    for number in range(1, n_columns + 1):
        layout[f"TTYPE{number}"] = f"column{number}"
        layout[f"TFORM{number}"] = str(header[f"TFORM{number}"])
        if f"TDIM{number}" in header:
            layout[f"TDIM{number}"] = str(header[f"TDIM{number}"])
    fields = fits.BinTableHDU.fromstring(layout.tostring().encode("ascii")).columns.dtype
    if fields.itemsize != row_bytes or row_bytes == 0:
        raise ValueError(f"a row has {row_bytes} bytes (NAXIS1) but its columns {fields.itemsize}")
    return fields.newbyteorder(">"), [_table_column(header, number) for number in range(1, n_columns + 1)]


def _table_column(header: Header, number: int) -> _TableColumn:
    form = re.match(r"\s*\d*\s*([A-Z])", str(header[f"TFORM{number}"]).upper())
    null = header.get(f"TNULL{number}")
    return _TableColumn(
        name=str(header.get(f"TTYPE{number}", "")).strip() or f"column {number}",
        letter=form[1] if form else "",
        scale=_number(header, f"TSCAL{number}", 1),
        zero=_number(header, f"TZERO{number}", 0),
        null=null if isinstance(null, int) else None,
        unit=str(header.get(f"TUNIT{number}", "")).strip(),
        ucd=str(header.get(f"TUCD{number}", "")).strip(),
    )


def _number(header: Header, key: str, default: int) -> int | float:
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{key} is {value!r}, not a number")
    return value


def _decode(stored: npt.NDArray[Any], column: _TableColumn) -> pd.Series:
    """Return the physical values; integers are exact for any shift."""
    if column.letter in "PQ":
        return text_series("array of varying length", len(stored))
    if column.letter == "X" or (stored.ndim > 1 and math.prod(stored.shape[1:]) != 1):
        return text_series(f"array of {'x'.join(map(str, stored.shape[1:])) or 'some'} values", len(stored))
    stored = stored.reshape(len(stored))
    if column.letter == "L":
        return build_series(stored == ord("T"), ~np.isin(stored, (ord("T"), ord("F"))))
    if column.letter in "BIJK":
        missing = None if column.null is None else np.asarray(stored == column.null)
        return build_series(_shift(stored, column), missing)
    if column.letter in "ED" and (column.scale, column.zero) != (1, 0):
        return build_series(stored.astype(np.float64) * column.scale + column.zero)
    return build_series(stored)


def _shift(stored: npt.NDArray[Any], column: _TableColumn) -> npt.NDArray[Any]:
    if (column.scale, column.zero) == (1, 0):
        return stored
    if column.scale != 1 or column.zero != int(column.zero):
        return np.asarray(stored.astype(np.float64) * column.scale + column.zero)
    shift = int(column.zero)
    if column.letter == "K" and shift == UNSIGNED_64_SHIFT:
        return stored.astype(np.int64).view(np.uint64) ^ np.uint64(UNSIGNED_64_SHIFT)
    if column.letter == "K" or abs(shift) >= MAX_SHIFT:
        # exact but slow; in practice 64-bit integers are only shifted to make them unsigned
        return stored.astype(object) + shift
    return stored.astype(np.int64) + shift

"""Content of a catalog file, and its format, detected by the first bytes."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path
from typing import BinaryIO

from schemas.errors import CatalogError

WHOLE_FILE_LIMIT_BYTES = 2 << 30
"""Formats that are read whole (VOTable, ECSV) take several times their size in memory; 2 GiB is 10 million rows."""

ACCEPTED_FORMATS = "a CSV, ECSV, FITS, VOTable or Parquet file with object_id, ra, dec"

MAGIC = {b"SIMPLE  =": "FITS", b"PAR1": "Parquet", b"# %ECSV": "ECSV"}

SUFFIXES = {
    **dict.fromkeys((".fits", ".fit", ".fts"), "FITS"),
    **dict.fromkeys((".parquet", ".pq"), "Parquet"),
    **dict.fromkeys((".vot", ".votable", ".xml"), "VOTable"),
    ".ecsv": "ECSV",
}
"""Formats by suffix. The content decides; the suffix improves error messages."""

OTHER_FORMATS = {
    b"\x89HDF\r\n": "an HDF5 file",
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"BZh91AY&SY": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PARE": "an encrypted Parquet file",
    b"%PDF": "a PDF",
    codecs.BOM_UTF16_LE: "not UTF-8 text (UTF-16, by its first two bytes)",
    codecs.BOM_UTF16_BE: "not UTF-8 text (UTF-16, by its first two bytes)",
}


def open_content(path: Path) -> BinaryIO | gzip.GzipFile:
    """Open a file for reading; gzip is decompressed."""
    stream = path.open("rb")
    if stream.peek(2)[:2] != b"\x1f\x8b":
        return stream
    stream.close()
    return gzip.open(path, "rb")


def read_whole(path: Path) -> bytes:
    """Return the decompressed content; raise CatalogError for a file of more than `WHOLE_FILE_LIMIT_BYTES`."""
    if path.stat().st_size > WHOLE_FILE_LIMIT_BYTES:
        raise CatalogError(
            f"catalog {path} holds more than {WHOLE_FILE_LIMIT_BYTES:,} bytes, the limit for ECSV and VOTable: export "
            "it as FITS or Parquet, which are read page by page"
        )
    with open_content(path) as stream:
        return stream.read()


def detect_format(path: Path) -> str:
    """Return the format of a file by its content: "CSV", "ECSV", "FITS", "VOTable" or "Parquet"."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
        raise CatalogError(f"catalog {path} {what}: give the path of {ACCEPTED_FORMATS}")
    with open_content(path) as stream:
        head = stream.read(4096)
    if not head:
        raise CatalogError(f"catalog {path} is empty: give a header line with object_id, ra, dec")
    if head.startswith(b"PAR1") and isinstance(stream, gzip.GzipFile):
        raise CatalogError(
            f"catalog {path} is a Parquet file in gzip, but Parquet is read from its end: decompress it with gunzip"
        )
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<"):
        return "VOTable"
    other = next((name for magic, name in OTHER_FORMATS.items() if head.startswith(magic)), None)
    if other is not None:
        raise CatalogError(f"catalog {path} is not a CSV; it is {other}: export it as {ACCEPTED_FORMATS}")
    suggested = SUFFIXES.get(Path(path.name.lower().removesuffix(".gz")).suffix)
    if suggested is not None:
        raise CatalogError(
            f"catalog {path} has the suffix of a {suggested} file but begins with {head[:16]!r}: export it again, or "
            "give it the suffix of its format"
        )
    if b"\0" in head:
        raise CatalogError(f"catalog {path} is binary and of an unknown format, not a CSV: give {ACCEPTED_FORMATS}")
    return "CSV"

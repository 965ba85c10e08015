"""Formats of catalog files, detected by their first bytes."""

from __future__ import annotations

import codecs
from enum import Enum
from pathlib import Path

from schemas.errors import CatalogError

HEAD_BYTES = 4096
"""Bytes that determine the format; longer than every magic number and every XML declaration."""

ACCEPTED_FORMATS = "a CSV, ECSV, FITS, VOTable or Parquet file with object_id, ra, dec"


class CatalogFormat(Enum):
    """Format of a catalog file, with its name in messages as value."""

    CSV = "CSV"
    ECSV = "ECSV"
    FITS = "FITS"
    VOTABLE = "VOTable"
    PARQUET = "Parquet"


MAGIC = {
    b"SIMPLE  =": CatalogFormat.FITS,
    b"PAR1": CatalogFormat.PARQUET,
    b"# %ECSV": CatalogFormat.ECSV,
}

SUFFIXES = {
    ".fits": CatalogFormat.FITS,
    ".fit": CatalogFormat.FITS,
    ".fts": CatalogFormat.FITS,
    ".parquet": CatalogFormat.PARQUET,
    ".pq": CatalogFormat.PARQUET,
    ".ecsv": CatalogFormat.ECSV,
    ".vot": CatalogFormat.VOTABLE,
    ".votable": CatalogFormat.VOTABLE,
    ".xml": CatalogFormat.VOTABLE,
}
"""Format that a name suggests. The content decides; the suggestion improves error messages."""

OTHER_FORMATS = {
    b"\x89HDF\r\n": "an HDF5 file",
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"BZh91AY&SY": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PARE": "an encrypted Parquet file",
    b"%PDF": "a PDF",
    b"\xff\xfe": "not UTF-8 text (UTF-16, by its first two bytes)",
    b"\xfe\xff": "not UTF-8 text (UTF-16, by its first two bytes)",
}


def detect_format(head: bytes, path: Path, *, is_gzipped: bool) -> CatalogFormat:
    """Detect the format of a file by its content.

    Parameters
    ----------
    head
        First `HEAD_BYTES` of the decompressed content.
    path
        Path for error messages.
    is_gzipped
        Whether the file is compressed by gzip.

    Raises
    ------
    CatalogError
        The format is not supported.
    """
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if kind is CatalogFormat.PARQUET and is_gzipped:
        raise CatalogError(
            f"catalog {path} is a Parquet file in gzip, but Parquet is read from its end: decompress it with gunzip"
        )
    if kind is not None:
        return kind
    if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<"):
        return CatalogFormat.VOTABLE
    other = next((name for magic, name in OTHER_FORMATS.items() if head.startswith(magic)), None)
    if other is not None:
        raise CatalogError(f"catalog {path} is not a CSV; it is {other}: export it as {ACCEPTED_FORMATS}")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    suggested = SUFFIXES.get(suffixes[-1]) if suffixes else None
    if suggested is not None:
        raise CatalogError(
            f"catalog {path} has the suffix of a {suggested.value} file but begins with {head[:16]!r}: export "
            "it again, or give it the suffix of its format"
        )
    try:
        # incremental, because the head may end within a character
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        raise CatalogError(
            f"catalog {path} is not a CSV, because it is not UTF-8 text (byte {error.object[error.start]:#04x} at "
            f"{error.start}): save it as UTF-8, or give {ACCEPTED_FORMATS}"
        ) from error
    if b"\0" in head:
        raise CatalogError(
            f"catalog {path} is not a CSV: it is binary and of an unknown format; give {ACCEPTED_FORMATS}"
        )
    return CatalogFormat.CSV

"""Formats of catalog files, and how their first bytes tell them apart."""

from __future__ import annotations

import codecs
from enum import Enum
from pathlib import Path

from schemas.errors import CatalogError

HEAD_BYTES = 4096
"""Bytes of a file by which its format is recognised; longer than every magic number and than an XML declaration."""

ASKED_FOR = "a CSV, ECSV, FITS, VOTable or Parquet file with object_id, ra, dec"


class CatalogFormat(Enum):
    """A format of catalog files; its value is how messages call it."""

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
"""What a name promises; the content decides, and a promise that it breaks makes a better message."""

FOREIGN = {
    b"\x89HDF\r\n": "an HDF5 file",
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"BZh91AY&SY": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PARE": "an encrypted Parquet file",
    b"%PDF": "a PDF",
    b"\xff\xfe": "no UTF-8 text (UTF-16, by its first two bytes)",
    b"\xfe\xff": "no UTF-8 text (UTF-16, by its first two bytes)",
}


def recognise_format(head: bytes, path: Path, *, is_gzipped: bool) -> CatalogFormat:
    """The format of a file by its content.

    Parameters
    ----------
    head
        Its first `HEAD_BYTES`, unpacked.
    path
        Its name helps to say what is wrong.
    is_gzipped
        It lies in gzip.

    Raises
    ------
    CatalogError
        It is of no format that is read.
    """
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if kind is CatalogFormat.PARQUET and is_gzipped:
        raise CatalogError(f"catalog {path} is a Parquet file in gzip, which is read from its end: unpack it by gunzip")
    if kind is not None:
        return kind
    if head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<"):
        return CatalogFormat.VOTABLE
    foreign = next((name for magic, name in FOREIGN.items() if head.startswith(magic)), None)
    if foreign is not None:
        raise CatalogError(f"catalog {path} is not a CSV; it is {foreign}: export it as {ASKED_FOR}")
    suffixes = [one.lower() for one in path.suffixes if one.lower() != ".gz"]
    promised = SUFFIXES.get(suffixes[-1]) if suffixes else None
    if promised is not None:
        raise CatalogError(
            f"catalog {path} does not begin as a {promised.value} file, as its name says it is, but with "
            f"{head[:16]!r}: export it again, or give it the ending of what it is"
        )
    try:
        # not final: the head may end within a character
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        raise CatalogError(
            f"catalog {path} is not a CSV, since it is not UTF-8 text (byte {error.object[error.start]:#04x} at "
            f"{error.start}): save it as UTF-8, or give {ASKED_FOR}"
        ) from error
    if b"\0" in head:
        raise CatalogError(f"catalog {path} is not a CSV: it is binary, of no format that is read; give {ASKED_FOR}")
    return CatalogFormat.CSV

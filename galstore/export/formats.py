"""Formats of exports and the registry of their writers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from galstore.atomic_write import atomic_file, atomic_folder
from galstore.export.croissant import write_croissant
from galstore.export.hats import write_hats
from galstore.export.jpeg_folder import write_jpeg_folder
from galstore.export.object_table import ExportRequest
from galstore.export.parquet import write_parquet
from galstore.export.table_files import write_csv, write_ecsv, write_fits, write_votable
from galstore.export.zarr import write_zarr
from schemas.errors import ExportError


class ExportFormat(StrEnum):
    """Format of an exported cube; each export is a folder."""

    ZARR = "zarr"  # Zarr v3 groups of the cube, for xarray and other Zarr readers
    # `catalog.parquet`: catalog, labels and state with units (VOParquet), for astropy, TOPCAT, pandas, DuckDB
    PARQUET = "parquet"
    HATS = "hats"  # the same table partitioned by position, for lsdb and hats
    CROISSANT = "croissant"  # the same table and the JPEGs, described in `metadata.json`, for mlcroissant
    JPEG_FOLDER = "jpeg-folder"  # the delivered JPEGs, `catalog.csv`, `missing.csv` and `README.txt`


class PredictionFormat(StrEnum):
    """Format of published predictions."""

    HATS = "hats"  # folder of Parquet files partitioned by position, for lsdb and hats
    PARQUET = "parquet"  # file with units, UCDs and provenance (VOParquet), for astropy, TOPCAT, pandas, DuckDB
    CSV = "csv"
    ECSV = "ecsv"
    FITS = "fits"
    VOTABLE = "votable"


Exporter = Callable[[ExportRequest, Path], None]
"""Function that writes a request to a new file, or into an empty folder."""

FOLDER_EXPORTERS: Mapping[str, Exporter] = {
    "zarr": write_zarr,
    "hats": write_hats,
    "croissant": write_croissant,
    "jpeg-folder": write_jpeg_folder,
}
FILE_EXPORTERS: Mapping[str, Exporter] = {
    "parquet": write_parquet,
    "csv": write_csv,
    "ecsv": write_ecsv,
    "fits": write_fits,
    "votable": write_votable,
}

IN_MEMORY_FORMATS = frozenset({"ecsv", "fits", "votable"})
"""Formats whose writers hold the whole table in memory; the others write it in parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Location and size of a finished export."""

    path: Path
    n_objects: int
    n_files: int
    bytes: int


def write_export(request: ExportRequest, out: Path, format: str, *, file_name: str = "") -> Exported:  # noqa: A002
    """Write an export, which appears at `out` complete or not at all.

    Parameters
    ----------
    file_name
        Name of the file of a file format inside the folder `out`; empty = `out` is the file.

    Raises
    ------
    ExportError
        `out` exists and is not an empty folder, or the library of the format is not installed.
    """
    is_folder = format in FOLDER_EXPORTERS or bool(file_name)
    if out.exists() and not (is_folder and out.is_dir() and not any(out.iterdir())):
        raise ExportError(f"{out} exists already: choose another path, or remove it first")
    target: AbstractContextManager[Path] = atomic_folder(out) if is_folder else atomic_file(out)
    with target as draft:
        exporter = FOLDER_EXPORTERS.get(format) or FILE_EXPORTERS[format]
        exporter(request, draft / file_name)
    files = [file for file in out.rglob("*") if file.is_file()] if is_folder else [out]
    n_bytes = sum(file.stat().st_size for file in files)
    return Exported(path=out, n_objects=request.rows.size, n_files=len(files), bytes=n_bytes)

"""Exporting a cube: what is asked for is checked, written into a draft beside its place, and put there whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from galstore.cube.reader import Cube
from galstore.export.croissant import write_croissant
from galstore.export.hats import write_hats
from galstore.export.jpeg_folder import write_jpeg_folder
from galstore.export.parquet import write_parquet
from galstore.export.provenance import provenance_of
from galstore.export.zarr import write_zarr
from schemas.cube import LEVELS
from schemas.errors import ExportError, StoreError


class ExportFormat(StrEnum):
    """What an export can be."""

    ZARR = "zarr"
    """A Zarr v3 folder with the cube's groups, for xarray and every other Zarr reader."""
    PARQUET = "parquet"
    """`catalog.parquet`: catalog, labels and state with units (VOParquet), for astropy, TOPCAT, pandas, DuckDB."""
    HATS = "hats"
    """The same table split by position on the sky, for lsdb and hats."""
    CROISSANT = "croissant"
    """The same table and the JPEGs, described in `metadata.json`, for mlcroissant and what builds on it."""
    JPEG_FOLDER = "jpeg-folder"
    """The delivered JPEGs, `catalog.csv`, `missing.csv` and `README.txt`, for everything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An export that is in its place; `bytes` is the sum of its files' lengths."""

    path: Path
    n_objects: int
    n_files: int
    bytes: int


def export_cube(
    cube: Cube,
    out: Path,
    *,
    format: ExportFormat,  # noqa: A002  (the word that every exporter's users know)
    rows: npt.NDArray[np.integer[Any]] | None = None,
    levels: Sequence[int] = LEVELS,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write a snapshot of a cube, or some of its objects, as a folder of files, whole or not at all.

    The same objects of the same snapshot give the same bytes, whenever and wherever they are exported by the same
    versions of galstore and its libraries: files hold the snapshot's id and the time of its commit, never the time
    of the export. Objects without a stored image stay in every table, with their status and reason.

    Parameters
    ----------
    cube
        The snapshot.
    out
        Folder to be made; it may be there already, empty.
    format
        What to write.
    rows
        Row numbers, shape (n,); they are exported once each and in ascending order. None = every object.
    levels
        Sides in px of the pyramid's levels in a `zarr` export; the other formats hold no levels.
    on_progress
        Called with how many objects have been written since the last call.

    Returns
    -------
    Exported
        Where it is, how many objects and files it has, and how many bytes.

    Raises
    ------
    ExportError
        No objects are selected, a row is not in the cube, `out` is a file or a folder with something in it, levels
        are chosen for a format without levels, or a library that the format needs is not installed.
    StoreError
        A level is not in the cube.
    """
    format = ExportFormat(format)  # noqa: A001
    chosen, sides = _validate_rows(cube, rows), _validate_levels(levels, format)
    provenance = provenance_of(cube, n_objects=chosen.size)
    with draft_folder(out) as draft:
        match format:
            case ExportFormat.ZARR:
                write_zarr(cube, draft, chosen, provenance, levels=sides, on_progress=on_progress)
            case ExportFormat.PARQUET:
                write_parquet(cube, draft / "catalog.parquet", chosen, provenance, on_progress=on_progress)
            case ExportFormat.HATS:
                write_hats(cube, draft, chosen, provenance, on_progress=on_progress)
            case ExportFormat.CROISSANT:
                write_croissant(cube, draft, chosen, provenance, on_progress=on_progress)
            case ExportFormat.JPEG_FOLDER:
                write_jpeg_folder(cube, draft, chosen, provenance, on_progress=on_progress)
        lengths = [file.stat().st_size for file in draft.rglob("*") if file.is_file()]
    return Exported(path=out, n_objects=chosen.size, n_files=len(lengths), bytes=sum(lengths))


def _validate_rows(cube: Cube, rows: npt.NDArray[np.integer[Any]] | None) -> npt.NDArray[np.int64]:
    if rows is None:
        chosen = np.arange(cube.n_objects, dtype=np.int64)
    else:
        given = np.asarray(rows)
        if given.size and not (given.ndim == 1 and np.issubdtype(given.dtype, np.integer)):
            raise ExportError(
                f"rows are an array of {given.dtype} with {given.ndim} dimensions, expected row numbers, shape (n,): "
                "of a mask, take numpy.flatnonzero"
            )
        chosen = np.unique(given.astype(np.int64))
    if not chosen.size:
        raise ExportError(f"no objects of {cube.path} are selected: there is nothing to export")
    for row in (chosen[0], chosen[-1]):
        if not 0 <= row < cube.n_objects:
            raise ExportError(f"row {row} is not in {cube.path}, which has rows 0-{cube.n_objects - 1}")
    return chosen


def _validate_levels(levels: Sequence[int], format: ExportFormat) -> tuple[int, ...]:  # noqa: A002
    for level in levels:
        if level not in LEVELS:
            raise StoreError(f"level {level} is not in the cube: choose of {', '.join(map(str, LEVELS))}")
    if format is not ExportFormat.ZARR and set(levels) != set(LEVELS):
        raise ExportError(f"format '{format}' holds no levels of the pyramid: leave the levels out, or use 'zarr'")
    if not levels:
        raise ExportError(f"no levels are selected: choose of {', '.join(map(str, LEVELS))}")
    return tuple(side for side in LEVELS if side in levels)


@contextmanager
def draft_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that takes its place at the end, or is removed where something fails."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} is not empty: name a folder that does not exist yet, or remove this one first")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{uuid4().hex[:8]}")
    draft.mkdir()
    try:
        yield draft
        if out.exists():
            out.rmdir()
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft)
        raise


@contextmanager
def draft_file(out: Path) -> Iterator[Path]:
    """A file beside `out` that takes its place at the end, or is removed where something fails."""
    if out.exists():
        raise ExportError(f"{out} is there already: name a file that does not exist yet, or remove this one first")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{uuid4().hex[:8]}")
    try:
        yield draft
        draft.rename(out)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise

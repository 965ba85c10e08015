"""Export of a snapshot of a cube, or of a part of its objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from galstore.cube.arrays import Values
from galstore.cube.reader import Cube
from galstore.export.formats import Exported, ExportFormat, write_export
from galstore.export.object_table import ExportRequest, cube_table
from galstore.export.provenance import read_provenance
from schemas.cube import LEVELS
from schemas.errors import ExportError, StoreError


def export_cube(
    cube: Cube,
    out: Path,
    *,
    format: ExportFormat,  # noqa: A002 - the word that users of exporters know
    rows: Values | None = None,
    levels: Sequence[int] = LEVELS,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write objects of a snapshot as a folder of files, which appears complete or not at all.

    Files contain the id and time of the snapshot, never the time of the export. So the same objects of the same
    snapshot give the same bytes, with the same versions of galstore and its libraries. Objects without a stored image
    are part of every table, with their status and reason.

    Parameters
    ----------
    out
        Folder to create; an empty folder may exist.
    rows
        Row numbers, shape (n,), exported once each and in ascending order. None = all objects.
    levels
        Sides in px of the pyramid levels in a `zarr` export; other formats contain no levels.

    Raises
    ------
    ExportError
        No objects are selected, a row is not in the cube, `out` is a file or a folder with content, levels are chosen
        for a format without levels, or a library of the format is not installed.
    StoreError
        A level is not in the cube.
    """
    rows, sides = _validate_rows(cube, rows), _validate_levels(levels, format)
    provenance, table = read_provenance(cube, n_objects=rows.size), cube_table(cube)
    request = ExportRequest(
        cube=cube, rows=rows, provenance=provenance, table=table, levels=sides, on_progress=on_progress
    )
    return write_export(request, out, format, file_name="catalog.parquet" if format == ExportFormat.PARQUET else "")


def _validate_rows(cube: Cube, rows: Values | None) -> npt.NDArray[np.int64]:
    given = np.arange(cube.n_objects) if rows is None else np.asarray(rows)
    if given.size and not (given.ndim == 1 and np.issubdtype(given.dtype, np.integer)):
        raise ExportError(
            f"rows are an array of {given.dtype} with {given.ndim} dimensions, expected row numbers, shape (n,): "
            "convert a mask with numpy.flatnonzero"
        )
    selected = np.unique(given.astype(np.int64))
    if not selected.size:
        raise ExportError(f"no objects of {cube.path} are selected: select at least one")
    for row in (selected[0], selected[-1]):
        if not 0 <= row < cube.n_objects:
            raise ExportError(f"row {row} is not in {cube.path}, which has rows 0-{cube.n_objects - 1}")
    return selected


def _validate_levels(levels: Sequence[int], format: str) -> tuple[int, ...]:  # noqa: A002
    known = ", ".join(map(str, LEVELS))
    for level in levels:
        if level not in LEVELS:
            raise StoreError(f"level {level} is not in the cube: choose one of {known}")
    if format != ExportFormat.ZARR and set(levels) != set(LEVELS):
        raise ExportError(f"format '{format}' contains no levels of the pyramid: omit the levels, or use 'zarr'")
    if not levels:
        raise ExportError(f"no levels are selected: choose one of {known}")
    return tuple(side for side in LEVELS if side in levels)

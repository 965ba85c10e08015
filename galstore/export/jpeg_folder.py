"""A folder of the delivered JPEGs with a CSV of what is known about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.cube.reader import Cube
from galstore.export.provenance import Provenance
from galstore.export.rows import in_steps, read_rows
from galstore.export.table import (
    GROUP_ROWS,
    IMAGE_FILE,
    TableColumn,
    has_image,
    image_column,
    image_path,
    read_table,
    table_columns,
    why_missing,
)
from schemas.cube import BLOCK_ROWS
from schemas.cutouts import SIDE_PX


def write_jpeg_folder(
    cube: Cube,
    folder: Path,
    rows: npt.NDArray[np.int64],
    provenance: Provenance,
    *,
    group_rows: int = GROUP_ROWS,
    on_progress: Callable[[int], None],
) -> None:
    """Write `images/`, `catalog.csv` (every object), `missing.csv` (those without an image) and `README.txt`.

    Parameters
    ----------
    cube
        The snapshot.
    folder
        An empty folder.
    rows
        Row numbers, shape (n,), ascending.
    provenance
        Written into the README.
    group_rows
        How many rows of the tables are written at a time.
    on_progress
        Called with how many objects have been written since the last call.
    """
    object_id, *others = (column for column in table_columns(cube) if not column.path.startswith("state/"))
    columns = (object_id, image_column(), *others)
    n_missing = 0
    for part in in_steps(rows.size, group_rows):
        table = read_table(cube, rows[part], columns).to_pandas().rename(columns={IMAGE_FILE: "file"})
        _append_csv(folder / "catalog.csv", _without_nulls(table, columns))
        absent = rows[part][~has_image(cube, rows[part])]
        ids = read_rows(cube.array("catalog/object_id"), absent)
        _append_csv(folder / "missing.csv", pd.DataFrame({"object_id": ids, "reason": why_missing(cube, absent)}))
        n_missing += absent.size
    write_images(cube, folder, rows, on_progress=on_progress)
    (folder / "README.txt").write_text(_readme(columns, provenance, n_missing), encoding="utf-8")


def write_images(cube: Cube, folder: Path, rows: npt.NDArray[np.int64], *, on_progress: Callable[[int], None]) -> None:
    """Write the bytes that the survey delivered for each object that has them, a block at a time.

    Parameters
    ----------
    cube
        The snapshot.
    folder
        Where `images/<object_id>.jpg` are to be made.
    rows
        Row numbers, shape (n,), ascending.
    on_progress
        Called with how many objects have been written since the last call.
    """
    (folder / "images").mkdir()
    for part in in_steps(rows.size, BLOCK_ROWS):
        present = rows[part][has_image(cube, rows[part])]
        ids, lengths = (read_rows(cube.array(name), present) for name in ("catalog/object_id", "state/body_length"))
        bodies = read_rows(cube.array("delivered/body"), present, stride=BLOCK_ROWS)
        for object_id, length, body in zip(ids, lengths, bodies, strict=True):
            (folder / image_path(object_id)).write_bytes(body[:length].tobytes())
        on_progress(part.stop - part.start)


def _append_csv(file: Path, table: pd.DataFrame) -> None:
    table.to_csv(file, mode="a", header=not file.exists(), index=False, lineterminator="\n")


def _without_nulls(table: pd.DataFrame, columns: tuple[TableColumn, ...]) -> pd.DataFrame:
    """Numbers that stand for none left empty, as NaN is."""
    nulls = {column.name: column.null for column in columns if column.null is not None}
    return table.assign(**{name: table[name].astype("Int64").mask(table[name] == null) for name, null in nulls.items()})


def _readme(columns: tuple[TableColumn, ...], provenance: Provenance, n_missing: int) -> str:
    images = (
        f"the bytes that the survey delivered, {SIDE_PX} x {SIDE_PX} px; red, green and blue are the bands "
        f"{', '.join(provenance.scale.composite.bands)}; {provenance.scale_in_words}"
    )
    missing = f"{n_missing} objects without an image, and why: 'pending' = not fetched yet, else why quarantined"
    described = [
        f"  {'file' if column.name == IMAGE_FILE else column.name}"
        f"{f' [{column.unit}]' if column.unit else ''}: {column.description}"
        for column in columns
    ]
    return "\n".join(
        [
            f"Galaxy images of {provenance.sky}",
            "",
            f"images/<object_id>.jpg  {images}",
            f"catalog.csv             {provenance.n_objects} objects, those without an image too; empty = unknown",
            f"missing.csv             {missing}",
            "",
            "Columns of catalog.csv, units in brackets:",
            *described,
            "",
            "Provenance:",
            *(f"  {name}: {text}" for name, text in provenance.to_dict().items()),
            "",
        ]
    )

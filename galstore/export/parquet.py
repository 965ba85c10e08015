"""Catalog, labels and state as one Parquet file that says its units: VOParquet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet

from galstore.cube.reader import Cube
from galstore.export.provenance import Provenance
from galstore.export.rows import in_steps
from galstore.export.table import GROUP_ROWS, TableColumn, TableSource, arrow_schema, cube_source


def write_parquet(
    cube: Cube,
    file: Path,
    rows: npt.NDArray[np.int64],
    provenance: Provenance,
    *,
    extra_columns: tuple[TableColumn, ...] = (),
    source: TableSource | None = None,
    group_rows: int = GROUP_ROWS,
    on_progress: Callable[[int], None],
) -> None:
    """Write the table of some objects, a row group at a time.

    Parameters
    ----------
    cube
        The snapshot.
    file
        Parquet file to be made.
    rows
        Row numbers, shape (n,), ascending.
    provenance
        Kept in the file's metadata.
    extra_columns
        Columns behind those that every table has.
    source
        Another table in place of the cube's.
    group_rows
        Rows of a row group.
    on_progress
        Called with how many objects have been written since the last call.
    """
    source = source or cube_source(cube, extra_columns)
    schema = arrow_schema(source.columns, provenance)
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in in_steps(rows.size, group_rows):
            writer.write_table(source.read(rows[part]).cast(schema), row_group_size=group_rows)
            on_progress(part.stop - part.start)

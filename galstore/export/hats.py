"""A HATS catalog: the table in Parquet files of one HEALPix pixel each, so that lsdb joins it by position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from galstore.cube.reader import Cube
from galstore.export.provenance import Provenance
from galstore.export.rows import read_rows
from galstore.export.table import TableColumn, TableSource, arrow_schema, cube_source
from schemas.errors import ExportError

PIXEL_ROWS = 100_000
"""Most rows of one file, about 30 MB in memory; a pixel with more is split into its four."""
HIGHEST_ORDER = 12
"""Pixels of 51 arcsec are split no further, however many objects they hold."""
INDEX_COLUMN = "_healpix_29"
INDEX_ORDER = 29


def write_hats(
    cube: Cube,
    folder: Path,
    rows: npt.NDArray[np.int64],
    provenance: Provenance,
    *,
    source: TableSource | None = None,
    on_progress: Callable[[int], None],
) -> None:
    """Write a HATS catalog (IVOA note HATS 1.0), one pixel at a time.

    Parameters
    ----------
    cube
        The snapshot.
    folder
        An empty folder.
    rows
        Row numbers, shape (n,), ascending.
    provenance
        Kept in the properties and in each file's metadata.
    source
        Another table in place of the cube's.
    on_progress
        Called with how many objects have been written since the last call.

    Raises
    ------
    ExportError
        The library hats is not installed.
    """
    _import_hats()
    from hats.catalog.dataset.table_properties import TableProperties
    from hats.catalog.partition_info import PartitionInfo
    from hats.io import paths
    from hats.io.parquet_metadata import write_parquet_metadata
    from hats.pixel_math.healpix_pixel import HealpixPixel
    from hats.pixel_math.spatial_index import compute_spatial_index

    ra, dec = (read_rows(cube.array(f"catalog/{name}"), rows) for name in ("ra", "dec"))
    index = np.asarray(compute_spatial_index(ra, dec), dtype=np.int64)
    order = np.argsort(index, kind="stable")
    source, pixels = source or cube_source(cube), []
    schema = arrow_schema((*source.columns, _index_column()), provenance)
    for pixel_order, pixel, part in _partition(index[order]):
        pixels.append(HealpixPixel(pixel_order, pixel))
        file = Path(str(paths.pixel_catalog_file(folder, pixels[-1])))
        file.parent.mkdir(parents=True, exist_ok=True)
        members = np.sort(order[part])
        table = source.read(rows[members]).append_column(INDEX_COLUMN, pa.array(index[members]))
        by_position = np.argsort(index[members], kind="stable")
        pyarrow.parquet.write_table(table.take(pa.array(by_position)).cast(schema), file, compression="zstd")
        on_progress(members.size)
    write_parquet_metadata(folder)
    PartitionInfo.from_healpix(pixels).write_to_file(catalog_path=folder)
    properties = _properties(provenance, highest_order=max(one.order for one in pixels))
    TableProperties.model_validate(properties).to_properties_file(folder)


def _import_hats() -> ModuleType:
    try:
        import hats
    except ImportError as error:
        raise ExportError(
            "a HATS export needs the library hats, which is not installed: pip install 'galstore[export]'"
        ) from error
    return hats


def _partition(index: npt.NDArray[np.int64]) -> Iterator[tuple[int, int, slice]]:
    """Pixels that together hold every object once: order, number (nested), and their part of an ascending index."""

    def split(order: int, pixel: int) -> Iterator[tuple[int, int, slice]]:
        shift = 2 * (INDEX_ORDER - order)
        start, stop = (int(n) for n in np.searchsorted(index, [pixel << shift, (pixel + 1) << shift]))
        if stop - start > PIXEL_ROWS and order < HIGHEST_ORDER:
            for child in range(4 * pixel, 4 * pixel + 4):
                yield from split(order + 1, child)
        elif stop > start:
            yield order, pixel, slice(start, stop)

    for pixel in range(12):
        yield from split(0, pixel)


def _index_column() -> TableColumn:
    return TableColumn(
        name=INDEX_COLUMN, type=pa.int64(), ucd="pos.healpix",
        description=f"HEALPix pixel of the position, order {INDEX_ORDER}, nested",
    )  # fmt: skip


def _properties(provenance: Provenance, *, highest_order: int) -> dict[str, object]:
    return {
        "catalog_name": provenance.name,
        "catalog_type": "object",
        "total_rows": provenance.n_objects,
        "ra_column": "ra",
        "dec_column": "dec",
        "healpix_column": INDEX_COLUMN,
        "healpix_order": INDEX_ORDER,
        "hats_order": highest_order,
        "hats_max_rows": PIXEL_ROWS,
        "hats_builder": f"galstore v{provenance.galstore}, hats v{version('hats')}",
        # of the snapshot, so that the same snapshot gives the same files
        "hats_creation_date": provenance.committed,
        "hats_version": "v1.0",
        "obs_description": f"{provenance.title}, snapshot {provenance.snapshot_id}",
        "obs_regime": "Optical",
    }

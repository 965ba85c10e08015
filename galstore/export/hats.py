"""HATS catalogs: one Parquet file per HEALPix pixel, so that lsdb joins catalogs by position."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from galstore.export.object_table import ExportRequest, TableColumn
from galstore.export.parquet import voparquet_schema
from galstore.export.provenance import ExportProvenance
from galstore.export.sparse_rows import read_sparse_rows
from schemas.errors import ExportError

PIXEL_ROWS = 100_000
"""Maximum number of rows of a file, about 30 MB in memory; larger pixels are split into four."""
HIGHEST_ORDER = 12
"""Order at which pixels (51 arcsec) are not split further."""
INDEX_COLUMN = "_healpix_29"
INDEX_ORDER = 29
_INDEX = TableColumn(
    INDEX_COLUMN, pa.int64(), f"HEALPix pixel of the position, order {INDEX_ORDER}, nested", ucd="pos.healpix"
)


def write_hats(request: ExportRequest, folder: Path) -> None:
    """Write the table as a HATS catalog (IVOA note HATS 1.0), one pixel at a time."""
    try:
        from hats.catalog.dataset.table_properties import TableProperties
        from hats.catalog.partition_info import PartitionInfo
        from hats.io import paths
        from hats.io.parquet_metadata import write_parquet_metadata
        from hats.pixel_math.healpix_pixel import HealpixPixel
        from hats.pixel_math.spatial_index import compute_spatial_index
    except ImportError as error:
        message = "the library hats is not installed, but the format 'hats' needs it: pip install 'galstore[export]'"
        raise ExportError(message) from error

    rows, table = request.rows, request.table
    ra, dec = (read_sparse_rows(request.cube.array(f"catalog/{name}"), rows) for name in ("ra", "dec"))
    index = np.asarray(compute_spatial_index(ra, dec), dtype=np.int64)
    order = np.argsort(index, kind="stable")
    schema = voparquet_schema((*table.columns, _INDEX), request.provenance)
    pixels = []
    for pixel_order, pixel, part in _partition(index[order]):
        pixels.append(HealpixPixel(pixel_order, pixel))
        file = Path(str(paths.pixel_catalog_file(folder, pixels[-1])))
        file.parent.mkdir(parents=True, exist_ok=True)
        members = np.sort(order[part])
        content = table.read(rows[members]).append_column(INDEX_COLUMN, pa.array(index[members]))
        by_position = np.argsort(index[members], kind="stable")
        pyarrow.parquet.write_table(content.take(pa.array(by_position)).cast(schema), file, compression="zstd")
        request.on_progress(members.size)
    write_parquet_metadata(folder)
    PartitionInfo.from_healpix(pixels).write_to_file(catalog_path=folder)
    properties = _properties(request.provenance, highest_order=max(pixel.order for pixel in pixels))
    TableProperties.model_validate(properties).to_properties_file(folder)


def _partition(index: npt.NDArray[np.int64]) -> Iterator[tuple[int, int, slice]]:
    """Yield order and number (nested) of the pixels that together cover an ascending index, and their slices."""

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


def _properties(provenance: ExportProvenance, *, highest_order: int) -> dict[str, object]:
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
        # time of the snapshot, so that the same snapshot gives the same files
        "hats_creation_date": provenance.committed,
        "hats_version": "v1.0",
        "obs_description": f"{provenance.title}, snapshot {provenance.snapshot_id}",
        "obs_regime": "Optical",
    }

"""Lookup of rows by id or by position, with the two indexes of the cube."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.arrays import Values, require_group
from galstore.cube.columns import ColumnCache
from galstore.cube.index.healpix import sky_cells
from galstore.cube.index.segments import SegmentIndex
from schemas.cube import SKY_INDEX_ORDER
from schemas.errors import PositionError

WHOLE_SKY_FROM_DEG = 90.0
"""Larger cones are searched among all objects: most objects are inside, and cdshealpix 0.9 misses parts of cones from
about 150 degrees on."""

_Rows = npt.NDArray[np.int64]


def index_objects(root: zarr.Group, first: int, objects: pd.DataFrame) -> None:
    """Add new objects (object_id, ra, dec), from row `first` on, to both indexes after their arrays were extended."""
    for name, entries in index_entries(objects, first).items():
        open_index(root, name).append(entries)


def index_entries(objects: pd.DataFrame, first: int = 0) -> dict[str, dict[str, Values]]:
    """Return the entries of consecutive objects for each index; the first object has row `first`."""
    rows = np.arange(first, first + len(objects), dtype=np.int64)
    ids = objects["object_id"].to_numpy(dtype=np.int64)
    ra_deg, dec_deg = (objects[name].to_numpy(dtype=np.float64) for name in ("ra", "dec"))
    cells = sky_cells(ra_deg, dec_deg, order=SKY_INDEX_ORDER)
    return {
        "id": {"key": ids, "row": rows},
        "sky": {"key": cells, "row": rows, "object_id": ids, "ra": ra_deg, "dec": dec_deg},
    }


def open_index(root: zarr.Group, name: str, columns: ColumnCache | None = None) -> SegmentIndex:
    """Open the index `name`: "id" or "sky"."""
    return SegmentIndex(require_group(root, f"index/{name}"), columns)


def entries_in_cone(sky: SegmentIndex, ra_deg: float, dec_deg: float, radius_deg: float) -> dict[str, Values]:
    """Find the objects within a radius (0 to 180 deg) around a position (ICRS), boundary included, nearest first.

    Arrays of shape (n,) are `row`, `object_id`, `ra`, `dec` and `separation`, the last three in degrees. Separations
    follow Vincenty's formula (astropy's `angular_separation`); equal ones are ordered by row. Values out of range raise
    `PositionError`.
    """
    for name, value, low, high in (("ra", ra_deg, 0, 360), ("dec", dec_deg, -90, 90), ("radius", radius_deg, 0, 180)):
        if not low <= value <= high:
            raise PositionError(
                f"{name}_deg must be a number of degrees from {low} to {high}, got {value}: give ICRS coordinates and "
                "a radius in decimal degrees"
            )
    # the import takes a second, and only this function needs it
    from astropy.coordinates import angular_separation

    found = sky.read_between(*cone_cover(ra_deg, dec_deg, radius_deg), ("row", "object_id", "ra", "dec"))
    centre = math.radians(ra_deg), math.radians(dec_deg)
    separation_deg = np.degrees(angular_separation(*centre, np.radians(found["ra"]), np.radians(found["dec"])))
    inside = separation_deg <= radius_deg
    near = {name: values[inside] for name, values in {**found, "separation": separation_deg}.items()}
    order = np.lexsort((near["row"], near["separation"]))
    return {name: values[order] for name, values in near.items()}


def cone_cover(ra_deg: float, dec_deg: float, radius_deg: float) -> tuple[_Rows, _Rows]:
    """Return ranges of HEALPix cells that cover a cone with a small margin.

    The first cell of each range and the cell after its last have order 29, ascend and are disjoint, shape (n,).
    """
    if radius_deg > WHOLE_SKY_FROM_DEG:
        return np.array([0]), np.array([12 << 2 * SKY_INDEX_ORDER])
    from astropy.coordinates import Angle, Latitude, Longitude
    from cdshealpix.nested import cone_search

    # slightly wider, because rounding moves positions by as much
    wide_deg = radius_deg * (1 + 1e-9) + 1e-10
    # cells of about a quarter of the radius, a sixteenth at the boundary
    order = min(max(math.ceil(math.log2(58.6 / wide_deg)) + 2, 0), SKY_INDEX_ORDER)
    centre = Longitude(ra_deg, unit="deg"), Latitude(dec_deg, unit="deg")
    delta = min(2, SKY_INDEX_ORDER - order)
    cells, orders, _ = cone_search(*centre, Angle(wide_deg, unit="deg"), depth=order, depth_delta=delta)
    shifts = 2 * (SKY_INDEX_ORDER - orders.astype(np.int64))
    lows, highs = (np.sort(bounds << shifts) for bounds in (cells.astype(np.int64), cells.astype(np.int64) + 1))
    # merge adjacent ranges
    apart = lows[1:] > highs[:-1]
    return lows[np.r_[True, apart]], highs[np.r_[apart, True]]

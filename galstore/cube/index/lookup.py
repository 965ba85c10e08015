"""Lookup: which rows some ids have, and which lie in a cone on the sky, by the two indexes of the cube."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.columns import Columns
from galstore.cube.index.healpix import sky_cells
from galstore.cube.index.segments import SegmentIndex
from schemas.cube import SKY_INDEX_ORDER
from schemas.errors import PositionError

WHOLE_SKY_FROM_DEG = 90.0
"""Cones above this radius are searched among all objects: most of them are inside, and cdshealpix 0.9 leaves out parts
of cones from about 150 degrees on."""

_Rows = npt.NDArray[np.int64]


def index_objects(root: zarr.Group, first: int, objects: pd.DataFrame) -> None:
    """Take up new objects in both indexes, whose arrays have been lengthened by as many.

    Parameters
    ----------
    root
        Of a session that can be written.
    first
        Row of the first of them.
    objects
        Columns object_id, ra, dec.
    """
    for name, entries in index_entries(objects, first).items():
        open_index(root, name).append(entries)


def index_entries(objects: pd.DataFrame, first: int = 0) -> dict[str, dict[str, npt.NDArray[Any]]]:
    """By index, the entries of objects whose rows follow each other from `first` on."""
    rows = np.arange(first, first + len(objects), dtype=np.int64)
    ids = objects["object_id"].to_numpy(dtype=np.int64)
    ra_deg, dec_deg = (objects[name].to_numpy(dtype=np.float64) for name in ("ra", "dec"))
    cells = sky_cells(ra_deg, dec_deg, order=SKY_INDEX_ORDER)
    return {
        "id": {"key": ids, "row": rows},
        "sky": {"key": cells, "row": rows, "object_id": ids, "ra": ra_deg, "dec": dec_deg},
    }


def open_index(root: zarr.Group, name: str, columns: Columns | None = None) -> SegmentIndex:
    """The index of this name (id or sky), as of `SegmentIndex`."""
    group: Any = root[f"index/{name}"]
    return SegmentIndex(group, columns)


def entries_in_cone(sky: SegmentIndex, ra_deg: float, dec_deg: float, radius_deg: float) -> dict[str, npt.NDArray[Any]]:
    """Objects within a radius around a place, boundary included, nearest first.

    Parameters
    ----------
    sky
        The index of places.
    ra_deg, dec_deg
        The place, ICRS.
    radius_deg
        Along a great circle, 0 to 180.

    Returns
    -------
    dict
        Arrays of shape (n,): `row` (those at one separation in ascending order), `object_id`, `ra`, `dec`, and
        `separation`, all three in degrees, the last by Vincenty's formula (astropy's `angular_separation`).

    Raises
    ------
    PositionError
        Place or radius is out of range.
    """
    _require_within("ra_deg", ra_deg, 0, 360)
    _require_within("dec_deg", dec_deg, -90, 90)
    _require_within("radius_deg", radius_deg, 0, 180)
    # a second that only lookups on the sky need
    from astropy.coordinates import angular_separation

    found = sky.read_between(*cone_cover(ra_deg, dec_deg, radius_deg), ("row", "object_id", "ra", "dec"))
    place = math.radians(ra_deg), math.radians(dec_deg)
    separation_deg = np.degrees(angular_separation(*place, np.radians(found["ra"]), np.radians(found["dec"])))
    inside = separation_deg <= radius_deg
    near = {"row": found["row"], "object_id": found["object_id"], "ra": found["ra"], "dec": found["dec"]}
    near = {name: values[inside] for name, values in {**near, "separation": separation_deg}.items()}
    order = np.lexsort((near["row"], near["separation"]))
    return {name: values[order] for name, values in near.items()}


def cone_cover(ra_deg: float, dec_deg: float, radius_deg: float) -> tuple[_Rows, _Rows]:
    """Ranges of HEALPix cells that cover a cone and little more.

    Returns
    -------
    ndarray, ndarray
        First cell of each range and the cell after its last, order 29, ascending and apart, shape (n,).
    """
    if radius_deg > WHOLE_SKY_FROM_DEG:
        return np.array([0]), np.array([12 << 2 * SKY_INDEX_ORDER])
    from astropy.coordinates import Angle, Latitude, Longitude
    from cdshealpix.nested import cone_search

    # a little wider than asked, since rounding moves places by as much
    wide_deg = radius_deg * (1 + 1e-9) + 1e-10
    # cells of about a quarter of the radius, and the boundary by a sixteenth
    order = min(max(math.ceil(math.log2(58.6 / wide_deg)) + 2, 0), SKY_INDEX_ORDER)
    cells, orders, _ = cone_search(
        Longitude(ra_deg, unit="deg"), Latitude(dec_deg, unit="deg"), Angle(wide_deg, unit="deg"),
        depth=order, depth_delta=min(2, SKY_INDEX_ORDER - order),
    )  # fmt: skip
    shifts = 2 * (SKY_INDEX_ORDER - orders.astype(np.int64))
    lows, highs = (np.sort(bounds << shifts) for bounds in (cells.astype(np.int64), cells.astype(np.int64) + 1))
    # neighbours become one
    apart = lows[1:] > highs[:-1]
    return lows[np.r_[True, apart]], highs[np.r_[apart, True]]


def _require_within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise PositionError(
            f"{name} must be a number of degrees from {low} to {high}, got {value}: give ICRS coordinates and a "
            "radius in decimal degrees"
        )

"""Which object is meant by a position on the sky."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

MATCH_ARCSEC = 1.0
"""A cutout asked for within this distance of an object shows that object."""


class PositionIndex:
    """Nearest object to a position, by a tree over unit vectors (no trouble at the poles or at ra = 0).

    Parameters
    ----------
    ra_deg, dec_deg
        Positions of shape (n,), ICRS degrees.

    Examples
    --------
    >>> index = PositionIndex([359.9999, 10.0], [0.0, 20.0])
    >>> index.nearest(0.0, 0.0), index.nearest(-0.0001, 0.0001)
    (0, 0)
    >>> index.nearest(10.0, 20.1) is None
    True
    """

    def __init__(self, ra_deg: ArrayLike, dec_deg: ArrayLike) -> None:
        from scipy.spatial import KDTree

        self._tree = KDTree(_unit_vectors(ra_deg, dec_deg))
        # what is asked for is most often a place of the catalog itself: found at a tenth of the time of a search
        places = zip(np.asarray(ra_deg).tolist(), np.asarray(dec_deg).tolist(), strict=True)
        self._row_at = {place: row for row, place in enumerate(places)}

    def nearest(self, ra_deg: float, dec_deg: float) -> int | None:
        """Row of the nearest object within `MATCH_ARCSEC`, or None."""
        row = self._row_at.get((ra_deg, dec_deg))
        if row is not None:
            return row
        reach = 2 * math.sin(math.radians(MATCH_ARCSEC / 3600) / 2)
        ra, dec = math.radians(ra_deg), math.radians(dec_deg)
        # numpy's arithmetic on single numbers would take longer than the search
        place = (math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec))
        distance, nearest = self._tree.query(place)
        return int(nearest) if distance <= reach else None


def _unit_vectors(ra_deg: ArrayLike, dec_deg: ArrayLike) -> NDArray[np.float64]:
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)

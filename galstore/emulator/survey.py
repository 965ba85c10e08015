"""Interface of the surveys that the emulator serves, and the match of a position with their objects."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from schemas.cutouts import Composite

MATCH_ARCSEC = 1.0
"""Maximum distance between a requested position and the object that the cutout shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoutQuery:
    """Parameters of a cutout request; the position is ra and dec, the size width and height."""

    position_deg: tuple[float, float]
    scale_arcsec: float
    size_px: tuple[int, int]
    composite: Composite = Composite.SKYSERVER


class Survey(Protocol):
    """Catalog with an image of each object."""

    def catalog(self) -> pd.DataFrame:
        """Return one row per spectrum with SDSS column names, at least `objID`, `specObjID`, `ra` and `dec`."""

    def covers(self, ra_deg: float, dec_deg: float) -> bool:
        """Return True if the survey has an image of a position."""

    def find(self, ra_deg: float, dec_deg: float) -> int | None:
        """Return the id of the object at a position, or None."""

    def cutout(self, object_id: int | None, query: CutoutQuery) -> bytes | Callable[[], bytes]:
        """Return the JPEG of an object, or of the position if the id is None.

        A drawing is returned as a picklable callable, so that another process can run it.
        """


class PositionIndex:
    """Nearest-object search with a tree over unit vectors, without singular points at the poles or at ra = 0.

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

        ra, dec = np.radians(ra_deg), np.radians(dec_deg)
        self._tree = KDTree(np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1))
        # most requests are for exact catalog positions: a dictionary takes a tenth of the time of the tree
        positions = zip(np.asarray(ra_deg).tolist(), np.asarray(dec_deg).tolist(), strict=True)
        self._row_at = {position: row for row, position in enumerate(positions)}

    def nearest(self, ra_deg: float, dec_deg: float) -> int | None:
        """Return the row of the nearest object within `MATCH_ARCSEC`, or None."""
        if (ra_deg, dec_deg) in self._row_at:
            return self._row_at[ra_deg, dec_deg]
        max_chord = 2 * math.sin(math.radians(MATCH_ARCSEC / 3600) / 2)
        ra, dec = math.radians(ra_deg), math.radians(dec_deg)
        # numpy scalars would take longer than the search
        vector = (math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec))
        chord, nearest = self._tree.query(vector)
        return int(nearest) if chord <= max_chord else None

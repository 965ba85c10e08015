"""Cells of the sky: HEALPix pixels (Górski et al. 2005), nested order, ICRS."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def sky_cells(
    ra_deg: npt.NDArray[np.float64], dec_deg: npt.NDArray[np.float64], *, order: int
) -> npt.NDArray[np.int64]:
    """Number of the cell of each place; there are 12 * 4**order of them.

    Examples
    --------
    >>> sky_cells(np.array([10.0, 190.0]), np.array([5.0, -40.0]), order=1).tolist()
    [17, 42]
    """
    from astropy.coordinates import Latitude, Longitude
    from cdshealpix.nested import lonlat_to_healpix

    cells = lonlat_to_healpix(Longitude(ra_deg, unit="deg"), Latitude(dec_deg, unit="deg"), depth=order)
    return np.asarray(cells, dtype=np.int64)

"""HEALPix cells (Górski et al. 2005), nested order, ICRS."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def sky_cells(
    ra_deg: npt.NDArray[np.float64], dec_deg: npt.NDArray[np.float64], *, order: int
) -> npt.NDArray[np.int64]:
    """Return the number of the HEALPix cell of each position, 0 to 12 * 4**order - 1.

    Examples
    --------
    >>> sky_cells(np.array([10.0, 190.0]), np.array([5.0, -40.0]), order=1).tolist()
    [17, 42]
    """
    from astropy.coordinates import Latitude, Longitude
    from cdshealpix.nested import lonlat_to_healpix

    cells = lonlat_to_healpix(Longitude(ra_deg, unit="deg"), Latitude(dec_deg, unit="deg"), depth=order)
    return np.asarray(cells, dtype=np.int64)

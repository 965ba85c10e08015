"""SDSS SkyServer and the parameters of its cutouts; its catalog is in `skyserver_sql`.

Source: the service's ImgCutout page (skyserver.sdss.org, DR14 onwards).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from schemas.cutouts import SIDE_PX


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyServer:
    """Data release of a SkyServer, real or emulated; only the base URL differs."""

    base_url: str
    data_release: int = 14

    @property
    def cutout_url(self) -> str:
        return f"{self.base_url}/dr{self.data_release}/SkyServerWS/ImgCutout/getjpeg"

    def cutout_params(self, *, ra_deg: float, dec_deg: float, scale_arcsec: float) -> dict[str, str]:
        """Return the query parameters of one cutout, without the scale if it is NaN."""
        params = {"ra": f"{ra_deg:.9f}", "dec": f"{dec_deg:.9f}", "width": str(SIDE_PX), "height": str(SIDE_PX)}
        if not math.isnan(scale_arcsec):
            params["scale"] = f"{scale_arcsec:.9g}"
        return params

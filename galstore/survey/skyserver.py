"""SDSS SkyServer: one release of the service, and what it is asked for a cutout.

Source: the service's ImgCutout page (skyserver.sdss.org, DR14 onwards). The catalog is `skyserver_sql`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.cutouts import SIDE_PX


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyServer:
    """One release of one SkyServer, real or emulated; only the base URL tells them apart."""

    base_url: str
    data_release: int = 14

    @property
    def cutout_url(self) -> str:
        return f"{self.base_url}/dr{self.data_release}/SkyServerWS/ImgCutout/getjpeg"

    def cutout_params(self, *, ra_deg: float, dec_deg: float, scale_arcsec: float) -> dict[str, str]:
        """Query parameters of one cutout; an unknown scale (NaN) is left to the service."""
        params = {"ra": f"{ra_deg:.9f}", "dec": f"{dec_deg:.9f}", "width": str(SIDE_PX), "height": str(SIDE_PX)}
        if scale_arcsec == scale_arcsec:  # noqa: PLR0124 - NaN alone differs from itself
            params["scale"] = f"{scale_arcsec:.9g}"
        return params

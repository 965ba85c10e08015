"""The Legacy Surveys viewer: what it is asked for a cutout.

Source: the viewer's cutout page (legacysurvey.org/viewer). It has no catalog that galstore asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.cutouts import SIDE_PX

NATIVE_SCALE_ARCSEC = 0.262
"""Pixel size of the viewer's images, arcsec per pixel; its own where none is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacySurveyViewer:
    """One layer of one Legacy Surveys viewer, real or emulated; only the base URL tells them apart."""

    base_url: str
    layer: str = "ls-dr9"

    @property
    def cutout_url(self) -> str:
        return f"{self.base_url}/viewer/cutout.jpg"

    def cutout_params(self, *, ra_deg: float, dec_deg: float, scale_arcsec: float) -> dict[str, str]:
        """Query parameters of one cutout; an unknown scale (NaN) is left to the service."""
        params = {"ra": f"{ra_deg:.9f}", "dec": f"{dec_deg:.9f}", "size": str(SIDE_PX), "layer": self.layer}
        if scale_arcsec == scale_arcsec:  # noqa: PLR0124 - NaN alone differs from itself
            params["pixscale"] = f"{scale_arcsec:.9g}"
        return params

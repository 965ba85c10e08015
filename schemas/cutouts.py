"""Cutouts: one object's image as a survey service delivers it, and what can be wrong with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from schemas.errors import CatalogError, ContractError

SIDE_PX = 128
"""Side of a delivered cutout and of the cube's finest level, in pixels (paper, §2.2)."""

BANDS = ("i", "r", "g")
"""Order of the `band` axis. SDSS puts i, r, g into the red, green and blue of its JPEGs."""

SDSS_NATIVE_SCALE_ARCSEC = 0.396
"""Pixel size of the SDSS camera, arcsec per pixel."""


class Status(IntEnum):
    """Where one object's cutout stands. Every registered object has exactly one of these."""

    PENDING = 0
    STORED = 1
    QUARANTINED = 2


class Reason(IntEnum):
    """Why a cutout was quarantined (`/state/reason`); 0 where it was not."""

    NONE = 0
    OUT_OF_FOOTPRINT = 1
    """404, or 200 with the service's black tile."""
    NOT_A_JPEG = 2
    """An HTML page, a text, or other bytes where a JPEG should be."""
    TRUNCATED = 3
    """A JPEG that stops before its end."""
    WRONG_SIZE = 4
    """A JPEG of other than 128 x 128 pixels, or not of three channels."""
    FLAT = 5
    """A tile without any structure (standard deviation below 1 count): no coverage."""
    TOO_LARGE = 6
    """More bytes than the cube keeps for one cutout."""
    CLIENT_ERROR = 7
    """A 4xx other than 404 and 429: the request itself is refused."""
    SERVICE_ERROR = 8
    """429, 5xx, time-outs and broken connections that outlasted every retry."""


class ScaleRule(StrEnum):
    """How the pixel scale of a cutout follows from its object. Networks never cross rules."""

    FIXED = "fixed"
    """The same arcsec per pixel for every object (the paper's text: 0.296)."""
    PETRO_R90 = "petro_r90"
    """2 petroR90_r / 0.396 / 128 arcsec per pixel: constant galaxy size in the frame (the paper's published images)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoutScale:
    """A scale rule with its one number.

    Parameters
    ----------
    rule
        Which rule.
    arcsec_per_px
        The scale of `ScaleRule.FIXED`; ignored by the other rule.
    prepared
        True where the service holds images that were already cut by `rule`, so that the catalog needs no sizes;
        the scale of an object whose size is unknown is then recorded as NaN.
    """

    rule: ScaleRule
    arcsec_per_px: float = 0.296
    prepared: bool = False

    def __post_init__(self) -> None:
        # SkyServer clamps silently to this range: an image at another scale than asked for
        if not 0.015 <= self.arcsec_per_px <= 2400:
            raise ContractError(
                f"pixel scale {self.arcsec_per_px} arcsec/px is outside 0.015-2400, where SkyServer clamps it "
                "silently: choose a scale inside"
            )

    def of(self, petro_r90_arcsec: float | None) -> float:
        """Pixel scale of one object.

        Parameters
        ----------
        petro_r90_arcsec
            Radius that holds 90 % of the Petrosian r flux, arcsec; None or NaN where unknown.

        Returns
        -------
        float
            arcsec per pixel; NaN where it is unknown and the service holds prepared images.

        Raises
        ------
        CatalogError
            The rule needs a size and there is none.

        Examples
        --------
        >>> CutoutScale(rule=ScaleRule.FIXED, arcsec_per_px=0.296).of(None)
        0.296
        >>> round(CutoutScale(rule=ScaleRule.PETRO_R90).of(5.0), 4)
        0.1973
        """
        if self.rule is ScaleRule.FIXED:
            return self.arcsec_per_px
        if petro_r90_arcsec is not None and math.isfinite(petro_r90_arcsec) and petro_r90_arcsec > 0:
            return 2 * petro_r90_arcsec / SDSS_NATIVE_SCALE_ARCSEC / SIDE_PX
        if self.prepared:
            return math.nan
        raise CatalogError(
            f"scale rule 'petro_r90' needs petroR90_r > 0 arcsec for every object, got {petro_r90_arcsec}: add the "
            'column, or use cutouts.scale_rule = "fixed"'
        )

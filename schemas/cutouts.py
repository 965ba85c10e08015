"""Cutouts: states and faults of an object's image, scale rules, and colour composites."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from schemas.errors import CatalogError, ContractError, StoreError

SIDE_PX = 128
"""Side of a cutout and of the cube's finest level, in pixels (paper, §2.2)."""

BANDS = ("i", "r", "g")
"""Order of the `band` axis. SDSS puts i, r, g into the red, green and blue of its JPEGs."""

SDSS_NATIVE_SCALE_ARCSEC = 0.396
"""Pixel size of the SDSS camera, arcsec per pixel."""


class Status(IntEnum):
    """State of an object's cutout."""

    PENDING = 0
    STORED = 1
    QUARANTINED = 2


class Reason(IntEnum):
    """Fault of a quarantined cutout (`/state/reason`). Cubes store the numbers: never change them."""

    NONE = 0
    OUT_OF_FOOTPRINT = 1  # 404, or 200 with the service's black tile
    NOT_A_JPEG = 2  # bytes that are neither a JPEG nor an HTML page nor text
    TRUNCATED = 3  # a JPEG that ends early
    WRONG_SIZE = 4  # a JPEG that does not have 128 x 128 pixels and three channels
    FLAT = 5  # a tile without structure (standard deviation below 1 count): no coverage
    TOO_LARGE = 6  # more bytes than the cube stores for one cutout
    CLIENT_ERROR = 7  # a 4xx other than 404, 408 and 429: the service refuses the request
    SERVICE_ERROR = 8  # a 5xx or 408 that outlasted every retry
    TOO_MANY_REQUESTS = 9  # a 429 that outlasted every retry
    CONNECT_TIMEOUT = 10  # no connection within the limit
    READ_TIMEOUT = 11  # no complete response within the limit
    CONNECTION_LOST = 12  # connection refused, reset, or closed before the response was complete
    HTML_PAGE = 13  # 200 with an HTML page
    ERROR_MESSAGE = 14  # 200 with text or JSON instead of an image, such as `error_message` or "no such layer"
    TRAILING_BYTES = 15  # a complete JPEG with further bytes after its end
    REPEATED_BODY = 16  # the same bytes as for an object elsewhere on the sky: a stuck cache
    DECOMPRESSION_BOMB = 17  # a JPEG whose header claims more pixels than any cutout has


DOWN_REASONS = frozenset(
    {Reason.SERVICE_ERROR, Reason.TOO_MANY_REQUESTS, Reason.HTML_PAGE, Reason.ERROR_MESSAGE}
    | {Reason.CONNECT_TIMEOUT, Reason.READ_TIMEOUT, Reason.CONNECTION_LOST}
)
"""Faults of the service, not of an object: many in a row open the circuit breaker."""

TRANSIENT_REASONS = DOWN_REASONS | {Reason.NOT_A_JPEG, Reason.TRUNCATED, Reason.TRAILING_BYTES, Reason.REPEATED_BODY}
"""Faults that a retry may cure; the other faults belong to the object."""


class ScaleRule(StrEnum):
    """Rule for the pixel scale of a cutout. A network is used with one rule only."""

    FIXED = "fixed"  # the same arcsec per pixel for every object (the paper's text: 0.296)
    # 2 petroR90_r / 0.396 / 128 arcsec per pixel: constant galaxy size in the frame (the paper's published images)
    PETRO_R90 = "petro_r90"


class Composite(StrEnum):
    """Bands and stretch of the JPEG's red, green and blue. A network is used with one composite only."""

    SKYSERVER = "skyserver"  # SDSS SkyServer's ImgCutout: i, r, g
    LS_DR9 = "legacysurvey-ls-dr9"  # the Legacy Surveys viewer's layer `ls-dr9`: z, r, g of deeper images
    LEGACY_SDSS = "legacysurvey-sdss"  # the viewer's layer `sdss`: SDSS i, r, g with the viewer's stretch

    @property
    def bands(self) -> tuple[str, str, str]:
        """Bands in red, green and blue: the order of the `band` axis."""
        return ("z", "r", "g") if self is Composite.LS_DR9 else BANDS


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoutScale:
    """Scale rule and composite of a set of cutouts; a network must not mix them.

    `arcsec_per_px` is the scale of `ScaleRule.FIXED`; other rules ignore it. `prepared` means that the service holds
    images that were already cut by `rule`: the catalog then needs no sizes, and an object of unknown size gets a scale
    of NaN.
    """

    rule: ScaleRule
    arcsec_per_px: float = 0.296
    prepared: bool = False
    composite: Composite = Composite.SKYSERVER

    def __post_init__(self) -> None:
        # SkyServer clamps silently to this range: the image would have another scale than requested
        if not 0.015 <= self.arcsec_per_px <= 2400:
            raise ContractError(
                f"pixel scale {self.arcsec_per_px} arcsec/px is outside 0.015-2400, the range of SkyServer: "
                "choose a scale inside"
            )

    def of(self, petro_r90_arcsec: float | None) -> float:
        """Return the pixel scale of an object, arcsec per pixel; NaN if the size is unknown and `prepared` is set.

        Parameters
        ----------
        petro_r90_arcsec
            Radius of 90 % of the Petrosian r flux, arcsec; None or NaN if unknown.

        Raises
        ------
        CatalogError
            The rule needs a size, but the size is unknown.

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


def require_same_scale(found: CutoutScale, expected: CutoutScale, *, found_in: str, expected_by: str) -> None:
    """Raise a `StoreError` unless two scales have the same rule, pixel scale and composite.

    Parameters
    ----------
    found, expected
        Scales to compare. `prepared` is ignored, and `arcsec_per_px` counts for `ScaleRule.FIXED` only.
    found_in, expected_by
        Owners of the two scales, for the message.

    Examples
    --------
    >>> fixed, petro = CutoutScale(rule=ScaleRule.FIXED), CutoutScale(rule=ScaleRule.PETRO_R90)
    >>> require_same_scale(fixed, petro, found_in="the cube at demo/cube", expected_by="model 1f3a")
    Traceback (most recent call last):
    ...
    schemas.errors.StoreError: the cube at demo/cube has cutouts of scale rule 'fixed' (0.296 arcsec/px), model 1f3a ...
    """
    if found.composite is not expected.composite:
        raise StoreError(
            f"{found_in} has cutouts of composite '{found.composite}', {expected_by} needs '{expected.composite}': "
            "the bands and the stretch differ, so one galaxy has other colours; use another store.path or model"
        )
    fixed = expected.rule is ScaleRule.FIXED
    if found.rule is not expected.rule or (
        fixed and not math.isclose(found.arcsec_per_px, expected.arcsec_per_px, rel_tol=1e-6)
    ):
        raise StoreError(
            f"{found_in} has cutouts of scale rule '{found.rule}' ({found.arcsec_per_px:g} arcsec/px), {expected_by} "
            f"needs '{expected.rule}' ({expected.arcsec_per_px:g} arcsec/px): a galaxy would have another size in the "
            "frame; use another store.path or model"
        )

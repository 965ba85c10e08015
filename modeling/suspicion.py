"""Suspicion: what is wrong with a cutout whatever network looks at it, by fixed limits from real cutouts.

Of 400 real SDSS cutouts none exceeds any limit: at most 0 % of their pixels are saturated, 11 % empty and 1 % bright in
one band alone, and their skies differ by 25 counts where a bright star is near.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.image_statistics import Floats, band_planes, edge_median, shrink
from schemas.predictions import Flag

SATURATED_COUNTS = 250.0
MOST_SATURATED = 0.02
"""Share of pixels that are saturated in all bands."""

EMPTY_COUNTS = 0.5
MOST_EMPTY = 0.3
"""Share of pixels that are empty in all bands."""

MOST_GRADIENT = 32.0
"""Counts by which the sky of one side is redder or bluer than that of the opposite one."""

MOST_ALONE = 0.10
"""Share of the pixels in which one band is bright and the others are dark."""
ALONE_COUNTS = 60.0
ALONE_RATIO = 4.0

LOOKED_AT = 512
"""Images at a time, which are shrunk to 32 px: 6 MB."""


def suspicious_flags(pixels: NDArray[Any]) -> NDArray[np.int32]:
    """Flags of images by themselves.

    Parameters
    ----------
    pixels
        (object, y, x, band) counts, 0-255.

    Returns
    -------
    ndarray
        (object,): `CUTOUT_SATURATED`, `CUTOUT_MOSTLY_EMPTY` and `CUTOUT_ARTEFACT_COLOURS`, added up.
    """
    parts = [
        _flags(shrink(band_planes(pixels[start : start + LOOKED_AT]))) for start in range(0, len(pixels), LOOKED_AT)
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)


def _flags(planes: Floats) -> NDArray[np.int32]:
    brightest, darkest = planes.max(axis=1), planes.min(axis=1)
    saturated = (darkest >= SATURATED_COUNTS).mean(axis=(1, 2)) > MOST_SATURATED
    empty = (brightest <= EMPTY_COUNTS).mean(axis=(1, 2)) > MOST_EMPTY
    # of three bands, the second brightest is what the other two leave over
    second = planes.sum(axis=1) - brightest - darkest
    alone = ((brightest > ALONE_COUNTS) & (brightest > ALONE_RATIO * (second + 1))).mean(axis=(1, 2)) > MOST_ALONE
    coloured = alone | (_sky_gradient(planes) > MOST_GRADIENT)
    flags = saturated * Flag.CUTOUT_SATURATED + empty * Flag.CUTOUT_MOSTLY_EMPTY
    return np.asarray(flags + coloured * Flag.CUTOUT_ARTEFACT_COLOURS, dtype=np.int32)


def _sky_gradient(planes: Floats) -> Floats:
    """Difference of the colour (a band minus the mean of the bands) between opposite edges, counts; 0 below 8 px."""
    if planes.shape[2] < 8:
        return np.zeros(len(planes), dtype=np.float32)
    # medians, since neighbours are no gradient
    skies = [edge_median(planes, name) for name in ("top", "bottom", "left", "right")]
    colours = [sky - sky.mean(axis=1, keepdims=True) for sky in skies]
    steps = [np.abs(a - b).max(axis=1) for a, b in ((colours[0], colours[1]), (colours[2], colours[3]))]
    return np.asarray(np.maximum(*steps))

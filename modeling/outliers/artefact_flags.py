"""Suspicion: what is wrong with a cutout whatever network looks at it, by fixed limits from real cutouts.

Of 400 real SDSS cutouts none exceeds any limit: at most 0 % of their pixels are saturated, 11 % empty and 1 % bright in
one band alone, and their skies differ by 25 counts where a bright star is near.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modeling.outliers.image_statistics import Floats, Thumbnails
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


def suspicious_flags(images: Thumbnails) -> NDArray[np.int32]:
    """Flags of images by themselves.

    Returns
    -------
    ndarray
        (object,): `CUTOUT_SATURATED`, `CUTOUT_MOSTLY_EMPTY` and `CUTOUT_ARTEFACT_COLOURS`, added up.
    """
    planes = images.planes
    brightest, darkest = planes.max(axis=1), planes.min(axis=1)
    saturated = (darkest >= SATURATED_COUNTS).mean(axis=(1, 2)) > MOST_SATURATED
    empty = (brightest <= EMPTY_COUNTS).mean(axis=(1, 2)) > MOST_EMPTY
    # of three bands, the second brightest is what the other two leave over
    second = planes.sum(axis=1) - brightest - darkest
    alone = ((brightest > ALONE_COUNTS) & (brightest > ALONE_RATIO * (second + 1))).mean(axis=(1, 2)) > MOST_ALONE
    coloured = alone | (_sky_gradient(images) > MOST_GRADIENT)
    flags = saturated * Flag.CUTOUT_SATURATED + empty * Flag.CUTOUT_MOSTLY_EMPTY
    return np.asarray(flags + coloured * Flag.CUTOUT_ARTEFACT_COLOURS, dtype=np.int32)


def _sky_gradient(images: Thumbnails) -> Floats:
    """Difference of the colour (a band minus the mean of the bands) between opposite edges, counts; 0 below 8 px."""
    if images.sides is None or images.planes.shape[2] < 8:
        return np.zeros(len(images.planes), dtype=np.float32)
    # medians, since neighbours are no gradient
    colours = [sky - sky.mean(axis=1, keepdims=True) for sky in images.sides]
    steps = [np.abs(a - b).max(axis=1) for a, b in ((colours[0], colours[1]), (colours[2], colours[3]))]
    return np.asarray(np.maximum(*steps))

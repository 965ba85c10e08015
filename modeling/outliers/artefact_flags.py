"""Flags of defective cutouts, by fixed limits that do not depend on a network.

Of 400 real SDSS cutouts none exceeds a limit: at most 0 % of their pixels are saturated, 11 % empty and 1 % bright in
one band alone, and their skies differ by 25 counts near a bright star.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modeling.outliers.grain import Floats
from modeling.outliers.thumbnails import Thumbnails
from schemas.predictions import Flag

SATURATED_COUNTS = 250.0
MAX_SATURATED = 0.02
"""Share of pixels that are saturated in all bands."""
EMPTY_COUNTS = 0.5
MAX_EMPTY = 0.3
"""Share of pixels that are empty in all bands."""
MAX_GRADIENT = 32.0
"""Difference in colour between the skies of opposite sides, counts."""
MAX_SINGLE_BAND = 0.10
"""Share of the pixels that are bright in one band and dark in the others."""
SINGLE_BAND_COUNTS = 60.0
SINGLE_BAND_RATIO = 4.0


def artefact_flags(images: Thumbnails) -> NDArray[np.int32]:
    """Return sums of `CUTOUT_SATURATED`, `CUTOUT_MOSTLY_EMPTY` and `CUTOUT_ARTEFACT_COLOURS`, (object,)."""
    planes = images.planes
    brightest, darkest = planes.max(axis=1), planes.min(axis=1)
    saturated = (darkest >= SATURATED_COUNTS).mean(axis=(1, 2)) > MAX_SATURATED
    empty = (brightest <= EMPTY_COUNTS).mean(axis=(1, 2)) > MAX_EMPTY
    # with three bands, the sum minus the brightest and the darkest is the second brightest
    second = planes.sum(axis=1) - brightest - darkest
    single = (brightest > SINGLE_BAND_COUNTS) & (brightest > SINGLE_BAND_RATIO * (second + 1))
    coloured = (single.mean(axis=(1, 2)) > MAX_SINGLE_BAND) | (_sky_gradient(images) > MAX_GRADIENT)
    flags = saturated * Flag.CUTOUT_SATURATED + empty * Flag.CUTOUT_MOSTLY_EMPTY
    return np.asarray(flags + coloured * Flag.CUTOUT_ARTEFACT_COLOURS, dtype=np.int32)


def _sky_gradient(images: Thumbnails) -> Floats:
    """Return the difference in colour (band minus mean of bands) between opposite edges, counts; 0 below 8 px."""
    if images.sides is None or images.planes.shape[2] < 8:
        return np.zeros(len(images.planes), dtype=np.float32)
    colours = [sky - sky.mean(axis=1, keepdims=True) for sky in images.sides]
    steps = [np.abs(a - b).max(axis=1) for a, b in ((colours[0], colours[1]), (colours[2], colours[3]))]
    return np.asarray(np.maximum(*steps))

"""Resolution pyramid: each level is the area average of the delivered image, rounded once.

Levels are computed from exact integer sums of the finest one. Pooling from rounded levels would shift the 1 px level by
+0.9 counts, where its signal has a standard deviation of 4.9.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from galstore.cube.arrays import Values
from schemas.cube import LEVEL, LEVELS
from schemas.cutouts import SIDE_PX


def build_pyramid(pixels: npt.NDArray[np.uint8]) -> dict[int, Values]:
    """Build all eight levels of a stack of cutouts, uint8 of shape (object, 128, 128, band), as the cube stores them.

    Returns
    -------
    dict
        Side in px -> stored values, shape (object, side, side, band): uint8 counts at 128, 64 and 32 px, uint16 in
        units of 1/256 count below. 64 and 32 px are rounded to whole counts, ties to even; 16 and 8 px are exact;
        below, the error is at most 1/512 count.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:3] != (SIDE_PX, SIDE_PX):
        raise ValueError(
            f"a pyramid starts from uint8 (object, {SIDE_PX}, {SIDE_PX}, band), got {pixels.dtype} {pixels.shape}"
        )
    levels: dict[int, Values] = {SIDE_PX: pixels}
    sums: Values = pixels
    for side in LEVELS[1:]:
        level = LEVEL[side]
        stored: Values = np.empty((len(pixels), side, side, pixels.shape[3]), dtype=level.dtype)
        quads = np.empty(stored.shape, dtype=np.uint32)
        _sum_quads(sums, quads)
        _round_means(quads, np.uint32(round(1 / level.scale_factor)), np.uint32(level.shrink**2), stored)
        levels[side], sums = stored, quads
    return levels


@numba.njit(nogil=True, cache=True)
def _sum_quads(fine: Values, coarse: Values) -> None:
    n_objects, side, _, n_bands = coarse.shape
    for i in range(n_objects):
        for y in range(side):
            for x in range(side):
                for band in range(n_bands):
                    coarse[i, y, x, band] = (
                        np.uint32(fine[i, 2 * y, 2 * x, band])
                        + np.uint32(fine[i, 2 * y, 2 * x + 1, band])
                        + np.uint32(fine[i, 2 * y + 1, 2 * x, band])
                        + np.uint32(fine[i, 2 * y + 1, 2 * x + 1, band])
                    )


@numba.njit(nogil=True, cache=True)
def _round_means(sums: Values, units_per_count: np.uint32, n_pixels: np.uint32, means: Values) -> None:
    # 16,384 pixels x 255 counts x 256 units fit in 32 bits
    flat_sums, flat_means = sums.ravel(), means.ravel()
    half = n_pixels // np.uint32(2)
    for i in range(flat_sums.size):
        shifted = flat_sums[i] * units_per_count + half
        mean = shifted // n_pixels
        # ties to even: a quarter of the sums of four pixels are ties, and rounding them up adds 0.13 counts to 64 px
        if mean & np.uint32(1) and shifted == mean * n_pixels:
            mean -= np.uint32(1)
        flat_means[i] = mean

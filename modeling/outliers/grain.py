"""Grain of images: noise of the sky, and how it correlates between neighbouring pixels."""

from __future__ import annotations

from itertools import pairwise

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
MIN_GRAIN_PX = 8
"""Below this side images are too small for their grain."""
LAGS = (1, 2, 4)
"""Distances in pixels at which differences are measured."""
QUANTUM = 0.1
"""Counts that are added before a logarithm: below the rounding of 8 bits."""
_N_STRIPS = 4
fast_sums = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
"""Compile a function whose sums may be reordered for speed."""


def measure_grain(planes: Floats) -> Floats:
    """Measure the noise of the sky per band, its growth with distance, and the same at the centre of the image.

    Planes are (object, band, y, x) counts, at least 8 px a side; the result is (object, statistic).
    """
    quarter = planes.shape[2] // 4
    grey = planes.mean(axis=1, keepdims=True)
    lags = [lag for lag in LAGS if lag <= quarter]
    bands = _noise(planes, 1)
    noise = [_noise(grey, lag) for lag in lags]
    centre = np.ascontiguousarray(grey[:, 0, quarter:-quarter, quarter:-quarter])
    inner = [rms_step(centre, lag) for lag in lags]
    growth = [*pairwise(noise), *pairwise(inner)]
    parts = [
        np.log(bands + QUANTUM),
        np.log((noise[0] + QUANTUM) / (bands.mean(axis=1, keepdims=True) + QUANTUM)),
        *(np.log((far + QUANTUM) / (near + QUANTUM)) for near, far in growth),
        np.log((inner[0] + QUANTUM) / (centre.std(axis=(1, 2)) + QUANTUM)),
    ]
    return np.column_stack(parts).astype(np.float32)


def rms_step(grey: Floats, lag: int) -> Floats:
    """Return the root mean square difference of pixels `lag` apart along y and x, (object,)."""
    steps = np.empty(len(grey), dtype=np.float32)
    _measure_steps(grey, lag, steps)
    return steps


def _noise(planes: Floats, lag: int) -> Floats:
    """Return the mean absolute difference of pixels `lag` apart along a strip of the frame, in its darker half.

    (object, band); the middle two of the four strips, so that objects with light do not matter.
    """
    n, n_bands, side, _ = planes.shape
    apart = np.zeros((_N_STRIPS, n, n_bands, side - lag), dtype=np.float32)
    _add_differences(planes, lag, max(2, side // 16), apart)
    half = max(1, apart.shape[3] // 2)
    apart.partition(half - 1, axis=3)
    strips = apart[..., :half].mean(axis=3)
    return np.asarray((strips.sum(axis=0) - strips.max(axis=0) - strips.min(axis=0)) / (_N_STRIPS - 2))


@fast_sums
def _add_differences(planes: Floats, lag: int, width: int, apart: Floats) -> None:
    n, n_bands, side, _ = planes.shape
    share = np.float32(1 / width)
    for i in range(n):
        for band in range(n_bands):
            plane = planes[i, band]
            for strip in range(2):
                along = apart[strip, i, band]
                for k in range(width):
                    row = plane[k if strip == 0 else side - width + k]
                    for x in range(side - lag):
                        along[x] += abs(row[x + lag] - row[x])
                for x in range(side - lag):
                    along[x] *= share
            for strip in range(2):
                along, first = apart[2 + strip, i, band], 0 if strip == 0 else side - width
                for y in range(side - lag):
                    total = np.float32(0)
                    for k in range(width):
                        total += abs(plane[y + lag, first + k] - plane[y, first + k])
                    along[y] = total * share


@fast_sums
def _measure_steps(grey: Floats, lag: int, steps: Floats) -> None:
    n, side, _ = grey.shape
    for i in range(n):
        total = np.float32(0)
        for y in range(side):
            row = grey[i, y]
            for x in range(side - lag):
                step = row[x + lag] - row[x]
                total += step * step
        for y in range(side - lag):
            row, next_row = grey[i, y], grey[i, y + lag]
            for x in range(side):
                step = next_row[x] - row[x]
                total += step * step
        steps[i] = np.sqrt(total / np.float32(2 * side * (side - lag)))

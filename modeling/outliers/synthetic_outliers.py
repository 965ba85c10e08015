"""Counterexamples made from training cutouts: galaxies at another scale, or with swapped bands.

A galaxy at twice the scale, or with its bands in reverse order, looks much like another galaxy: its distance from the
training set is small. A classifier learns the difference from examples (as Golan & El-Yaniv 2018 do with rotated
images), which are made from the training cutouts themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from modeling.outliers.grain import Floats
from modeling.outliers.thumbnails import Images

MIN_COUNTEREXAMPLE_PX = 8
"""Below this side an image does not show its scale."""


def twice_as_large(pixels: Images, finer: Images | None, rng: np.random.Generator) -> Floats:  # noqa: ARG001 - shared signature
    """Crop the central quarter, from the next finer level or else bilinear: galaxies are twice as large."""
    side = pixels.shape[1]
    if finer is not None:
        return finer[:, side // 2 : side // 2 + side, side // 2 : side // 2 + side].astype(np.float32)
    middle = pixels[:, side // 4 : side - side // 4, side // 4 : side - side // 4].astype(np.float32)
    return _doubled(_doubled(middle, 1), 2)


def half_as_large(pixels: Images, finer: Images | None, rng: np.random.Generator) -> Floats:  # noqa: ARG001 - shared signature
    """Put each image at half its size among dark corners of random images, shifted to its own sky level."""
    n, side, _, n_bands = pixels.shape
    half, quarter = side // 2, side // 4
    small = pixels.reshape(n, half, 2, half, 2, n_bands).mean(axis=(2, 4), dtype=np.float32)
    ends = (slice(0, quarter), slice(half - quarter, half))
    corners = np.stack([small[:, y, x] for y in ends for x in ends])
    darkest = corners[corners.mean(axis=(2, 3, 4)).argmin(axis=0), np.arange(n)]
    sky = np.median(darkest, axis=(1, 2), keepdims=True)
    wide = np.empty((n, side, side, n_bands), dtype=np.float32)
    for y in range(0, side, quarter):
        for x in range(0, side, quarter):
            donors = rng.permutation(n)
            turned = np.rot90((darkest - sky)[donors], int(rng.integers(4)), axes=(1, 2))
            wide[:, y : y + quarter, x : x + quarter] = np.maximum(sky + turned, 0)
    wide[:, quarter : quarter + half, quarter : quarter + half] = small
    return wide


def opposite_bands(pixels: Images, finer: Images | None, rng: np.random.Generator) -> Floats:  # noqa: ARG001 - shared signature
    """Reverse the order of the bands."""
    return pixels[..., ::-1].astype(np.float32)


Counterexample = Callable[[Images, Images | None, np.random.Generator], Floats]
"""Function of pixels (object, y, x, band), the same images at the next finer level if it exists, and a generator."""
COUNTEREXAMPLES: tuple[Counterexample, ...] = (twice_as_large, half_as_large, opposite_bands)


def _doubled(images: Floats, axis: int) -> Floats:
    """Double the number of pixels along an axis, linear between their centres."""
    edged = np.concatenate([images.take([0], axis), images, images.take([-1], axis)], axis)
    n = images.shape[axis]
    before, here, behind = (edged.take(np.arange(k, k + n), axis) for k in range(3))
    pairs = np.stack([0.25 * before + 0.75 * here, 0.75 * here + 0.25 * behind], axis=axis + 1)
    shape = list(images.shape)
    shape[axis] *= 2
    return np.asarray(pairs.reshape(shape), dtype=np.float32)

"""Counterexamples: training cutouts as another survey, or another cut, would have shown them.

A galaxy at twice the scale, or with its bands in the opposite order, looks much like another galaxy: its distance from
the training set says little. What tells them apart is learnt from examples (as Golan & El-Yaniv 2018 do with turned
images), which need no anomalies but the training cutouts themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SMALLEST_PX = 8
"""Below this side nothing can be told of the scale."""


def twice_as_large(pixels: NDArray[Any], finer: NDArray[Any] | None, rng: np.random.Generator) -> Floats:  # noqa: ARG001 - as its siblings
    """The middle quarter of each image, from the next finer level or else bilinear: galaxies are twice as large."""
    side = pixels.shape[1]
    if finer is not None:
        return finer[:, side // 2 : side // 2 + side, side // 2 : side // 2 + side].astype(np.float32)
    middle = pixels[:, side // 4 : side - side // 4, side // 4 : side - side // 4].astype(np.float32)
    return _doubled(_doubled(middle, 1), 2)


def half_as_large(pixels: NDArray[Any], finer: NDArray[Any] | None, rng: np.random.Generator) -> Floats:  # noqa: ARG001 - as its siblings
    """Each image at half its size, amid dark corners of any images, whose sky is moved to its own."""
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
            whose = rng.permutation(n)
            turned = np.rot90((darkest - sky)[whose], int(rng.integers(4)), axes=(1, 2))
            wide[:, y : y + quarter, x : x + quarter] = np.maximum(sky + turned, 0)
    wide[:, quarter : quarter + half, quarter : quarter + half] = small
    return wide


def opposite_bands(pixels: NDArray[Any], finer: NDArray[Any] | None, rng: np.random.Generator) -> Floats:  # noqa: ARG001 - as its siblings
    """Bands in the opposite order."""
    return pixels[..., ::-1].astype(np.float32)


Counterexample = Callable[[NDArray[Any], NDArray[Any] | None, np.random.Generator], Floats]
"""Of pixels (object, y, x, band), the same images at the next finer level where there is one, and a generator."""

COUNTEREXAMPLES: dict[str, Counterexample] = {
    "twice_as_large": twice_as_large,
    "half_as_large": half_as_large,
    "opposite_bands": opposite_bands,
}


def _doubled(images: Floats, axis: int) -> Floats:
    """Twice as many pixels along an axis, linear between their centres."""
    edged = np.concatenate([images.take([0], axis), images, images.take([-1], axis)], axis)
    n = images.shape[axis]
    before, here, behind = (edged.take(np.arange(k, k + n), axis) for k in range(3))
    pairs = np.stack([0.25 * before + 0.75 * here, 0.75 * here + 0.25 * behind], axis=axis + 1)
    shape = list(images.shape)
    shape[axis] *= 2
    return np.asarray(pairs.reshape(shape), dtype=np.float32)

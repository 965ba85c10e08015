"""Statistics of images that separate galaxies from other content: light, colours, grain, shape and edges.

They are independent of any network, and invariant under rotation by quarter turns and reflection.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from modeling.outliers.grain import QUANTUM, Floats, rms_step
from modeling.outliers.thumbnails import Thumbnails, lower_median, radii, take_pixels

RINGS = (0.0, 0.08, 0.16, 0.24, 0.32, 0.42, 0.54, 0.68, 0.84, 1.0)
"""Edges of the rings of the light profile, in halves of the side."""
GROWTH = (0.3, 0.5, 0.7, 0.9)
"""Shares of the light whose radii are measured."""


def measure_images(images: Thumbnails) -> dict[str, NDArray[np.float64]]:
    """Measure statistics of images, in groups.

    Arrays are (object, statistic), finite, by 'light', 'colour', 'shape', 'edge' and, from 8 px on, 'grain'; below
    4 px 'colour' alone. The number of statistics depends on the side and the number of bands only.
    """
    planes, sky = images.planes, images.frame
    if sky is None or images.sides is None:
        return {"colour": np.log(planes.mean(axis=(2, 3), dtype=np.float64) + QUANTUM)}
    light = planes - sky[:, :, None, None]
    grey = light.mean(axis=1)
    groups = {
        "light": [*_profile(grey), *_extremes(planes), np.log(sky.mean(axis=1) + 1)],
        "colour": _colours(sky, light),
        "shape": _shapes(grey),
        "edge": _edges(light, images.sides - sky),
    }
    if images.grain is not None:
        groups["grain"] = [images.grain]
    return {name: np.column_stack(parts).astype(np.float64) for name, parts in groups.items()}


@cache
def _rings(side: int) -> list[tuple[NDArray[np.intp], float]]:
    """Return the pixels of each ring that has any, as positions in a flat image, and its outer radius."""
    radius = radii(side).ravel()
    rings = [(np.flatnonzero((radius >= low) & (radius < high)), high) for low, high in pairwise(RINGS)]
    return [(places, high) for places, high in rings if places.size]


def _profile(grey: Floats) -> list[Floats]:
    """Measure the median light in rings, and radii that enclose shares of it; medians suppress neighbours."""
    flat, rings = grey.reshape(len(grey), -1), _rings(grey.shape[1])
    medians = np.stack([lower_median(flat[:, places]) for places, _ in rings], axis=1)
    areas = np.array([places.size for places, _ in rings], dtype=np.float32)
    grown = np.cumsum(np.maximum(medians, 0) * areas, axis=1)
    total = grown[:, -1] + 1
    bounds = np.array([0.0, *(high for _, high in rings)], dtype=np.float32)
    shares = np.concatenate([np.zeros((len(grey), 1), dtype=np.float32), grown / total[:, None]], axis=1)
    enclosing = []
    for share in GROWTH:
        ring, rows = np.clip((shares < share).sum(axis=1), 1, len(rings)), np.arange(len(grey))
        low, high = shares[rows, ring - 1], shares[rows, ring]
        within = np.clip((share - low) / np.maximum(high - low, 1e-6), 0, 1)
        enclosing.append(np.log(bounds[ring - 1] + within * (bounds[ring] - bounds[ring - 1]) + 0.01))
    return [np.arcsinh(medians), np.log(total), *enclosing]


def _extremes(planes: Floats) -> list[Floats]:
    """Measure the brightest pixel, and the shares of bright and of empty pixels."""
    brightest = planes.max(axis=1)
    return [
        np.log(brightest.max(axis=(1, 2)) + 1.0),
        np.log((brightest > 200).mean(axis=(1, 2)) + 1e-2),
        np.log((brightest < 1).mean(axis=(1, 2)) + 1e-2),
    ]


def _colours(sky: Floats, light: Floats) -> list[Floats]:
    """Measure colours of the sky, the core and its surroundings, and correlations between bands."""
    inner, core_pixels = take_pixels(light, "inner"), take_pixels(light, "core")
    core = core_pixels.mean(axis=2)
    around = np.maximum(inner.sum(axis=2) - core_pixels.sum(axis=2), 0) / inner.shape[2]
    logs = [np.log(np.maximum(band_means, 0) + 1) for band_means in (sky, core, around)]
    middle = inner - inner.mean(axis=2, keepdims=True)
    products = middle @ middle.swapaxes(1, 2)
    norm = np.sqrt(np.diagonal(products, axis1=1, axis2=2)) + 1
    pairs = list(combinations(range(light.shape[1]), 2))
    correlations = [products[:, a, b] / (norm[:, a] * norm[:, b]) for a, b in pairs]
    gradient = logs[2] - logs[1]
    return [
        *(bands[:, 1:] - bands[:, :-1] for bands in logs),
        gradient - gradient.mean(axis=1, keepdims=True),
        *(np.arctanh(np.clip(correlation, -0.999, 0.9995)) for correlation in correlations),
    ]


@cache
def _moments(side: int) -> Floats:
    """Return 1, y, x, y², x², xy inside the largest circle, in pixels from the centre, (pixel, 6)."""
    y, x = (axis.ravel() for axis in np.mgrid[:side, :side] - (side - 1) / 2)
    inside = radii(side).ravel() < 1
    moments = np.stack([np.ones(y.size), y, x, y * y, x * x, x * y], axis=1)
    return np.asarray(moments * inside[:, None], dtype=np.float32)


def _shapes(grey: Floats) -> list[Floats]:
    """Measure size, position, elongation, asymmetry and clumpiness of the light."""
    n, side, _ = grey.shape
    sums = np.maximum(grey, 0).reshape(n, -1) @ _moments(side)
    mean_y, mean_x, yy, xx, xy = (sums[:, k] / (sums[:, 0] + 1e-3) for k in range(1, 6))
    yy, xx, xy = yy - mean_y**2, xx - mean_x**2, xy - mean_x * mean_y
    size = np.maximum(yy + xx, 1e-3)
    flat = grey.reshape(n, -1)
    contrast = np.abs(flat).sum(axis=1) + 1
    return [
        np.log(size),
        np.hypot(mean_y, mean_x) / side,
        np.hypot(yy - xx, 2 * xy) / size,
        np.abs(flat - flat[:, ::-1]).sum(axis=1) / contrast,
        np.log(rms_step(grey, 1) / (flat.std(axis=1) + QUANTUM) + 1e-3),
    ]


def _edges(light: Floats, skies: Floats) -> list[Floats]:
    """Measure the greatest step between neighbouring rows or columns, and the unevenness of the sky."""
    rows, columns = light.mean(axis=3), light.mean(axis=2)
    steps = [np.abs(np.diff(profile, axis=2)).max(axis=2) for profile in (rows, columns)]
    return [np.log(np.maximum(*steps) + QUANTUM), np.log(skies.max(axis=0) - skies.min(axis=0) + 0.5)]

"""Statistics of images that tell a galaxy's cutout from what is none: its light, colours, grain, shape and edges.

They know nothing of any network, and are the same for an image and its turned or mirrored one.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SHAPE_PX = 32
"""Side at which light, colours and shapes are measured; grain is measured at the image's own."""

SMALLEST_PX = 4
"""Below this side an image is its mean colour."""

LOOKED_AT = 256
"""Images at a time: 50 MB of floats at 128 px."""

RINGS = (0.0, 0.08, 0.16, 0.24, 0.32, 0.42, 0.54, 0.68, 0.84, 1.0)
"""Radii between which the profile of the light is measured, in halves of the side."""

GROWTH = (0.3, 0.5, 0.7, 0.9)
"""Shares of the light whose radii are measured."""

_QUANTUM = 0.1
"""Counts that are added before a logarithm: below the rounding of 8 bits."""


def measure_images(pixels: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Statistics of images, by what they speak of.

    Parameters
    ----------
    pixels
        (object, y, x, band) counts, 0-255; y and x are equally long.

    Returns
    -------
    dict
        Arrays (object, statistic), finite, by 'light', 'colour', 'shape', 'edge' and, from 8 px on, 'grain'; below
        4 px there is 'colour' alone. How many statistics there are depends on the side and the bands alone.
    """
    starts = range(0, max(len(pixels), 1), LOOKED_AT)
    parts = [_measure(band_planes(pixels[start : start + LOOKED_AT])) for start in starts]
    return {name: np.concatenate([one[name] for one in parts], dtype=np.float64) for name in parts[0]}


def band_planes(pixels: NDArray[Any]) -> Floats:
    """(object, y, x, band) -> (object, band, y, x) float32, in which sums over bands and sides are quick."""
    return np.ascontiguousarray(np.moveaxis(pixels, 3, 1), dtype=np.float32)


def shrink(planes: Floats, side_px: int = SHAPE_PX) -> Floats:
    """Planes (object, band, y, x) averaged to this side; one that does not divide theirs leaves them as they are."""
    n, n_bands, side, _ = planes.shape
    factor = side // side_px
    if factor < 2 or side % side_px:
        return planes
    # matrix products: sums over short axes are slow
    rows = (planes.reshape(-1, factor) @ np.ones(factor, dtype=np.float32)).reshape(
        n, n_bands, side_px, factor, side_px
    )
    total = rows[:, :, :, 0]
    for k in range(1, factor):
        total = total + rows[:, :, :, k]
    return np.asarray(total / np.float32(factor * factor))


def _measure(planes: Floats) -> dict[str, Floats]:
    side = planes.shape[2]
    if side < SMALLEST_PX:
        return {"colour": np.log(planes.mean(axis=(2, 3)) + np.float32(_QUANTUM))}
    small = shrink(planes)
    sky = edge_median(small, "frame")
    light = small - sky[:, :, None, None]
    grey = light.mean(axis=1)
    groups = {
        "light": [*_profile(grey), *_extremes(small), np.log(sky.mean(axis=1) + 1)],
        "colour": _colours(sky, light),
        "shape": _shapes(grey),
        "edge": _edges(light),
    }
    if side >= 2 * SMALLEST_PX:
        groups["grain"] = _grains(planes)
    return {
        name: np.concatenate([one.reshape(len(planes), -1) for one in parts], axis=1).astype(np.float32)
        for name, parts in groups.items()
    }


@cache
def _radii(side: int) -> NDArray[np.float64]:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.asarray(np.hypot(y, x) / (side / 2), dtype=np.float64)


@cache
def _places(side: int, name: str) -> NDArray[np.intp]:
    """Pixels of a part of the frame by their place in a flat image: its outer eighth, a side of that, its middle."""
    y, x = np.mgrid[:side, :side]
    width, radius = max(1, side // 8), _radii(side)
    inwards = np.minimum(np.minimum(y, x), side - 1 - np.maximum(y, x))
    parts = {
        "frame": inwards < width,
        "top": y < width, "bottom": y >= side - width, "left": x < width, "right": x >= side - width,
        "core": radius <= max(0.25, radius.min()),
        "inner": radius <= max(0.5, 2 * radius.min()),
    }  # fmt: skip
    return np.flatnonzero(parts[name])


@cache
def _rings(side: int) -> list[tuple[NDArray[np.intp], float]]:
    """Pixels of each ring that has any, by their place in a flat image, and its outer radius."""
    radius = _radii(side).ravel()
    rings = [(np.flatnonzero((radius >= low) & (radius < high)), high) for low, high in pairwise(RINGS)]
    return [(places, high) for places, high in rings if places.size]


def _taken(planes: Floats, name: str) -> Floats:
    """The pixels of a part of the frame, (object, band, pixel)."""
    flat = planes.reshape(*planes.shape[:2], -1)
    return np.asarray(flat[:, :, _places(planes.shape[2], name)])


def edge_median(planes: Floats, name: str) -> Floats:
    """The lower median of a part of the frame in each band, (object, band)."""
    return _lower_median(_taken(planes, name))


def _lower_median(values: Floats) -> Floats:
    middle = (values.shape[-1] - 1) // 2
    return np.asarray(np.partition(values, middle, axis=-1)[..., middle])


def _profile(grey: Floats) -> list[Floats]:
    """Median light in rings, and the radii that hold shares of it: neighbours beside the galaxy count for little."""
    flat, rings = grey.reshape(len(grey), -1), _rings(grey.shape[1])
    medians = np.stack([_lower_median(flat[:, places]) for places, _ in rings], axis=1)
    areas = np.array([places.size for places, _ in rings], dtype=np.float32)
    grown = np.cumsum(np.maximum(medians, 0) * areas, axis=1)
    total = grown[:, -1] + 1
    bounds = np.array([0.0, *(high for _, high in rings)], dtype=np.float32)
    shares = np.concatenate([np.zeros((len(grey), 1), dtype=np.float32), grown / total[:, None]], axis=1)
    radii = []
    for share in GROWTH:
        ring, rows = np.clip((shares < share).sum(axis=1), 1, len(rings)), np.arange(len(grey))
        low, high = shares[rows, ring - 1], shares[rows, ring]
        within = np.clip((share - low) / np.maximum(high - low, 1e-6), 0, 1)
        radii.append(np.log(bounds[ring - 1] + within * (bounds[ring] - bounds[ring - 1]) + 0.01))
    return [np.arcsinh(medians), np.log(total), *radii]


def _extremes(planes: Floats) -> list[Floats]:
    """How bright the brightest pixel is, and shares of bright and of empty pixels."""
    brightest = planes.max(axis=1)
    return [
        np.log(brightest.max(axis=(1, 2)) + 1.0),
        np.log((brightest > 200).mean(axis=(1, 2)) + 1e-2),
        np.log((brightest < 1).mean(axis=(1, 2)) + 1e-2),
    ]


def _colours(sky: Floats, light: Floats) -> list[Floats]:
    """Of the sky, the core and what is around it; and how alike the bands are, pixel by pixel."""
    inside, within = _taken(light, "inner"), _taken(light, "core")
    core = within.mean(axis=2)
    around = np.maximum(inside.sum(axis=2) - within.sum(axis=2), 0) / inside.shape[2]
    parts = [np.log(np.maximum(one, 0) + 1) for one in (sky, core, around)]
    middle = inside - inside.mean(axis=2, keepdims=True)
    products = middle @ middle.swapaxes(1, 2)
    norm = np.sqrt(np.diagonal(products, axis1=1, axis2=2)) + 1
    pairs = list(combinations(range(light.shape[1]), 2))
    alike = [products[:, a, b] / (norm[:, a] * norm[:, b]) for a, b in pairs]
    step = parts[2] - parts[1]
    return [
        *(one[:, 1:] - one[:, :-1] for one in parts),
        # how the colour changes outwards
        step - step.mean(axis=1, keepdims=True),
        *(np.arctanh(np.clip(one, -0.999, 0.9995)) for one in alike),
    ]


@cache
def _moments(side: int) -> Floats:
    """1, y, x, y², x², xy inside the largest circle, from the middle in pixels, (pixel, 6)."""
    y, x = (one.ravel() for one in np.mgrid[:side, :side] - (side - 1) / 2)
    inside = _radii(side).ravel() < 1
    return np.asarray(
        np.stack([np.ones(y.size), y, x, y * y, x * x, x * y], axis=1) * inside[:, None], dtype=np.float32
    )


def _shapes(grey: Floats) -> list[Floats]:
    """Size, place, elongation, asymmetry and clumpiness of the light."""
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
        np.log(_step(grey, 1) / (flat.std(axis=1) + _QUANTUM) + 1e-3),
    ]


def _edges(light: Floats) -> list[Floats]:
    """Straight lines and steps: the greatest difference of neighbouring rows or columns; and uneven skies."""
    rows, columns = light.mean(axis=3), light.mean(axis=2)
    steps = [np.abs(np.diff(one, axis=2)).max(axis=2) for one in (rows, columns)]
    skies = np.stack([edge_median(light, name) for name in ("top", "bottom", "left", "right")])
    return [
        np.log(np.maximum(*steps) + _QUANTUM),
        np.log(skies.max(axis=0) - skies.min(axis=0) + 0.5),
    ]


def _grains(planes: Floats) -> list[Floats]:
    """Noise of the sky in each band, how it grows from one pixel to the next ones, and the same at the centre."""
    side = planes.shape[2]
    width, quarter = max(2, side // 16), side // 4
    strips = [
        planes[:, :, :width], planes[:, :, -width:],
        planes[..., :width].swapaxes(2, 3), planes[..., -width:].swapaxes(2, 3),
    ]  # fmt: skip
    centre = planes[:, :, quarter:-quarter, quarter:-quarter].mean(axis=1)
    grey = [strip.mean(axis=1, keepdims=True) for strip in strips]
    lags = [lag for lag in (1, 2, 4) if lag <= quarter]
    # along each strip, whose objects with light do not matter to a median
    bands = np.median([_differences(strip, 1) for strip in strips], axis=0)
    noise = [np.median([_differences(strip, lag) for strip in grey], axis=0) for lag in lags]
    inner = [_step(centre, lag) for lag in lags]
    return [
        np.log(bands + _QUANTUM),
        np.log((noise[0] + _QUANTUM) / (bands.mean(axis=1, keepdims=True) + _QUANTUM)),
        *(np.log((far + _QUANTUM) / (near + _QUANTUM)) for near, far in pairwise(noise)),
        *(np.log((far + _QUANTUM) / (near + _QUANTUM)) for near, far in pairwise(inner)),
        np.log((inner[0] + _QUANTUM) / (centre.reshape(len(centre), -1).std(axis=1) + _QUANTUM)),
    ]


def _differences(strip: Floats, lag: int) -> Floats:
    """Mean of the absolute differences of pixels so far apart along the strip, of its darker half; (object, band)."""
    apart = np.abs(strip[..., lag:] - strip[..., :-lag]).mean(axis=2)
    half = max(1, apart.shape[2] // 2)
    apart.partition(half - 1, axis=2)
    return np.asarray(apart[..., :half].mean(axis=2))


def _step(grey: Floats, lag: int) -> Floats:
    """Root of the mean squared difference of pixels so far apart along y and x."""
    n = len(grey)
    along_y, along_x = ((one**2).reshape(n, -1).mean(axis=1) for one in _apart(grey, lag))
    return np.asarray(np.sqrt((along_y + along_x) / 2))


def _apart(grey: Floats, lag: int) -> tuple[Floats, Floats]:
    return grey[:, lag:] - grey[:, :-lag], grey[:, :, lag:] - grey[:, :, :-lag]

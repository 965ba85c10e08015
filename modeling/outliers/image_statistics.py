"""Statistics of images that tell a galaxy's cutout from what is none: its light, colours, grain, shape and edges.

They know nothing of any network, and are the same for an image and its turned or mirrored one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SHAPE_PX = 32
"""Side at which light, colours and shapes are measured; grain is measured at the image's own."""

SMALLEST_PX = 4
"""Below this side an image is its mean colour."""

LOOKED_AT = 128
"""Images at a time: 25 MB of floats at 128 px."""

RINGS = (0.0, 0.08, 0.16, 0.24, 0.32, 0.42, 0.54, 0.68, 0.84, 1.0)
"""Radii between which the profile of the light is measured, in halves of the side."""

GROWTH = (0.3, 0.5, 0.7, 0.9)
"""Shares of the light whose radii are measured."""

_QUANTUM = 0.1
"""Counts that are added before a logarithm: below the rounding of 8 bits."""


SIDES = ("top", "bottom", "left", "right")
LAGS = (1, 2, 4)
"""Pixels between those whose differences are measured."""

_in_any_order = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
"""Sums may be added in the order that is quickest."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thumbnails:
    """Images at `SHAPE_PX`, with their skies, and the grain that is lost at this size.

    Attributes
    ----------
    planes
        (object, band, y, x) counts, in which sums over bands and sides are quick; smaller images as they are.
    frame
        (object, band) Lower median of the outer eighth of the frame; None below 4 px.
    sides
        (side, object, band) The same of each of `SIDES`; None below 4 px.
    grain
        (object, statistic) Of the images at their own size; None below 8 px.
    """

    planes: Floats
    frame: Floats | None
    sides: Floats | None
    grain: Floats | None

    @classmethod
    def of(cls, pixels: NDArray[Any]) -> Thumbnails:
        """Thumbnails of images.

        Parameters
        ----------
        pixels
            (object, y, x, band) counts, 0-255; y and x are equally long.
        """
        starts = range(0, max(len(pixels), 1), LOOKED_AT)
        parts = [_thumbnails(pixels[start : start + LOOKED_AT]) for start in starts]
        if len(parts) == 1:
            return parts[0]
        return cls(
            planes=np.concatenate([part.planes for part in parts]),
            frame=_joined([part.frame for part in parts]),
            sides=_joined([part.sides for part in parts], axis=1),
            grain=_joined([part.grain for part in parts]),
        )


def _joined(parts: list[Floats | None], axis: int = 0) -> Floats | None:
    there = [one for one in parts if one is not None]
    return np.concatenate(there, axis=axis) if there else None


def _thumbnails(pixels: NDArray[Any]) -> Thumbnails:
    planes = band_planes(pixels)
    side = planes.shape[2]
    small = shrink(planes)
    frame = sides = None
    if side >= SMALLEST_PX:
        frame = _lower_median(_taken(small, "frame"))
        sides = np.stack([_lower_median(_taken(small, name)) for name in SIDES])
    return Thumbnails(
        planes=small, frame=frame, sides=sides, grain=_grains(planes) if side >= 2 * SMALLEST_PX else None
    )


def measure_images(images: Thumbnails) -> dict[str, NDArray[np.float64]]:
    """Statistics of images, by what they speak of.

    Returns
    -------
    dict
        Arrays (object, statistic), finite, by 'light', 'colour', 'shape', 'edge' and, from 8 px on, 'grain'; below
        4 px there is 'colour' alone. How many statistics there are depends on the side and the bands alone.
    """
    planes, sky = images.planes, images.frame
    if sky is None or images.sides is None:
        return {"colour": np.log(planes.mean(axis=(2, 3), dtype=np.float64) + _QUANTUM)}
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
    return {name: _side_by_side(parts).astype(np.float64) for name, parts in groups.items()}


def _side_by_side(parts: list[Floats]) -> Floats:
    """Statistics (object,) or (object, statistic) as one (object, statistic)."""
    return np.concatenate([one if one.ndim == 2 else one[:, None] for one in parts], axis=1)


def band_planes(pixels: NDArray[Any]) -> Floats:
    """(object, y, x, band) -> (object, band, y, x) float32."""
    n, side, _, n_bands = pixels.shape
    planes = np.empty((n, n_bands, side, side), dtype=np.float32)
    _write_planes(pixels, planes)
    return planes


@numba.njit(nogil=True, cache=True)
def _write_planes(pixels: NDArray[Any], planes: Floats) -> None:
    n, n_bands, side, _ = planes.shape
    for i in range(n):
        for y in range(side):
            for band in range(n_bands):
                for x in range(side):
                    planes[i, band, y, x] = pixels[i, y, x, band]


def shrink(planes: Floats, side_px: int = SHAPE_PX) -> Floats:
    """Planes (object, band, y, x) averaged to this side; one that does not divide theirs leaves them as they are."""
    n, n_bands, side, _ = planes.shape
    factor = side // side_px
    if factor < 2 or side % side_px:
        return planes
    small = np.empty((n, n_bands, side_px, side_px), dtype=np.float32)
    _write_means(planes, factor, small)
    return small


@_in_any_order
def _write_means(planes: Floats, factor: int, means: Floats) -> None:
    n, n_bands, side, _ = means.shape
    share = np.float32(1 / factor**2)
    sums = np.empty(side * factor, dtype=np.float32)
    for i in range(n):
        for band in range(n_bands):
            for y in range(side):
                # rows first, which lie beside each other in memory
                sums[:] = planes[i, band, y * factor]
                for k in range(1, factor):
                    fine = planes[i, band, y * factor + k]
                    for x in range(sums.size):
                        sums[x] += fine[x]
                row = means[i, band, y]
                for x in range(side):
                    total = np.float32(0)
                    for j in range(factor):
                        total += sums[x * factor + j]
                    row[x] = total * share


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
    side = planes.shape[2]
    flat, places = planes.reshape(*planes.shape[:2], side * side), _places(side, name)
    taken = np.empty((*flat.shape[:2], places.size), dtype=np.float32)
    _take(flat, places, taken)
    return taken


@numba.njit(nogil=True, cache=True)
def _take(flat: Floats, places: NDArray[np.intp], taken: Floats) -> None:
    for i in range(taken.shape[0]):
        for band in range(taken.shape[1]):
            for k in range(places.size):
                taken[i, band, k] = flat[i, band, places[k]]


def _lower_median(values: Floats) -> Floats:
    """Along the last axis of an array of the caller's own, which gets another order."""
    middle = (values.shape[-1] - 1) // 2
    values.partition(middle, axis=-1)
    return np.asarray(values[..., middle])


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


def _edges(light: Floats, skies: Floats) -> list[Floats]:
    """Straight lines and steps: the greatest difference of neighbouring rows or columns; and uneven skies."""
    rows, columns = light.mean(axis=3), light.mean(axis=2)
    steps = [np.abs(np.diff(one, axis=2)).max(axis=2) for one in (rows, columns)]
    return [
        np.log(np.maximum(*steps) + _QUANTUM),
        np.log(skies.max(axis=0) - skies.min(axis=0) + 0.5),
    ]


def _grains(planes: Floats) -> Floats:
    """Noise of the sky in each band, how it grows from one pixel to the next ones, and the same at the centre."""
    quarter = planes.shape[2] // 4
    grey = planes.mean(axis=1, keepdims=True)
    lags = [lag for lag in LAGS if lag <= quarter]
    bands = _noise(planes, 1)
    noise = [_noise(grey, lag) for lag in lags]
    centre = np.ascontiguousarray(grey[:, 0, quarter:-quarter, quarter:-quarter])
    inner = [_step(centre, lag) for lag in lags]
    parts = [
        np.log(bands + _QUANTUM),
        np.log((noise[0] + _QUANTUM) / (bands.mean(axis=1, keepdims=True) + _QUANTUM)),
        *(np.log((far + _QUANTUM) / (near + _QUANTUM)) for near, far in pairwise(noise)),
        *(np.log((far + _QUANTUM) / (near + _QUANTUM)) for near, far in pairwise(inner)),
        np.log((inner[0] + _QUANTUM) / (centre.std(axis=(1, 2)) + _QUANTUM)),
    ]
    return _side_by_side(parts).astype(np.float32)


def _noise(planes: Floats, lag: int) -> Floats:
    """Mean of the absolute differences of pixels so far apart along a strip of the frame, of its darker half.

    (object, band); the median of the four strips, so that objects with light do not matter.
    """
    n, n_bands, side, _ = planes.shape
    apart = np.zeros((len(SIDES), n, n_bands, side - lag), dtype=np.float32)
    _add_differences(planes, lag, max(2, side // 16), apart)
    half = max(1, apart.shape[3] // 2)
    apart.partition(half - 1, axis=3)
    strips = apart[..., :half].mean(axis=3)
    return np.asarray((strips.sum(axis=0) - strips.max(axis=0) - strips.min(axis=0)) / (len(SIDES) - 2))


@_in_any_order
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


def _step(grey: Floats, lag: int) -> Floats:
    """Root of the mean squared difference of pixels so far apart along y and x, (object,)."""
    steps = np.empty(len(grey), dtype=np.float32)
    _measure_steps(grey, lag, steps)
    return steps


@_in_any_order
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

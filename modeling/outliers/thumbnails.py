"""Thumbnails: images at 32 px with the sky around them, from which statistics are measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numba
import numpy as np
from numpy.typing import NDArray

from modeling.outliers.grain import MIN_GRAIN_PX, Floats, fast_sums, measure_grain

Images = NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.float64]
"""(object, y, x, band) counts, 0-255; y and x are equally long."""
THUMBNAIL_PX = 32
MIN_SIDE_PX = 4
"""Below this side an image is described by its mean colour."""
SIDES = ("top", "bottom", "left", "right")
_BATCH = 128
"""Images at a time: 25 MB of floats at 128 px."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thumbnails:
    """Images of at most 32 px, with their skies, and the grain that is lost at this size."""

    planes: Floats
    """(object, band, y, x) counts, an order with fast sums over bands and sides."""
    frame: Floats | None
    """(object, band) Lower median of the outer eighth of the frame; None below 4 px."""
    sides: Floats | None
    """(side, object, band) The same for each of `SIDES`; None below 4 px."""
    grain: Floats | None
    """(object, statistic) Grain of the images at full size; None below 8 px."""

    @classmethod
    def of(cls, pixels: Images) -> Thumbnails:
        """Make the thumbnails of images (object, y, x, band)."""
        starts = range(0, max(len(pixels), 1), _BATCH)
        parts = [_thumbnails(pixels[start : start + _BATCH]) for start in starts]
        if len(parts) == 1:
            return parts[0]
        return cls(
            planes=np.concatenate([part.planes for part in parts]),
            frame=_concatenate([part.frame for part in parts]),
            sides=_concatenate([part.sides for part in parts], axis=1),
            grain=_concatenate([part.grain for part in parts]),
        )


def _concatenate(parts: list[Floats | None], axis: int = 0) -> Floats | None:
    measured = [part for part in parts if part is not None]
    return np.concatenate(measured, axis=axis) if measured else None


def _thumbnails(pixels: Images) -> Thumbnails:
    planes = band_planes(pixels)
    side = planes.shape[2]
    small = shrink(planes)
    frame = sides = None
    if side >= MIN_SIDE_PX:
        frame = lower_median(take_pixels(small, "frame"))
        sides = np.stack([lower_median(take_pixels(small, name)) for name in SIDES])
    grain = measure_grain(planes) if side >= MIN_GRAIN_PX else None
    return Thumbnails(planes=small, frame=frame, sides=sides, grain=grain)


def band_planes(pixels: Images) -> Floats:
    """Convert images (object, y, x, band) to float32 planes (object, band, y, x)."""
    n, side, _, n_bands = pixels.shape
    planes = np.empty((n, n_bands, side, side), dtype=np.float32)
    _write_planes(pixels, planes)
    return planes


@numba.njit(nogil=True, cache=True)
def _write_planes(pixels: Images, planes: Floats) -> None:
    n, n_bands, side, _ = planes.shape
    for i in range(n):
        for y in range(side):
            for band in range(n_bands):
                for x in range(side):
                    planes[i, band, y, x] = pixels[i, y, x, band]


def shrink(planes: Floats, side_px: int = THUMBNAIL_PX) -> Floats:
    """Average planes (object, band, y, x) to a smaller side; return them unchanged if it does not divide theirs."""
    n, n_bands, side, _ = planes.shape
    factor = side // side_px
    if factor < 2 or side % side_px:
        return planes
    small = np.empty((n, n_bands, side_px, side_px), dtype=np.float32)
    _write_means(planes, factor, small)
    return small


@fast_sums
def _write_means(planes: Floats, factor: int, means: Floats) -> None:
    n, n_bands, side, _ = means.shape
    share = np.float32(1 / factor**2)
    sums = np.empty(side * factor, dtype=np.float32)
    for i in range(n):
        for band in range(n_bands):
            for y in range(side):
                # rows first: they are contiguous in memory
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
def radii(side: int) -> NDArray[np.float64]:
    """Return distances from the centre in halves of the side, (y, x)."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.asarray(np.hypot(y, x) / (side / 2), dtype=np.float64)


@cache
def _places(side: int, name: str) -> NDArray[np.intp]:
    """Return the pixels of a part of the frame as positions in a flat image."""
    y, x = np.mgrid[:side, :side]
    width, radius = max(1, side // 8), radii(side)
    inwards = np.minimum(np.minimum(y, x), side - 1 - np.maximum(y, x))
    parts = {
        "frame": inwards < width,
        "top": y < width,
        "bottom": y >= side - width,
        "left": x < width,
        "right": x >= side - width,
        "core": radius <= max(0.25, radius.min()),
        "inner": radius <= max(0.5, 2 * radius.min()),
    }
    return np.flatnonzero(parts[name])


def take_pixels(planes: Floats, name: str) -> Floats:
    """Return the pixels of 'frame', 'core', 'inner' or one of `SIDES`, (object, band, pixel)."""
    side = planes.shape[2]
    flat, places = planes.reshape(*planes.shape[:2], side * side), _places(side, name)
    return flat.take(places, axis=2)


def lower_median(values: Floats) -> Floats:
    """Return the lower median along the last axis; the values are reordered in place."""
    middle = (values.shape[-1] - 1) // 2
    values.partition(middle, axis=-1)
    return np.asarray(values[..., middle])

"""Statistics of images that tell a galaxy's cutout from what is none: sky, noise and its grain, light, colours, shape.

They know nothing of any network, and are the same for an image and its turned or mirrored one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SHAPE_PX = 32
"""Side at which light, colours and shapes are measured; noise and its grain are measured at the image's own."""

SMALLEST_PX = 4
"""Below this side an image is its mean colour."""

LOOKED_AT = 256
"""Images at a time: 50 MB of floats at 128 px."""

_QUANTUM = 0.1
"""Counts that are added before a logarithm: below the rounding of 8 bits."""


def measure_images(pixels: NDArray[Any]) -> Floats:
    """Statistics of images.

    Parameters
    ----------
    pixels
        (object, y, x, band) counts, 0-255; y and x are equally long.

    Returns
    -------
    ndarray
        (object, statistic), finite. The number of statistics depends on the side and the bands alone.
    """
    n = max(len(pixels), 1)
    parts = [_measure(pixels[start : start + LOOKED_AT].astype(np.float32)) for start in range(0, n, LOOKED_AT)]
    return np.concatenate(parts)


def shrink(pixels: NDArray[Any], side_px: int = SHAPE_PX) -> NDArray[np.float32]:
    """Images averaged to at most this side, float32; a side that does not divide theirs leaves them as they are."""
    n, side, _, n_bands = pixels.shape
    factor = side // side_px
    if factor < 2 or side % side_px:
        return pixels.astype(np.float32, copy=False)
    # rows first: a sum along the last but one axis is the quick one
    rows = pixels.reshape(n, side_px, factor, side * n_bands).sum(axis=2, dtype=np.float32)
    sums = rows.reshape(n, side_px, side_px, factor, n_bands).sum(axis=3)
    return np.asarray(sums / np.float32(factor * factor), dtype=np.float32)


def _measure(pixels: NDArray[np.float32]) -> Floats:
    side = pixels.shape[1]
    small = shrink(pixels)
    if side < SMALLEST_PX:
        return np.asarray(np.log(small.mean(axis=(1, 2), dtype=np.float64) + _QUANTUM), dtype=np.float64)
    sky = np.median(_frame(small), axis=1)
    light = (small - sky[:, None, None, :]).astype(np.float64)
    parts = [np.log(sky + 1), *_lights(light), *_shapes(light.mean(axis=3)), *_edges(light), *_extremes(small)]
    if side >= 2 * SMALLEST_PX:
        parts += _grains(pixels)
    return np.concatenate([one.reshape(len(pixels), -1) for one in parts], axis=1).astype(np.float64)


def _frame(images: NDArray[Any]) -> NDArray[Any]:
    """Pixels of the outermost eighth of each side, (object, pixel, band)."""
    side = images.shape[1]
    y, x = np.mgrid[:side, :side]
    width = max(1, side // 8)
    near = np.minimum(np.minimum(y, x), side - 1 - np.maximum(y, x)) < width
    return images[:, near]


def _radii(side: int) -> Floats:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.asarray(np.hypot(y, x) / (side / 2), dtype=np.float64)


def _lights(light: Floats) -> list[Floats]:
    """Brightness at the centre and its fall, and colours of the inner and the outer part."""
    radius = _radii(light.shape[1])
    rings = [
        light[:, (radius >= low) & (radius < high)] for low, high in ((0, 0.2), (0.2, 0.4), (0.4, 0.65), (0.65, 1))
    ]
    means = [np.arcsinh(ring.mean(axis=1)) for ring in rings if ring.shape[1]]
    total = light.sum(axis=(1, 2))
    scale = np.abs(total).max(axis=1, keepdims=True) + 1
    return [*means, total / scale, means[0] - means[0].mean(axis=1, keepdims=True)]


def _shapes(light: Floats) -> list[Floats]:
    """Size, centre, elongation, concentration, asymmetry and clumpiness of the light of all bands."""
    side = light.shape[1]
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    radius = _radii(side)
    weight = np.maximum(light, 0) * (radius < 1)
    total = weight.sum(axis=(1, 2)) + 1e-3

    def moment(values: Floats) -> Floats:
        return np.asarray((weight * values).sum(axis=(1, 2)) / total)

    mean_y, mean_x = moment(y), moment(x)
    yy, xx, xy = moment(y * y) - mean_y**2, moment(x * x) - mean_x**2, moment(x * y) - mean_x * mean_y
    size = np.maximum(yy + xx, 1e-3)
    turned = light[:, ::-1, ::-1]
    contrast = np.abs(light).sum(axis=(1, 2)) + 1
    concentrations = [np.arcsinh(4 * moment((radius < bound).astype(float))) for bound in (0.15, 0.3, 0.5)]
    return [
        np.log(size),
        np.hypot(mean_y, mean_x) / side,
        np.hypot(yy - xx, 2 * xy) / size,
        *concentrations,
        np.abs(light - turned).sum(axis=(1, 2)) / contrast,
        np.log(_step(light, 1) / (light.std(axis=(1, 2)) + _QUANTUM) + 1e-3),
    ]


def _edges(light: Floats) -> list[Floats]:
    """Straight lines and steps: the greatest difference of neighbouring rows or columns; and uneven skies."""
    rows, columns = light.mean(axis=2), light.mean(axis=1)
    steps = [np.abs(np.diff(one, axis=1)).max(axis=1) for one in (rows, columns)]
    width = max(1, light.shape[1] // 8)
    sides = (light[:, :width], light[:, -width:], light[:, :, :width], light[:, :, -width:])
    skies = np.stack([np.median(one.reshape(len(light), -1, light.shape[3]), axis=1) for one in sides])
    spread = np.log(skies.max(axis=0) - skies.min(axis=0) + 0.5)
    sharpest = np.maximum(*steps)
    return [np.log(sharpest + _QUANTUM), spread]


def _extremes(images: NDArray[np.float32]) -> list[Floats]:
    """How bright the brightest pixel is, and shares of bright and of empty pixels."""
    brightest = images.max(axis=3)
    return [
        np.log(images.max(axis=(1, 2)) + 1.0),
        np.log((brightest > 200).mean(axis=(1, 2)) + 1e-2),
        np.log((brightest < 1).mean(axis=(1, 2)) + 1e-2),
    ]


def _grains(pixels: NDArray[np.float32]) -> list[Floats]:
    """Noise of the sky in each band, how it grows from one pixel to the next ones, and the same at the centre."""
    side = pixels.shape[1]
    width = max(2, side // 8)
    strips = [
        pixels[:, :width], pixels[:, -width:],
        pixels[:, :, :width].swapaxes(1, 2), pixels[:, :, -width:].swapaxes(1, 2),
    ]  # fmt: skip
    quarter = side // 4
    centre = pixels[:, quarter:-quarter, quarter:-quarter].mean(axis=3)
    lags = [lag for lag in (1, 2, 4) if 2 * lag <= 2 * quarter]
    # along each strip, whose objects with light do not matter to a median
    noise = [np.median([_differences(strip, lag) for strip in strips], axis=0) for lag in lags]
    inner = [_step(centre, lag) for lag in lags]
    return [
        np.log(noise[0] + _QUANTUM),
        *(np.log((one.mean(axis=1) + _QUANTUM) / (noise[0].mean(axis=1) + _QUANTUM)) for one in noise[1:]),
        *(np.log((one + _QUANTUM) / (inner[0] + _QUANTUM)) for one in inner[1:]),
        np.log((inner[0] + _QUANTUM) / (centre.std(axis=(1, 2)) + _QUANTUM)),
    ]


def _differences(strip: NDArray[np.float32], lag: int) -> Floats:
    """Mean of the absolute differences of pixels so far apart along the strip, below its brighter half."""
    apart = np.abs(strip[:, :, lag:] - strip[:, :, :-lag]).mean(axis=1)
    apart.sort(axis=1)
    return np.asarray(apart[:, : max(1, apart.shape[1] // 2)].mean(axis=1), dtype=np.float64)


def _step(light: NDArray[Any], lag: int) -> Floats:
    """Root of the mean squared difference of pixels so far apart along y and x."""
    along_y, along_x = light[:, lag:] - light[:, :-lag], light[:, :, lag:] - light[:, :, :-lag]
    return np.asarray(np.sqrt(((along_y**2).mean(axis=(1, 2)) + (along_x**2).mean(axis=(1, 2))) / 2), dtype=np.float64)

"""Anomalous cutouts, made from ordinary ones or from patches of their sky."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SIDE = 128
Images = np.ndarray
"""(object, 128, 128, 3) uint8, bands i, r, g."""

TILE = 16
FWHM_PX = 6.5
"""Width of a star: 1.3 arcsec at 0.2 arcsec/px, the middle of the petroR90 scales."""


def blank_skies(images: Images, rng: np.random.Generator, *, side: int = SIDE) -> Images:
    """Make mosaics of the darkest corners of images, with the noise of the survey."""
    # corners of 32 px; the one with the least light avoids neighbours
    corners = np.stack(
        [images[:, y, x] for y in (slice(0, 32), slice(96, 128)) for x in (slice(0, 32), slice(96, 128))]
    )
    best = corners.mean(axis=(2, 3, 4)).argmin(axis=0)
    dark = corners[best, np.arange(len(images))]
    skies = np.empty((len(images), side, side, 3), dtype=np.uint8)
    for sky in skies:
        # one image per sky, its corner turned at random
        corner = dark[rng.integers(len(dark))]
        for y in range(0, side, 32):
            for x in range(0, side, 32):
                sky[y : y + 32, x : x + 32] = np.rot90(corner, rng.integers(4))[:: rng.choice((-1, 1))]
    return skies


def stars(images: Images, rng: np.random.Generator) -> Images:
    """Draw point sources (Moffat, beta 3.5) with colours of stars on blank skies, peak 80 ... 250 counts."""
    n, (y, x) = len(images), np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    width = FWHM_PX / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    profile = (1 + (y**2 + x**2) / width**2) ** -3.5
    peak, colour = rng.uniform(80, 250, (n, 1, 1, 1)), rng.uniform(0.6, 1, (n, 1, 1, 3))
    colour /= colour.max(axis=3, keepdims=True)
    light = peak * colour * profile[None, :, :, None]
    return np.clip(blank_skies(images, rng) + light, 0, 255).astype(np.uint8)


def white_noise(images: Images, rng: np.random.Generator) -> Images:
    """Shuffle the pixels of real images."""
    flat = images.reshape(len(images), -1, 3)
    return rng.permuted(flat, axis=1).reshape(images.shape)


def uniform_noise(images: Images, rng: np.random.Generator) -> Images:
    """Draw uniform noise."""
    return rng.integers(0, 256, images.shape, dtype=np.uint8)


def trails(images: Images, rng: np.random.Generator) -> Images:
    """Add the bright straight line of a satellite to a cutout."""
    n, (y, x) = len(images), np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    angle, offset = rng.uniform(0, np.pi, (n, 1, 1)), rng.uniform(-30, 30, (n, 1, 1))
    apart = x * np.sin(angle) - y * np.cos(angle) - offset
    light = 200 * np.exp(-(apart**2) / (2 * rng.uniform(1, 3, (n, 1, 1)) ** 2))
    return np.clip(images + light[..., None], 0, 255).astype(np.uint8)


def half_frames(images: Images, rng: np.random.Generator) -> Images:
    """Blacken one side from near the middle on, as at the edge of the imaging."""
    chosen = images.copy()
    for image in chosen:
        edge = rng.integers(40, 88)
        turned = np.rot90(image, rng.integers(4))
        turned[edge:] = 0
    return chosen


def missing_bands(images: Images, rng: np.random.Generator) -> Images:
    """Blacken one of the three bands."""
    chosen = images.copy()
    chosen[np.arange(len(images)), :, :, rng.integers(3, size=len(images))] = 0
    return chosen


def shifted_bands(images: Images, rng: np.random.Generator) -> Images:
    """Shift one band by 8 ... 20 px, as in a wrongly assembled file."""
    chosen = images.copy()
    for image in chosen:
        band = rng.integers(3)
        image[:, :, band] = np.roll(image[:, :, band], rng.integers(8, 21), axis=rng.integers(2))
    return chosen


def scrambled_blocks(images: Images, rng: np.random.Generator) -> Images:
    """Shuffle squares of 16 px, as in a damaged file."""
    n, n_tiles = len(images), SIDE // TILE
    tiles = images.reshape(n, n_tiles, TILE, n_tiles, TILE, 3).swapaxes(2, 3).reshape(n, -1, TILE, TILE, 3)
    tiles = np.stack([image_tiles[rng.permutation(n_tiles**2)] for image_tiles in tiles])
    return tiles.reshape(n, n_tiles, n_tiles, TILE, TILE, 3).swapaxes(2, 3).reshape(n, SIDE, SIDE, 3)


def saturated(images: Images, rng: np.random.Generator) -> Images:
    """Add a saturated star: a disc and a bleed trail at full scale."""
    chosen = images.copy()
    y, x = np.mgrid[:SIDE, :SIDE]
    for image in chosen:
        centre, radius = rng.uniform(20, 108, 2), rng.uniform(14, 40)
        image[np.hypot(y - centre[0], x - centre[1]) < radius] = 255
        image[:, int(centre[1]) - 1 : int(centre[1]) + 2] = 255
    return chosen


def inverted(images: Images, rng: np.random.Generator) -> Images:
    """Invert to negatives: 255 minus the counts."""
    return 255 - images


def swapped_bands(images: Images, rng: np.random.Generator) -> Images:
    """Reverse the order of the bands."""
    return images[..., ::-1].copy()


def zoomed_in(images: Images, rng: np.random.Generator, *, factor: float = 2) -> Images:
    """Enlarge galaxies by `factor`, bilinear."""
    return _resampled(images.astype(np.float64), 1 / factor)


def zoomed_out(images: Images, rng: np.random.Generator) -> Images:
    """Shrink galaxies to half their size, with sky of the same images around them."""
    wide = blank_skies(images, rng, side=2 * SIDE)
    wide[:, SIDE // 2 : -SIDE // 2, SIDE // 2 : -SIDE // 2] = images
    return np.rint(wide.reshape(len(images), SIDE, 2, SIDE, 2, 3).mean(axis=(2, 4))).astype(np.uint8)


def _resampled(images: np.ndarray, step: float) -> Images:
    """Resample around the centre with a pixel every `step`, bilinear."""
    place = (np.arange(SIDE) - (SIDE - 1) / 2) * step + (SIDE - 1) / 2
    low = np.clip(np.floor(place).astype(int), 0, SIDE - 2)
    share = place - low
    rows = images[:, low] * (1 - share)[None, :, None, None] + images[:, low + 1] * share[None, :, None, None]
    columns = rows[:, :, low] * (1 - share)[None, None, :, None] + rows[:, :, low + 1] * share[None, None, :, None]
    return np.rint(columns).astype(np.uint8)


ANOMALIES: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "stars": stars,
    "blank sky": blank_skies,
    "noise: pixels of galaxies, shuffled": white_noise,
    "noise: uniform": uniform_noise,
    "artefact: satellite trail": trails,
    "artefact: half a frame": half_frames,
    "artefact: one band missing": missing_bands,
    "artefact: one band shifted by 8-20 px": shifted_bands,
    "artefact: scrambled blocks": scrambled_blocks,
    "artefact: saturated star": saturated,
    "inverted colours: negative": inverted,
    "inverted colours: bands in opposite order": swapped_bands,
    "wrong scale: 2 x larger": zoomed_in,
    "wrong scale: 2 x smaller": zoomed_out,
}

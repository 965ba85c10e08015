"""Drawing of simulated cutouts in the style of the services' images.

A galaxy is an inclined exponential disk with blue knots along two arms and a round bulge, convolved with the seeing.
Bulge and disk are drawn once and mixed per band, which saves two thirds of the time. Knots and neighbours are sums of
separable Gaussians and cost one small matrix product.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from galstore.emulator.sky.population import Appearance, Floats
from schemas.cutouts import Composite
from schemas.errors import ContractError

Image = NDArray[np.float32]

SEEING_FWHM_ARCSEC = 1.3
"""Median seeing of the SDSS imaging in r, arcsec."""

JPEG_QUALITY = 86
"""Gives 2.3 kB at 128 px; the survey's cutouts have 1.5-2.7 kB."""

NATIVE_SCALE_ARCSEC = 0.396
"""SDSS pixel. The stretch applies to light per pixel of this size, for any scale of the image."""

_N_KNOTS = 36
_KNOT_SIZE = 0.15  # in half-light radii
_KNOT_BLUER_MAG = np.array([0.25, 0.0, -0.45])  # i, r, g minus those of the disk: young stars are blue
_NOISE_GRAIN_ARCSEC = 0.8  # two camera pixels: noise of real cutouts after resampling and JPEG
_COARSEST_SHAPE_ARCSEC = 2.0  # per pixel; at coarser scales the Fourier image would take gigabytes


class Rendering(NamedTuple):
    """Conversion of light to colours by a service; tuples hold red, green and blue."""

    gain: tuple[float, float, float]
    sky: tuple[float, float, float]
    """Residual sky, fraction of full scale."""
    sky_noise: tuple[float, float, float]
    softening: float
    red_colours: float = 1.0
    """Colour of the reddest band relative to r, in units of r - i."""


_RENDERINGS = {
    # measured: the gains give the mean colours of real cutouts; sky and noise are those of real cutouts
    Composite.SKYSERVER: Rendering((3.15, 3.95, 5.5), (0.020, 0.015, 0.013), (0.024, 0.020, 0.018), 9.0),
    # assumed: two magnitudes deeper, harder stretch; r - z is about 1.7 (r - i) for galaxies
    Composite.LS_DR9: Rendering((2.4, 4.3, 7.2), (0.030, 0.028, 0.027), (0.009, 0.006, 0.005), 14.0, red_colours=1.7),
    Composite.LEGACY_SDSS: Rendering((3.6, 4.2, 5.2), (0.030, 0.028, 0.027), (0.024, 0.020, 0.018), 14.0),
}


def require_galsim() -> None:
    """Raise `ContractError` if GalSim is not installed; loading it would take two seconds."""
    if find_spec("galsim") is None:
        raise ContractError("the simulated sky needs GalSim, which is not installed: pip install 'galstore[emulator]'")


@cache
def load_seeing() -> object:
    """Load GalSim, which takes two seconds, and return the profile of the seeing."""
    require_galsim()
    import galsim

    seeing: object = galsim.Moffat(beta=3.5, fwhm=SEEING_FWHM_ARCSEC)
    return seeing


def draw_galaxy(
    appearance: Appearance,
    *,
    scale_arcsec: float,
    width_px: int,
    height_px: int,
    composite: Composite = Composite.SKYSERVER,
) -> bytes:
    """Draw a cutout centred on a galaxy, at a scale in arcsec per pixel; return a JPEG.

    The same arguments give the same bytes. Other scales and sizes show the same galaxy, knots and neighbours.

    Raises
    ------
    ContractError
        GalSim is not installed.
    """
    grid = PixelGrid(scale_arcsec, width_px, height_px)
    rendering = _RENDERINGS[composite]
    light = galaxy_light(appearance, grid, rendering.red_colours) + _neighbours(appearance.texture, grid)
    return encode_jpeg(stretch(light, scale_arcsec, np.random.default_rng((appearance.texture, 2)), composite))


def draw_empty_sky(
    seed: int, *, scale_arcsec: float, width_px: int, height_px: int, composite: Composite = Composite.SKYSERVER
) -> bytes:
    """Draw a cutout without a catalog galaxy: noise and possibly neighbours, the same for the same seed."""
    grid = PixelGrid(scale_arcsec, width_px, height_px)
    return encode_jpeg(stretch(_neighbours(seed, grid), scale_arcsec, np.random.default_rng((seed, 2)), composite))


class PixelGrid:
    """Pixel centres relative to the centre of the image, arcsec; columns are `x`, rows are `y`."""

    def __init__(self, scale_arcsec: float, width_px: int, height_px: int) -> None:
        self.scale_arcsec = scale_arcsec
        self.x = (np.arange(width_px) - (width_px - 1) / 2) * scale_arcsec
        self.y = (np.arange(height_px) - (height_px - 1) / 2) * scale_arcsec

    def gaussians(self, x: Floats, y: Floats, sigma: Floats, weight: Floats) -> Image:
        """Draw n round Gaussians at (x, y), arcsec, whose light in k bands is `weight` (n, k); shape (k, y, x)."""
        # adding the variance of a box to the Gaussian approximates the average over a pixel
        variance = sigma[:, None] ** 2 + self.scale_arcsec**2 / 12
        columns = np.exp(-((self.x - x[:, None]) ** 2) / (2 * variance))
        rows = np.exp(-((self.y - y[:, None]) ** 2) / (2 * variance))
        peak = weight * (self.scale_arcsec**2 / (2 * np.pi * variance))
        return np.stack([(rows.T * band) @ columns for band in peak.T]).astype(np.float32)


def galaxy_light(appearance: Appearance, grid: PixelGrid, red_colours: float = 1.0) -> Image:
    """Draw a galaxy without neighbours: nanomaggies per pixel, (band, y, x) with bands i (or z), r, g."""
    bulge, disk = _bulge_and_disk(appearance, grid)
    knots = _knots(appearance, grid)
    disk_colours = np.array([-red_colours * appearance.disk_r_i, 0, appearance.disk_g_r])
    bulge_colours = np.array([-red_colours * appearance.bulge_r_i, 0, appearance.bulge_g_r])
    disk_flux = (1 - appearance.bulge_fraction) * _brightness(disk_colours)
    bulge_flux = appearance.bulge_fraction * _brightness(bulge_colours)
    # knots redistribute the light of the disk: its total colour stays, so the rest of the disk is redder
    knot_flux = appearance.clump_fraction * disk_flux * _brightness(_KNOT_BLUER_MAG)
    flux_r = 10 ** (-0.4 * (appearance.mag_r - 22.5))
    light = np.zeros((len(disk_colours), len(grid.y), len(grid.x)), dtype=np.float32)
    for layer, flux in ((bulge, bulge_flux), (disk, disk_flux - knot_flux), (knots, knot_flux)):
        light += layer * (flux_r * flux).astype(np.float32)[:, None, None]
    return light


def _bulge_and_disk(appearance: Appearance, grid: PixelGrid) -> tuple[Image, Image]:
    if grid.scale_arcsec > _COARSEST_SHAPE_ARCSEC:
        radii = np.array([appearance.bulge_radius_arcsec, appearance.disk_radius_arcsec])
        # half of the light of a Gaussian lies within 1.18 sigma
        blobs = grid.gaussians(np.zeros(2), np.zeros(2), radii / 1.18, np.eye(2))
        return blobs[0], blobs[1]
    seeing = load_seeing()
    import galsim

    inclination = galsim.Angle(np.arccos(appearance.cos_inclination), galsim.radians)
    disk = galsim.InclinedExponential(inclination, half_light_radius=appearance.disk_radius_arcsec, scale_h_over_r=0.12)
    disk = disk.rotate(galsim.Angle(appearance.position_angle_rad, galsim.radians))
    bulge = galsim.Sersic(2.5, half_light_radius=appearance.bulge_radius_arcsec)
    size = {"nx": len(grid.x), "ny": len(grid.y), "scale": grid.scale_arcsec, "dtype": np.float32}
    # the average over a pixel matters only for pixels that are large relative to the seeing
    method = "no_pixel" if grid.scale_arcsec < SEEING_FWHM_ARCSEC / 2 else "auto"
    bulge_image, disk_image = (
        galsim.Convolve(part, seeing).drawImage(method=method, **size).array for part in (bulge, disk)
    )
    return bulge_image, disk_image


def _knots(appearance: Appearance, grid: PixelGrid) -> Image:
    """Draw star-forming knots along two spiral arms; their total light is one."""
    rng = np.random.default_rng((appearance.texture, 0))
    scale_length = appearance.disk_radius_arcsec / 1.678
    radius = scale_length * rng.gamma(3.0, 0.5, _N_KNOTS) + 0.3 * scale_length
    arm = np.pi * rng.integers(0, 2, _N_KNOTS) + rng.choice((-1, 1)) * np.log(radius / scale_length) / np.tan(0.35)
    angle = arm + 0.35 * rng.standard_normal(_N_KNOTS)
    along, across = radius * np.cos(angle), radius * np.sin(angle) * appearance.cos_inclination
    cosine, sine = np.cos(appearance.position_angle_rad), np.sin(appearance.position_angle_rad)
    light = rng.exponential(size=_N_KNOTS) ** 1.3
    size = appearance.disk_radius_arcsec * _KNOT_SIZE * rng.uniform(0.6, 1.4, _N_KNOTS)
    sigma = np.hypot(size, SEEING_FWHM_ARCSEC / 2.355)
    x, y = along * cosine - across * sine, along * sine + across * cosine
    knots: Image = grid.gaussians(x, y, sigma, (light / light.sum())[:, None])[0]
    return knots


def _neighbours(texture: int, grid: PixelGrid) -> Image:
    """Draw stars and small galaxies within 1.4 arcmin around the object; they depend on `texture` alone."""
    rng = np.random.default_rng((texture, 1))
    n = int(rng.poisson(9))
    x, y = rng.uniform(-42, 42, (2, n))
    is_separate = np.hypot(x, y) > 7  # leave the galaxy itself uncovered
    magnitude = np.clip(22.4 - rng.exponential(1.1, n), 16, 23)
    g_r = rng.uniform(0.1, 1.4, n)
    blur = SEEING_FWHM_ARCSEC / 2.355
    sigma = np.where(rng.random(n) < 0.6, blur, np.hypot(blur, rng.uniform(0.3, 1.2, n)))
    flux = is_separate * 10 ** (-0.4 * (magnitude - 22.5))
    colours = np.stack([-(0.05 + 0.5 * g_r**1.5), np.zeros(n), g_r], axis=-1)
    return grid.gaussians(x, y, sigma, flux[:, None] * _brightness(colours))


def stretch(
    light: Image, scale_arcsec: float, rng: np.random.Generator, composite: Composite = Composite.SKYSERVER
) -> NDArray[np.uint8]:
    """Convert light to 8-bit colours with sky and noise.

    The asinh stretch of Lupton et al. (2004) preserves colours.

    Parameters
    ----------
    light
        (band, y, x) in nanomaggies per pixel, bands i, r, g.

    Returns
    -------
    (y, x, 3) uint8
        Red, green, blue.
    """
    rendering = _RENDERINGS[composite]
    gain, sky, sky_noise = (np.array(bands, dtype=np.float32)[:, None, None] for bands in rendering[:3])
    counts = light * (gain * (NATIVE_SCALE_ARCSEC / scale_arcsec) ** 2)
    counts += sky + sky_noise * _native_noise(light.shape[1:], scale_arcsec, rng)
    np.maximum(counts, 0, out=counts)
    intensity = (counts[0] + counts[1] + counts[2]) * np.float32(rendering.softening / 3) + np.float32(1e-6)
    counts *= np.arcsinh(intensity) / intensity
    # scale all bands of a saturated pixel, so that bright centres keep their hue
    brightest = np.maximum(np.maximum(counts[0], counts[1]), counts[2])
    counts *= 255 / np.maximum(brightest, 1)
    return np.ascontiguousarray(np.moveaxis(counts.astype(np.uint8), 0, -1))


def _native_noise(shape: tuple[int, ...], scale_arcsec: float, rng: np.random.Generator) -> Image:
    """Draw unit noise on the grid of the grains and interpolate it linearly; (3, y, x)."""
    step = min(scale_arcsec / _NOISE_GRAIN_ARCSEC, 1.0)
    positions = [np.arange(side) * step for side in shape]
    row, column = (position.astype(np.intp) for position in positions)
    below, right = ((position % 1).astype(np.float32) for position in positions)
    noise = rng.standard_normal((3, int(row[-1]) + 2, int(column[-1]) + 2), dtype=np.float32)
    # no matrix products: they start BLAS threads, which compete for the cores of a busy machine
    noise = noise[:, row] * (1 - below)[:, None] + noise[:, row + 1] * below[:, None]
    return np.asarray(noise[:, :, column] * (1 - right) + noise[:, :, column + 1] * right)


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    return bytes(simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorsubsampling="420"))


def _brightness(magnitudes: Floats) -> Floats:
    return np.asarray(10 ** (-0.4 * magnitudes))

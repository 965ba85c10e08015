"""Simulated population: mass, metallicity, star formation and appearance of galaxies.

The distributions follow the sample of Wu & Boada (2019, section 2.1). The relation between metallicity and appearance
is invented: the colour of the disk follows the metallicity, while a bulge of random colour and weight weakens the
relation for the total colour.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MASS_METALLICITY_SCATTER_DEX = 0.09
"""Intrinsic scatter of 12 + log(O/H) about the mass-metallicity relation, dex (Tremonti et al. 2004 find 0.1)."""

LABEL_NOISE_DEX = 0.045
"""Error of `oh_p50` about the true metallicity, dex; the smallest possible prediction error."""

DISK_COLOUR_SCATTER_MAG = 0.035
"""Scatter of the g - r colour of the disk at given metallicity, mag."""

_DISK_COLOUR_PER_DEX = 0.75
_HUBBLE_DISTANCE_MPC = 299_792.458 / 70
_RED_SLOPE = 0.42  # one slope of r - i against g - r for stars and dust: two colours carry no more information than one


@dataclass(frozen=True, slots=True, kw_only=True)
class Appearance:
    """Parameters of the drawing of a galaxy; AB magnitudes, fractions of the light in r.

    `texture` seeds the details that do not depend on the galaxy: positions of knots, neighbours, noise.
    """

    mag_r: float
    disk_g_r: float
    disk_r_i: float
    bulge_g_r: float
    bulge_r_i: float
    bulge_fraction: float
    disk_radius_arcsec: float
    bulge_radius_arcsec: float
    cos_inclination: float
    position_angle_rad: float
    clump_fraction: float
    texture: int


APPEARANCE_FIELDS = tuple(field.name for field in fields(Appearance))


def mass_metallicity_relation(log_mass: Floats) -> Floats:
    """Return 12 + log(O/H) at a stellar mass, after Tremonti et al. (2004, eq. 3).

    The curve is scaled by 1.2 about 8.944 and shifted by -0.022 dex, so that the simulated labels have the mean and
    standard deviation of the sample of Wu & Boada (2019). `log_mass` is log10 of the stellar mass in solar masses.

    Examples
    --------
    >>> mass_metallicity_relation(np.array([9.0, 10.0, 11.0])).round(2)
    array([8.55, 8.93, 9.13])
    """
    tremonti = -1.492 + 1.847 * log_mass - 0.08026 * log_mass**2
    return 8.944 + 1.2 * (tremonti - 8.944) - 0.022


def _draw_physics(rng: np.random.Generator, n: int) -> dict[str, Floats]:
    spread = rng.standard_normal((3, n))
    # two half normals that meet at the median give the quartiles of the sample 9.64 / 10.06 / 10.42
    log_mass = np.clip(10.06 + np.where(spread[0] < 0, 0.623, 0.534) * spread[0], 7.8, 11.5)
    skewed = np.where(spread[1] < 0, 1.25, 0.65) * spread[1] + 0.24
    metallicity = mass_metallicity_relation(log_mass) + MASS_METALLICITY_SCATTER_DEX * skewed
    log_sfr = 0.16 + 0.79 * (log_mass - 10.02) + 0.32 * spread[2]
    return {"log_mass": log_mass, "log_sfr": log_sfr, "metallicity": metallicity}


def draw_population(rng: np.random.Generator, n: int, *, informative: bool) -> dict[str, Floats]:
    """Draw `n` galaxies.

    Parameters
    ----------
    informative
        False gives each galaxy the appearance of an unrelated one, so that images carry no information on the label.

    Returns
    -------
    dict
        Arrays of shape (n,): `log_mass`, `log_sfr`, `metallicity`, `label`, `redshift`, the fields of `Appearance`
        (`texture` as whole numbers below 2**53), `mag_g`, `mag_r`, `mag_i`, `g_r` and `r_i` of the whole galaxy, and
        `surface_brightness`, the mean of the disk within its half-light radius, mag arcsec^-2.
    """
    own, unrelated = _draw_physics(rng, n), _draw_physics(rng, n)
    label = own["metallicity"] + LABEL_NOISE_DEX * rng.standard_normal(n)
    return own | {"label": label} | _draw_appearance(rng, **(own if informative else unrelated))


def _draw_appearance(
    rng: np.random.Generator, log_mass: Floats, log_sfr: Floats, metallicity: Floats
) -> dict[str, Floats]:
    n = len(log_mass)
    noise = rng.standard_normal((10, n))
    mass = log_mass - 10
    excess = metallicity - mass_metallicity_relation(log_mass)
    activity = log_sfr - 0.16 - 0.79 * (log_mass - 10.02)

    # most galaxies are close to the spectroscopic limit of the survey, r = 17.77
    mag_r = np.clip(17.85 - 0.76 * rng.exponential(size=n) + 0.10 * noise[0], 13.5, 17.95)
    absolute_r = -20.24 - 1.9 * mass + 0.20 * noise[1]
    distance_mpc = 10 ** ((mag_r - absolute_r - 25) / 5)
    redshift = np.clip((np.sqrt(1 + 3.1 * distance_mpc / _HUBBLE_DISTANCE_MPC) - 1) / 1.55, 0.004, 0.37)
    kpc_per_arcsec = distance_mpc / (1 + redshift) ** 2 * 1e3 / 206_265

    # at equal mass, metal-poor galaxies are larger and so fainter in surface brightness
    radius_kpc = 10 ** (0.66 + 0.18 * mass - 0.55 * excess + 0.10 * noise[2])
    disk_radius = np.clip(radius_kpc / kpc_per_arcsec, 1.6, 14)
    bulge_fraction = np.clip(1 / (1 + np.exp(1.0 - 0.5 * mass - 1.3 * noise[3])), 0.02, 0.8)
    bulge_radius = np.clip(disk_radius * 0.22 * 10 ** (0.12 * noise[4]), 0.35, 2.5)
    cos_inclination = rng.uniform(0.15, 1.0, n)
    dust = 0.18 * (1 - cos_inclination)

    disk_g_r = 0.425 + _DISK_COLOUR_PER_DEX * (metallicity - 8.9065) - 0.03 * activity + dust
    disk_g_r += DISK_COLOUR_SCATTER_MAG * noise[5]
    bulge_g_r = np.clip(0.70 + 0.18 * noise[6], 0.15, 1.2) + 0.5 * dust
    disk_r_i, bulge_r_i = (
        0.10 + _RED_SLOPE * g_r + 0.012 * scatter
        for g_r, scatter in zip((disk_g_r, bulge_g_r), noise[7:9], strict=True)
    )
    clump_fraction = 0.30 / (1 + np.exp(0.4 + 5.0 * (metallicity - 8.9065) - 0.8 * activity - 0.4 * noise[9]))

    g_r = _mixed_colour(bulge_fraction, bulge_g_r, disk_g_r)
    r_i = -_mixed_colour(bulge_fraction, -bulge_r_i, -disk_r_i)
    disk_mag_r = mag_r - 2.5 * np.log10(1 - bulge_fraction)
    return {
        "redshift": redshift,
        "mag_g": mag_r + g_r,
        "mag_r": mag_r,
        "mag_i": mag_r - r_i,
        "g_r": g_r,
        "r_i": r_i,
        "surface_brightness": disk_mag_r + 2.5 * np.log10(2 * np.pi * disk_radius**2),
        "disk_g_r": disk_g_r,
        "disk_r_i": disk_r_i,
        "bulge_g_r": bulge_g_r,
        "bulge_r_i": bulge_r_i,
        "bulge_fraction": bulge_fraction,
        "disk_radius_arcsec": disk_radius,
        "bulge_radius_arcsec": bulge_radius,
        "cos_inclination": cos_inclination,
        "position_angle_rad": rng.uniform(0, np.pi, n),
        "clump_fraction": clump_fraction,
        "texture": rng.integers(0, 2**53, n).astype(np.float64),
    }


def _mixed_colour(bulge_fraction: Floats, bulge_colour: Floats, disk_colour: Floats) -> Floats:
    """Return the colour (other band minus r) of bulge plus disk; the fraction refers to r."""
    light = bulge_fraction * 10 ** (-0.4 * bulge_colour) + (1 - bulge_fraction) * 10 ** (-0.4 * disk_colour)
    return -2.5 * np.log10(light)

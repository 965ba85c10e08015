"""Simulated measurements of a spectroscopic survey, including the invalid values of real catalogs.

Columns have SDSS's names and units. Magnitudes, redshift, mass, star formation and metallicity, which the sample of Wu
& Boada (2019) uses, are modelled with care; other columns are merely plausible.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from galstore.emulator.sky.population import Floats
from schemas.catalog import COLUMN, SENTINEL

POSTERIOR_WIDTH_DEX = 0.047
"""Typical half distance between `oh_p16` and `oh_p84`, dex (Wu & Boada 2019, section 2.1)."""

REPEAT_SHARE = 0.003
"""Share of galaxies observed on two plates: two rows with the same objID and different specObjIDs."""


def measure(rng: np.random.Generator, galaxies: dict[str, Floats]) -> pd.DataFrame:
    """Simulate the catalog columns of galaxies from `draw_population`, without ids and positions.

    Columns have the types of `schemas.catalog`; -9999 and other codes mark missing values. The column `repeated` marks
    galaxies that are listed twice.
    """
    n = len(galaxies["mag_r"])
    columns = _photometry(rng, galaxies) | _spectroscopy(rng, galaxies) | _posteriors(rng, galaxies)
    _insert_invalid_values(rng.random(n), columns)
    dtypes = {name: COLUMN[name].dtype if name in COLUMN else "float32" for name in columns}
    table = pd.DataFrame({name: np.asarray(values, dtypes[name]) for name, values in columns.items()})
    table["repeated"] = rng.random(n) < REPEAT_SHARE
    return table


def _photometry(rng: np.random.Generator, galaxies: dict[str, Floats]) -> dict[str, Floats]:
    n = len(galaxies["mag_r"])
    magnitude = {band: galaxies[f"mag_{band}"] for band in "gri"}
    magnitude["u"] = magnitude["g"] + 0.75 + 0.9 * galaxies["g_r"] + 0.08 * rng.standard_normal(n)
    magnitude["z"] = magnitude["i"] - 0.55 * galaxies["r_i"] - 0.02 + 0.03 * rng.standard_normal(n)
    columns: dict[str, Floats] = {}
    for band, floor in zip("ugriz", (0.02, 0.004, 0.003, 0.003, 0.008), strict=True):
        error = floor * 10 ** (0.2 * (magnitude[band] - 17))
        columns[f"modelMag_{band}"] = magnitude[band] + error * rng.standard_normal(n)
        columns[f"modelMagErr_{band}"] = error
    columns["petroMag_r"] = np.minimum(galaxies["mag_r"] + 0.03 * rng.standard_normal(n), 17.99)
    bulge = galaxies["bulge_fraction"]
    mixed = bulge * galaxies["bulge_radius_arcsec"] + (1 - bulge) * galaxies["disk_radius_arcsec"]
    # 0.75 arcsec: half-light radius of the seeing
    half_light = np.hypot(mixed, 0.75) * 10 ** (0.02 * rng.standard_normal(n))
    columns["petroR50_r"] = half_light
    columns["petroR90_r"] = half_light * (2.15 + 0.9 * bulge + 0.1 * rng.standard_normal(n))
    return columns


def _spectroscopy(rng: np.random.Generator, galaxies: dict[str, Floats]) -> dict[str, Floats]:
    n = len(galaxies["mag_r"])
    distance_mpc = galaxies["redshift"] * 4283 * (1 + 0.77 * galaxies["redshift"])
    # Kennicutt's SFR = 10**-41.1 L(H alpha), a third of the light in the fibre and a factor two of dust
    luminosity = 10 ** (galaxies["log_sfr"] + 41.1 + 0.15 * rng.standard_normal(n)) / 6
    h_alpha = luminosity / (4 * np.pi * (distance_mpc * 3.0857e24) ** 2) * 1e17
    # the strong-line calibrations of Pettini & Pagel (2004), as inverses, with their scatter
    excess = galaxies["metallicity"] - 8.9065
    fluxes = {
        "nii_6584": h_alpha * 10 ** (-0.42 + 0.9 * excess + 0.08 * rng.standard_normal(n)),
        "h_alpha": h_alpha,
        "oiii_5007": h_alpha / 3.4 * 10 ** (-0.45 - 2.0 * excess + 0.12 * rng.standard_normal(n)),
        "h_beta": h_alpha / 3.4,
        "h_delta": h_alpha / 3.4 * 0.24,
    }
    columns: dict[str, Floats] = {}
    for line, flux in fluxes.items():
        error = 2.5 + 0.02 * flux
        columns[f"{line}_flux"] = flux + error * rng.standard_normal(n)
        columns[f"{line}_flux_err"] = error
    red = galaxies["disk_g_r"] + galaxies["bulge_fraction"] * 0.3
    dispersion = np.clip(60 * 10 ** (0.28 * (galaxies["log_mass"] - 10)) * (1 + 0.2 * rng.standard_normal(n)), 0, 600)
    fitted: dict[str, Floats] = {
        "z": galaxies["redshift"],
        "zErr": 10 ** (-4.9 + 0.15 * rng.standard_normal(n)),
        "rChi2": np.clip(1.05 + 0.12 * rng.standard_normal(n), 0.4, 1.9),
        "velDisp": dispersion,
        "velDispErr": 4 + 0.08 * dispersion,
        "d4000": 1.08 + 0.45 * red + 0.05 * rng.standard_normal(n),
        "d4000_err": np.full(n, 0.015) * rng.lognormal(0, 0.3, n),
        "bptclass": np.asarray(rng.choice([1.0, 2.0, 3.0], n, p=[0.85, 0.1, 0.05]), dtype=np.float64),
    }
    return columns | fitted


def _posteriors(rng: np.random.Generator, galaxies: dict[str, Floats]) -> dict[str, Floats]:
    n = len(galaxies["mag_r"])
    width = POSTERIOR_WIDTH_DEX * rng.lognormal(0, 0.25, n)
    deviates = {"p2p5": -1.96, "p16": -1.0, "p50": 0.0, "p84": 1.0, "p97p5": 1.96}
    return {f"oh_{name}": galaxies["label"] + width * deviate for name, deviate in deviates.items()} | {
        "lgm_tot_p50": galaxies["log_mass"] + 0.03 * rng.standard_normal(n),
        "sfr_tot_p50": galaxies["log_sfr"] + 0.03 * rng.standard_normal(n),
    }


def _insert_invalid_values(uniform: Floats, columns: dict[str, Floats]) -> None:
    """Replace values; `uniform`, in [0, 1), gives at most one kind of invalid value to each galaxy."""
    # the selection of the paper drops all kinds from the metallicity to z, and accepts the others
    kinds: tuple[tuple[float, tuple[str, ...], float | Floats], ...] = (  # share of galaxies, columns, value
        (0.003, ("lgm_tot_p50",), SENTINEL),
        (0.002, ("sfr_tot_p50",), SENTINEL),
        (0.0015, ("modelMag_g",), 24.8),
        (0.010, tuple(name for name in columns if name.startswith("oh_")), SENTINEL),
        (0.004, ("petroMag_r",), 18.4),
        (0.002, ("modelMag_u",), columns["modelMag_r"] + 6.5),
        (0.002, ("modelMag_z",), 26.3),
        (0.005, ("rChi2",), 2.7),
        (0.004, ("zErr",), -1.0),
        (0.003, ("z",), 0.012),
        (0.005, ("d4000",), 0.0),
        (0.020, ("velDispErr",), -3.0),
    )
    bounds = np.cumsum([0.0, *(share for share, _, _ in kinds)])
    for k, (_, names, value) in enumerate(kinds):
        is_affected = (uniform >= bounds[k]) & (uniform < bounds[k + 1])
        for name in names:
            columns[name] = np.where(is_affected, value, columns[name])

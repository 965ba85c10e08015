"""Simulated sky: galaxies with ids, positions, a catalog and known appearance.

The seed determines everything. A larger sky contains the galaxies of a smaller one, since galaxies are drawn in chunks
of fixed size with one random generator each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galstore.emulator.sky.drawing import draw_empty_sky, draw_galaxy
from galstore.emulator.sky.measurements import measure
from galstore.emulator.sky.population import APPEARANCE_FIELDS, Appearance, draw_population
from galstore.emulator.survey import CutoutQuery, PositionIndex
from schemas.errors import ContractError

CHUNK_ROWS = 4096
"""Number of galaxies drawn from one generator. Changing it changes the sky of each seed."""

MAX_GALAXIES = 1_000_000
"""Limit up to which ids are unique."""

FOOTPRINT_RA_DEG = (110.0, 260.0)
FOOTPRINT_DEC_DEG = (-4.0, 70.0)
"""Simulated imaging area, roughly the northern cap of SDSS."""

TOTAL_COLOURS = ("g_r", "r_i")

_PLATES_APART = 3500  # between the first and second plate of a galaxy
_GALAXIES_PER_PLATE = 640

_SPECTROSCOPIC, _PHOTOMETRIC = 0, 1  # independent random streams


class SimulatedSky:
    """Survey of simulated galaxies.

    Parameters
    ----------
    n_galaxies
        Number of galaxies with spectra, listed in `catalog`.
    n_new
        Number of galaxies without spectra, listed in `new_catalog`.
    informative
        False draws a null sky: appearance, magnitudes and redshift are those of an unrelated galaxy, so that they
        carry no information on the metallicity.

    Raises
    ------
    ContractError
        A number is above `MAX_GALAXIES`, or a number or the seed is negative.

    Examples
    --------
    >>> sky = SimulatedSky(seed=1, n_galaxies=100, n_new=10)
    >>> len(sky.truth()), len(sky.new_catalog())
    (110, 10)
    """

    def __init__(self, *, seed: int, n_galaxies: int, n_new: int, informative: bool = True) -> None:
        if not (0 <= n_galaxies <= MAX_GALAXIES and 0 <= n_new <= MAX_GALAXIES) or seed < 0:
            raise ContractError(
                f"a simulated sky needs a seed >= 0 and 0 to {MAX_GALAXIES} galaxies of each kind, got seed {seed}, "
                f"n_galaxies {n_galaxies}, n_new {n_new}: choose numbers in these ranges"
            )
        self.seed, self.n_galaxies, self.informative = seed, n_galaxies, informative
        with_spectra, self._measured = self._draw(_SPECTROSCOPIC, n_galaxies)
        without, _ = self._draw(_PHOTOMETRIC, n_new)
        self._galaxies = pd.concat([with_spectra, without], ignore_index=True)
        self.object_ids: NDArray[np.int64] = self._galaxies["object_id"].to_numpy()
        """Ids of all galaxies, first those with spectra, shape (n,)."""
        self._rows = pd.Index(self.object_ids)

    def _draw(self, stream: int, n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        galaxies, measured = [], []
        south, north = np.sin(np.radians(FOOTPRINT_DEC_DEG))
        for chunk in range(max(1, -(-n // CHUNK_ROWS))):
            rng = np.random.default_rng((self.seed, stream, chunk))
            drawn = draw_population(rng, CHUNK_ROWS, informative=self.informative)
            rows = np.arange(CHUNK_ROWS) + chunk * CHUNK_ROWS
            positions = {
                "object_id": _object_ids(rows, stream),
                "ra": rng.uniform(FOOTPRINT_RA_DEG[0], FOOTPRINT_RA_DEG[1], CHUNK_ROWS),
                "dec": np.degrees(np.arcsin(rng.uniform(south, north, CHUNK_ROWS))),
            }
            galaxies.append(pd.DataFrame(positions | drawn))
            measured.append(measure(rng, drawn).assign(specObjID=_spectrum_ids(rows)))
        return pd.concat(galaxies, ignore_index=True)[:n], pd.concat(measured, ignore_index=True)[:n]

    def catalog(self) -> pd.DataFrame:
        """Return the spectroscopic catalog with its invalid values: one row per spectrum, some objIDs twice.

        Columns are those of `schemas.selection.QUERY_COLUMNS`, and `rChi2`; -9999 marks missing values.
        """
        positions = self._galaxies.iloc[: self.n_galaxies][["object_id", "ra", "dec"]]
        positions = positions.rename(columns={"object_id": "objID"})
        first_spectra = pd.concat([positions, self._measured], axis=1)
        second_spectra = first_spectra[first_spectra["repeated"]].copy()
        second_spectra["specObjID"] += _PLATES_APART << 50
        return pd.concat([first_spectra, second_spectra], ignore_index=True).drop(columns="repeated")

    def new_catalog(self) -> pd.DataFrame:
        """Return `object_id`, `ra`, `dec` (degrees) of the galaxies without spectra."""
        return self._galaxies.iloc[self.n_galaxies :][["object_id", "ra", "dec"]].reset_index(drop=True)

    def truth(self) -> pd.DataFrame:
        """Return the true properties, one row per galaxy, first those with spectra.

        Returns
        -------
        DataFrame
            `object_id`; `metallicity` (true) and `label` (with noise, equal to a valid `oh_p50`), both 12 + log(O/H);
            `log_mass`, `log_sfr`, `redshift`; the fields of `Appearance`; `g_r`, `r_i`, `mag_g`, `mag_r`, `mag_i` of
            the whole galaxy; `surface_brightness` in mag arcsec^-2.
        """
        return self._galaxies.drop(columns=["ra", "dec"])

    def covers(self, ra_deg: float, dec_deg: float) -> bool:
        (west, east), (south, north) = FOOTPRINT_RA_DEG, FOOTPRINT_DEC_DEG
        return west <= ra_deg % 360 <= east and south <= dec_deg <= north

    def find(self, ra_deg: float, dec_deg: float) -> int | None:
        row = self._positions.nearest(ra_deg, dec_deg) if len(self.object_ids) else None
        return None if row is None else int(self.object_ids[row])

    def appearance(self, object_id: int) -> Appearance:
        """Return the appearance of a galaxy; raise `KeyError` if the id is unknown."""
        values = dict(zip(APPEARANCE_FIELDS, self._appearances[self._rows.get_loc(object_id)].tolist(), strict=True))
        texture = int(values.pop("texture"))
        return Appearance(**values, texture=texture)

    def cutout(self, object_id: int | None, query: CutoutQuery) -> Callable[[], bytes]:
        """Return the drawing of a galaxy, or of empty sky if `object_id` is None, to be called in any process."""
        if object_id is not None:
            draw = partial(draw_galaxy, self.appearance(object_id))
        else:
            # positions that agree to a tenth of an arcsecond show the same sky
            tenths = [round((angle % 360) * 36_000) for angle in query.position_deg]
            draw = partial(draw_empty_sky, (self.seed << 42) + tenths[0] * 12_960_000 + tenths[1])
        width, height = query.size_px
        return partial(
            draw, scale_arcsec=query.scale_arcsec, width_px=width, height_px=height, composite=query.composite
        )

    @cached_property
    def _positions(self) -> PositionIndex:
        return PositionIndex(self._galaxies["ra"], self._galaxies["dec"])

    @cached_property
    def _appearances(self) -> NDArray[np.float64]:
        return self._galaxies[list(APPEARANCE_FIELDS)].to_numpy()


def _object_ids(rows: NDArray[np.int64], stream: int) -> NDArray[np.int64]:
    """Return unique ids in SDSS's layout: sky version, rerun, run, camera column, field, object."""
    # an odd factor permutes the numbers below 2**20, so that ids are not sorted by row
    scattered = (rows * 691_453 + 77_731) % 2**20
    run = 1000 + 2048 * stream + (scattered >> 10)
    camera_column = 1 + scattered % 6
    field, number = 11 + scattered % 512, 1 + (scattered & 1023)
    return (2 << 59) | (301 << 48) | (run << 32) | (camera_column << 29) | (field << 16) | number


def _spectrum_ids(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ids in SDSS's layout: plate, fibre, day, version of the reduction."""
    plate, fibre = 266 + rows // _GALAXIES_PER_PLATE, 1 + rows % _GALAXIES_PER_PLATE
    return (plate << 50) | (fibre << 38) | ((1600 + plate) << 24) | (26 << 10)

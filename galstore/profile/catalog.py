"""Profile of a catalog, computed page by page so that memory does not grow with the survey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from galstore.cube.arrays import Values
from galstore.cube.index.healpix import sky_cells
from galstore.cube.reader import Cube
from galstore.profile.distribution import Distribution
from schemas.catalog import CATALOG_COLUMNS, COLUMN, LABEL_COLUMNS
from schemas.cube import CATALOG_CHUNK_ROWS, LABEL_VIEW
from schemas.cutouts import Status

SKY_ORDER = 7
"""HEALPix order of the object counts: 196,608 cells of 0.46 deg, 4.7 MB in total."""

PROFILED: dict[str, str] = {
    **{name: f"catalog/{name}" for name in CATALOG_COLUMNS if COLUMN[name].dtype != "int64"},
    **{name: f"labels/{LABEL_VIEW}/{name}" for name in LABEL_COLUMNS},
    "pixel_scale": "state/pixel_scale",
    "body_length": "state/body_length",
}
"""Profiled columns (all except ids) and their arrays. Pixel scale and body length refer to stored cutouts."""

Counts = npt.NDArray[np.int64]

_N_CELLS = 12 * 4**SKY_ORDER


def _zero_counts() -> Counts:
    return np.zeros(_N_CELLS, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SkyCounts:
    """Numbers of objects per HEALPix cell (nested, ICRS) of order `SKY_ORDER`; add counts of pages with `+`."""

    registered: Counts = field(default_factory=_zero_counts)
    stored: Counts = field(default_factory=_zero_counts)
    quarantined: Counts = field(default_factory=_zero_counts)

    @classmethod
    def of(cls, ra_deg: Values, dec_deg: Values, status: Values) -> SkyCounts:
        """Count objects at ICRS positions in degrees by the status of their cutouts."""
        cells = sky_cells(ra_deg, dec_deg, order=SKY_ORDER)
        return cls(
            registered=np.bincount(cells, minlength=_N_CELLS),
            stored=np.bincount(cells[status == Status.STORED], minlength=_N_CELLS),
            quarantined=np.bincount(cells[status == Status.QUARANTINED], minlength=_N_CELLS),
        )

    def __add__(self, other: SkyCounts) -> SkyCounts:
        return SkyCounts(**{name: counts + getattr(other, name) for name, counts in self._by_name()})

    def at_order(self, order: int) -> SkyCounts:
        """Return the counts in larger cells."""
        if not 0 <= order <= SKY_ORDER:
            raise ValueError(f"order {order} is not between 0 and {SKY_ORDER}, the order of the counts")
        n_merged = 4 ** (SKY_ORDER - order)
        return SkyCounts(**{name: counts.reshape(-1, n_merged).sum(axis=1) for name, counts in self._by_name()})

    def _by_name(self) -> list[tuple[str, Counts]]:
        return [(column.name, getattr(self, column.name)) for column in fields(self)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """Distributions of columns and positions; add profiles of pages with `+`, starting from `Profile()`."""

    n_objects: int = 0
    columns: Mapping[str, Distribution] = field(default_factory=dict)
    sky: SkyCounts = field(default_factory=SkyCounts)

    def __add__(self, other: Profile) -> Profile:
        names = dict.fromkeys([*self.columns, *other.columns])
        empty = Distribution()
        return Profile(
            n_objects=self.n_objects + other.n_objects,
            columns={name: self.columns.get(name, empty) + other.columns.get(name, empty) for name in names},
            sky=self.sky + other.sky,
        )


def profile_catalog(
    cube: Cube, start: int = 0, stop: int | None = None, *, page_rows: int = CATALOG_CHUNK_ROWS
) -> Profile:
    """Profile a range of rows of a cube, `stop` excluded; pages of whole chunks are read fastest."""
    stop = cube.n_objects if stop is None else min(stop, cube.n_objects)
    total = Profile()
    # pages end at chunk boundaries, for any first row
    ends = range((start // page_rows + 1) * page_rows, stop + page_rows, page_rows)
    for first, last in zip([start, *ends], [min(end, stop) for end in ends], strict=False):
        if first < last:
            total += _profile_page(cube, first, last)
    return total


def _profile_page(cube: Cube, start: int, stop: int) -> Profile:
    def read(path: str) -> Values:
        return np.asarray(cube.array(path)[start:stop])

    status = read("state/status")
    columns = {}
    for name, path in PROFILED.items():
        values = read(path)
        columns[name] = Distribution.of(values[status == Status.STORED] if path.startswith("state/") else values)
    sky = SkyCounts.of(read("catalog/ra"), read("catalog/dec"), status)
    return Profile(n_objects=stop - start, columns=columns, sky=sky)

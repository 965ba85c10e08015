"""Profile: what a catalog looks like, from one pass over pages of the cube; memory does not grow with the survey."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from galstore.cube.index.healpix import sky_cells
from galstore.cube.reader import Cube
from galstore.profile.distribution import Distribution
from schemas.catalog import CATALOG_COLUMNS, COLUMN, LABEL_COLUMNS
from schemas.cube import CATALOG_CHUNK_ROWS, LABEL_VIEW
from schemas.cutouts import Status

SKY_ORDER = 7
"""HEALPix order in which objects are counted: 196,608 cells of 0.46 deg, 4.7 MB in all."""

PROFILED: dict[str, str] = {
    **{name: f"catalog/{name}" for name in CATALOG_COLUMNS if COLUMN[name].dtype != "int64"},
    **{name: f"labels/{LABEL_VIEW}/{name}" for name in LABEL_COLUMNS},
    "pixel_scale": "state/pixel_scale",
    "body_length": "state/body_length",
}
"""Columns that are profiled, with their arrays: all but ids. The scale and the length of the bytes are of stored
cutouts alone."""

Counts = npt.NDArray[np.int64]


def _no_cells() -> Counts:
    return np.zeros(12 * 4**SKY_ORDER, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SkyCounts:
    """Objects in each HEALPix cell (nested, ICRS) of order `SKY_ORDER`; counts of pages add up with `+`."""

    registered: Counts = field(default_factory=_no_cells)
    stored: Counts = field(default_factory=_no_cells)
    quarantined: Counts = field(default_factory=_no_cells)

    @classmethod
    def of(
        cls, ra_deg: npt.NDArray[np.float64], dec_deg: npt.NDArray[np.float64], status: npt.NDArray[np.uint8]
    ) -> SkyCounts:
        """Count objects at places (deg, ICRS) by the state of their cutout."""
        cells = sky_cells(ra_deg, dec_deg, order=SKY_ORDER)
        n_cells = 12 * 4**SKY_ORDER
        stored, quarantined = (
            np.bincount(cells[status == one], minlength=n_cells) for one in (Status.STORED, Status.QUARANTINED)
        )
        return cls(registered=np.bincount(cells, minlength=n_cells), stored=stored, quarantined=quarantined)

    def __add__(self, other: SkyCounts) -> SkyCounts:
        return SkyCounts(
            registered=self.registered + other.registered,
            stored=self.stored + other.stored,
            quarantined=self.quarantined + other.quarantined,
        )

    def at_order(self, order: int) -> SkyCounts:
        """The same in larger cells."""
        if not 0 <= order <= SKY_ORDER:
            raise ValueError(f"order {order} is not between 0 and {SKY_ORDER}, in which objects were counted")
        shrink = 4 ** (SKY_ORDER - order)
        registered, stored, quarantined = (
            one.reshape(-1, shrink).sum(axis=1) for one in (self.registered, self.stored, self.quarantined)
        )
        return SkyCounts(registered=registered, stored=stored, quarantined=quarantined)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """Distributions of columns and places of objects; profiles of pages add up with `+`, the zero is `Profile()`."""

    n_objects: int = 0
    columns: Mapping[str, Distribution] = field(default_factory=dict)
    sky: SkyCounts = field(default_factory=SkyCounts)

    def __add__(self, other: Profile) -> Profile:
        names = dict.fromkeys([*self.columns, *other.columns])
        nothing = Distribution()
        return Profile(
            n_objects=self.n_objects + other.n_objects,
            columns={name: self.columns.get(name, nothing) + other.columns.get(name, nothing) for name in names},
            sky=self.sky + other.sky,
        )


def profile_catalog(
    cube: Cube, start: int = 0, stop: int | None = None, *, page_rows: int = CATALOG_CHUNK_ROWS
) -> Profile:
    """Profile the objects of some rows of a cube.

    Parameters
    ----------
    cube
        A snapshot.
    start, stop
        Rows, the last one excluded; to the end by default.
    page_rows
        So many are read at once; pages of whole chunks are read fastest.
    """
    stop = cube.n_objects if stop is None else min(stop, cube.n_objects)
    total = Profile()
    # pages end where chunks do, wherever the first row is
    ends = range((start // page_rows + 1) * page_rows, stop + page_rows, page_rows)
    for first, last in zip([start, *ends], [min(end, stop) for end in ends], strict=False):
        if first < last:
            total += _profile_page(cube, first, last)
    return total


def _profile_page(cube: Cube, start: int, stop: int) -> Profile:
    def read(path: str) -> npt.NDArray[np.float64]:
        return np.asarray(cube.array(path)[start:stop])

    status = np.asarray(cube.array("state/status")[start:stop])
    columns = {}
    for name, path in PROFILED.items():
        values = read(path)
        if path.startswith("state/"):
            values = values[status == Status.STORED]
        columns[name] = Distribution.of(values)
    sky = SkyCounts.of(read("catalog/ra"), read("catalog/dec"), status)
    return Profile(n_objects=stop - start, columns=columns, sky=sky)

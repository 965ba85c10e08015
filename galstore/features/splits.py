"""Splits into training, validation and test objects, by a stable hash of the object id or of the cell of the sky.

The split depends on id (or cell) and seed, not on row order or other objects. Two exceptions: objects that are one
galaxy get the split of the smallest id, and a split by sky cells drops objects close to a cell of another split.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from galstore.cube.index.healpix import sky_cells
from schemas.features import Split
from schemas.recipes import SplitSection

Ids = npt.NDArray[np.int64]
Degrees = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]

NO_SPLIT = -1
"""Code of an object that is in no split."""


def apply_split_rule(rule: SplitSection, object_ids: Ids, ra_deg: Degrees, dec_deg: Degrees) -> Codes:
    """Return the code of `Split` for each object, or `NO_SPLIT`."""
    if rule.by == "object":
        keys = smallest_duplicates(object_ids, ra_deg, dec_deg, separation_arcsec=rule.duplicate_arcsec)
        return assign_split(keys, train=rule.train, validation=rule.validation, seed=rule.seed)
    cells = sky_cells(ra_deg, dec_deg, order=rule.cell_order)
    codes = assign_split(cells, train=rule.train, validation=rule.validation, seed=rule.seed)
    separation_deg = max(rule.separation_deg, rule.duplicate_arcsec / 3600)
    return drop_neighbours(codes, ra_deg, dec_deg, separation_deg=separation_deg)


def assign_split(object_ids: Ids, *, train: float, validation: float, seed: int = 0) -> Codes:
    """Return the code of `Split` for each object id; splits of different seeds are independent.

    Examples
    --------
    >>> assign_split(np.array([1237648702973411443, 1237648702994383943]), train=0.6, validation=0.2).tolist()
    [2, 0]
    """
    return np.digitize(hash_share(object_ids, seed=seed), [train, train + validation]).astype(np.int8)


def hash_share(object_ids: Ids, *, seed: int = 0) -> npt.NDArray[np.float64]:
    """Hash each id to a number in [0, 1) with the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is intended
        state = object_ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def smallest_duplicates(object_ids: Ids, ra_deg: Degrees, dec_deg: Degrees, *, separation_arcsec: float) -> Ids:
    """Return for each object the smallest id of the objects that are the same galaxy.

    Objects closer than `separation_arcsec` are the same galaxy, and so are objects linked by a chain of close objects.
    """
    pairs = cKDTree(_unit_vectors(ra_deg, dec_deg)).query_pairs(_chord(separation_arcsec / 3600), output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(object_ids.size, object_ids.size))
    _, group = connected_components(links, directed=False)
    smallest = np.full(group.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, group, object_ids)
    return np.asarray(smallest[group])


def drop_neighbours(split: Codes, ra_deg: Degrees, dec_deg: Degrees, *, separation_deg: float) -> Codes:
    """Return a split with at least `separation_deg` between objects of different splits.

    Training objects too close to a validation or test object, and validation objects too close to a test object, get
    `NO_SPLIT`.
    """
    vectors, codes = _unit_vectors(ra_deg, dec_deg), split.copy()
    for code in (Split.VALIDATION, Split.TRAIN):
        later = codes > code
        members = np.flatnonzero(codes == code)
        if later.any() and members.size:
            # wider by 1 in 10^12, so that rounding of a distance never admits an object
            reach = _chord(separation_deg) * (1 + 1e-12)
            distance, _ = cKDTree(vectors[later]).query(vectors[members], distance_upper_bound=np.nextafter(reach, 3))
            codes[members[distance <= reach]] = NO_SPLIT
    return codes


def _unit_vectors(ra_deg: Degrees, dec_deg: Degrees) -> npt.NDArray[np.float64]:
    ra, dec = np.deg2rad(ra_deg), np.deg2rad(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _chord(angle_deg: float) -> float:
    """Return the straight distance between two points of the unit sphere at an angle."""
    return float(2 * np.sin(np.deg2rad(angle_deg) / 2))

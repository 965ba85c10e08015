"""Splits: which galaxies train, validate and test, by a stable hash of the object id or of the place on the sky.

An object's split depends on its id (or place) and the seed alone: not on row order, not on what else is in the cube.
Two rules look at neighbours too: objects that are one galaxy under several ids go where the smallest id goes, and a
split by sky cells leaves out who is too close to a cell that judges them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from schemas.features import Split

LEFT_OUT = -1
"""In place of a code of `Split`: the object is in none."""


def split_of(
    object_ids: npt.NDArray[np.int64], *, train: float, validation: float, seed: int = 0
) -> npt.NDArray[np.int8]:
    """Code of `Split` for each object id.

    Parameters
    ----------
    object_ids
        64-bit ids, shape (object,).
    train, validation
        Shares of the whole; the rest is the test split.
    seed
        Another seed gives another, independent split.

    Examples
    --------
    >>> split_of(np.array([1237648702973411443, 1237648702994383943]), train=0.6, validation=0.2).tolist()
    [2, 0]
    """
    share = hash_share(object_ids, seed=seed)
    return np.digitize(share, [train, train + validation]).astype(np.int8)


def hash_share(object_ids: npt.NDArray[np.int64], *, seed: int = 0) -> npt.NDArray[np.float64]:
    """Hash of each id as a number in [0, 1), by the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the point
        state = object_ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def leaders(
    object_ids: npt.NDArray[np.int64],
    ra_deg: npt.NDArray[np.float64],
    dec_deg: npt.NDArray[np.float64],
    *,
    separation_arcsec: float,
) -> npt.NDArray[np.int64]:
    """For each object the smallest id among those that are the same galaxy, by closeness on the sky.

    Closeness is handed on: of three objects in a row the ends are one galaxy too.

    Examples
    --------
    >>> ids, ra = np.array([30, 10, 20]), np.array([150.0, 150.0001, 151.0])
    >>> leaders(ids, ra, np.zeros(3), separation_arcsec=2).tolist()
    [10, 10, 20]
    """
    pairs = cKDTree(_unit_vectors(ra_deg, dec_deg)).query_pairs(_chord(separation_arcsec / 3600), output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(object_ids.size, object_ids.size))
    _, group = connected_components(links, directed=False)
    smallest = np.full(group.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, group, object_ids)
    return np.asarray(smallest[group])


def leave_out_neighbours(
    split: npt.NDArray[np.int8],
    ra_deg: npt.NDArray[np.float64],
    dec_deg: npt.NDArray[np.float64],
    *,
    separation_deg: float,
) -> npt.NDArray[np.int8]:
    """A split in which no two objects of different parts are within a distance of each other.

    A training object that is too close to a validation or test object, and a validation object that is too close to a
    test object, is `LEFT_OUT`.
    """
    places, kept = _unit_vectors(ra_deg, dec_deg), split.copy()
    for part in (Split.VALIDATION, Split.TRAIN):
        judges = kept > part
        ours = np.flatnonzero(kept == part)
        if judges.any() and ours.size:
            # one part in 10^12 wider, so that rounding of a distance lets nobody in
            reach = _chord(separation_deg) * (1 + 1e-12)
            distance, _ = cKDTree(places[judges]).query(places[ours], distance_upper_bound=np.nextafter(reach, 3))
            kept[ours[distance <= reach]] = LEFT_OUT
    return kept


def _unit_vectors(ra_deg: npt.NDArray[np.float64], dec_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    ra, dec = np.deg2rad(ra_deg), np.deg2rad(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _chord(angle_deg: float) -> float:
    """Length of the straight line between two points of the unit sphere at this angle."""
    return float(2 * np.sin(np.deg2rad(angle_deg) / 2))

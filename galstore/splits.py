"""Splits: which galaxies train, validate and test, by a stable hash of the object id.

An object's split depends on its id and the seed alone: not on row order, not on what else is in the cube.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Split(IntEnum):
    """Codes of the three splits."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


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

"""Checks of columns of numbers before they are measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]


def check_columns(**columns: ArrayLike) -> list[Values]:
    """Return columns of equal length, which may be 0, as float64; raise `ValueError` for values that are not finite.

    Examples
    --------
    >>> check_columns(true=[8.9], predicted=[9])
    [array([8.9]), array([9.])]
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 1:
        raise ValueError(f"columns have the shapes {shapes}: give one value per object in each")
    for name, array in arrays.items():
        check_finite(array, name)
    return list(arrays.values())


def check_finite(values: Values, name: str) -> None:
    n_bad = int(np.count_nonzero(~np.isfinite(values)))
    if n_bad:
        raise ValueError(f"{n_bad} of {values.size} values of {name!r} are not finite: remove those rows first")


def check_sigma(sigma: ArrayLike, n: int) -> Values:
    """Return n standard deviations, finite and above 0, as float64."""
    array = np.asarray(sigma, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"sigma has shape {array.shape}, expected is ({n},): give one standard deviation per object")
    check_finite(array, "sigma")
    n_bad = int(np.count_nonzero(array <= 0))
    if n_bad:
        raise ValueError(f"{n_bad} of {n} values of 'sigma' are 0 or less: remove those rows first")
    return array

"""Numbers with a standard error, by the bootstrap over galaxies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_RESAMPLES = 200
"""The error itself is then known to 1 / sqrt(2 x 200) = 5 %."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A number and its standard error, in the same unit."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"


def estimate(
    statistic: Callable[..., Sequence[float]], *columns: Values, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> list[Measured]:
    """Some numbers of some galaxies, with the errors that drawing these galaxies by chance brings (Efron 1979).

    scipy.stats.bootstrap would do one number at a time, and names its generator by version.

    Parameters
    ----------
    statistic
        Columns -> numbers, always as many.
    columns
        (object,) each, of one length; galaxies are drawn whole, with replacement.
    seed
        Of the draws.
    n_resamples
        At least 2.

    Returns
    -------
    list of Measured
        The value is that of the galaxies given; the error is the standard deviation over the resamples, NaN where one
        of them gives NaN.

    Examples
    --------
    >>> [mean] = estimate(lambda x: [x.mean()], np.array([1.0, 3.0] * 50))
    >>> print(mean)  # sigma / sqrt(n) = 0.1
    2.000 ± 0.1...
    """
    rng = np.random.default_rng(seed)
    n = len(columns[0])
    draws = []
    for _ in range(n_resamples):
        chosen = rng.integers(n, size=n)
        draws.append(statistic(*(column[chosen] for column in columns)))
    errors = np.std(np.array(draws, dtype=np.float64), axis=0, ddof=1)
    return [
        Measured(value=float(value), error=float(error))
        for value, error in zip(statistic(*columns), errors, strict=True)
    ]


def least_squares_slope(x: ArrayLike, y: ArrayLike) -> float:
    """Slope of the line through (x, y), each (n,), that has the least squares in y; NaN where x does not vary.

    Examples
    --------
    >>> least_squares_slope([0, 1, 2], [5, 5.5, 6])
    0.5
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.size == 0:
        return float("nan")
    deviation = x - x.mean()
    square = float(deviation @ deviation)
    return float(deviation @ (y - y.mean())) / square if square > 0 else float("nan")


def paired_columns(**columns: ArrayLike) -> list[Values]:
    """Columns of one length, as float64.

    Raises
    ------
    ValueError
        Lengths differ, or a value is not finite.
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 1:
        raise ValueError(f"columns have the shapes {shapes}: give one value a galaxy in each")
    for name, array in arrays.items():
        n_bad = int(np.count_nonzero(~np.isfinite(array)))
        if n_bad:
            raise ValueError(f"{n_bad} of {array.size} values of {name!r} are not finite: leave those rows out first")
    return list(arrays.values())

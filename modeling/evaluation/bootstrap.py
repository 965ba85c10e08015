"""Bootstrap over objects: standard errors and intervals of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modeling.evaluation.column_checks import Values, check_columns, check_finite
from modeling.evaluation.metrics import Outliers, Regression, resampled_metrics

N_FOR_ERRORS = 200
"""Resamples for a standard error, which is then known to 1 / sqrt(2 x 200) = 5 %."""
N_FOR_INTERVALS = 1_000
MIN_FOR_INTERVALS = 100
"""With fewer resamples, two or three draws decide where a 95 % interval ends."""
BATCH_VALUES = 400_000
"""Values of a batch of resamples: 3 MB, which stay in the processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueWithError:
    """Number and its standard error, in the same unit."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueWithIntervals:
    """Number with its central 68 % and 95 % bootstrap intervals; their ends are NaN for a single object."""

    value: float
    low_68: float
    high_68: float
    low_95: float
    high_95: float

    @classmethod
    def of(cls, value: float, draws: Values) -> ValueWithIntervals:
        """Compute percentile intervals (Efron 1979) from the value in each resample, (resample,)."""
        ends = np.quantile(draws, [0.5 - 0.34, 0.5 + 0.34, 0.025, 0.975]).tolist() if draws.size else [np.nan] * 4
        return cls(value=value, low_68=ends[0], high_68=ends[1], low_95=ends[2], high_95=ends[3])


def resample(
    n: int, statistics: Callable[[NDArray[np.int64]], Values], *, rng: np.random.Generator, n_resamples: int
) -> Values:
    """Compute statistics of resamples of n objects, drawn with replacement as by `scipy.stats.bootstrap`.

    Parameters
    ----------
    statistics
        Function of the positions of the drawn objects, (resample, object), that returns (statistic, resample).

    Returns
    -------
    ndarray
        (statistic, resample). `BATCH_VALUES` changes no draw.
    """
    batch = max(1, BATCH_VALUES // max(1, n))
    sizes = [min(batch, n_resamples - start) for start in range(0, n_resamples, batch)]
    return np.concatenate([statistics(rng.integers(n, size=(size, n))) for size in sizes], axis=1)


def estimate_errors(
    statistic: Callable[..., Sequence[float]], *columns: Values, seed: int = 0, n_resamples: int = N_FOR_ERRORS
) -> list[ValueWithError]:
    """Estimate the standard errors of numbers that are computed from columns (Efron 1979).

    Parameters
    ----------
    statistic
        Function of the columns that returns a fixed number of values.
    columns
        (object,) each, of one length; objects are drawn whole, with replacement.

    Returns
    -------
    list of ValueWithError
        Values for the given objects; the error is the standard deviation over the resamples, NaN if one of them gives
        NaN.

    Examples
    --------
    >>> [mean] = estimate_errors(lambda x: [x.mean()], np.array([1.0, 3.0] * 50))
    >>> print(mean)  # sigma / sqrt(n) = 0.1
    2.000 ± 0.1...
    """

    def statistics(rows: NDArray[np.int64]) -> Values:
        draws = [statistic(*(column[chosen] for column in columns)) for chosen in rows]
        return np.array(draws, dtype=np.float64).T

    draws = resample(len(columns[0]), statistics, rng=np.random.default_rng(seed), n_resamples=n_resamples)
    errors = np.std(draws.T, axis=0, ddof=1)
    return [
        ValueWithError(value=float(value), error=float(error))
        for value, error in zip(statistic(*columns), errors, strict=True)
    ]


def resample_for_intervals(
    n: int, statistics: Callable[[NDArray[np.int64]], Values], *, rng: np.random.Generator, n_resamples: int
) -> Values:
    """Resample at least 100 times as `resample` does; return no resamples for a single object."""
    if n_resamples < MIN_FOR_INTERVALS:
        raise ValueError(f"{n_resamples} resamples are too few for a 95 % interval: give at least {MIN_FOR_INTERVALS}")
    if n < 2:
        return np.empty((len(statistics(np.zeros((1, n), dtype=np.int64))), 0))
    return resample(n, statistics, rng=rng, n_resamples=n_resamples)


def estimate_metrics(
    true: ArrayLike, predicted: ArrayLike, *, rng: np.random.Generator, n_resamples: int = N_FOR_INTERVALS
) -> dict[str, ValueWithIntervals]:
    """Compute every metric with its bootstrap intervals.

    Parameters
    ----------
    true, predicted
        (object,) each, finite; at least one object. Their order changes no number.
    n_resamples
        At least 100. 1,000 resamples of 20,466 objects take 1 to 2 s on one core.

    Returns
    -------
    dict of ValueWithIntervals
        'rmse', 'nmad', 'bias', 'r2', 'beyond_3_nmad' and 'beyond_0p3_dex', as `Regression` and `Outliers` define them.
    """
    # + 0.0 turns -0.0 into 0.0: a median could return either of them, depending on the order
    t, p = (values + 0.0 for values in check_columns(true=true, predicted=predicted))
    order = np.lexsort((p, t))
    t, p = t[order], p[order]
    errors = p - t
    values = asdict(Regression.of(t, p)) | asdict(Outliers.of(errors))
    del values["n"]

    def statistics(rows: NDArray[np.int64]) -> Values:
        by_name = resampled_metrics(t[rows], errors[rows])
        return np.stack([by_name[name] for name in values])

    draws = resample_for_intervals(t.size, statistics, rng=rng, n_resamples=n_resamples)
    return {
        name: ValueWithIntervals.of(value, found) for (name, value), found in zip(values.items(), draws, strict=True)
    }


def estimate_means(
    columns: Mapping[str, Values], *, rng: np.random.Generator, n_resamples: int = N_FOR_INTERVALS
) -> dict[str, ValueWithIntervals]:
    """Compute means of columns of the same objects, with their bootstrap intervals.

    Columns are (object,), finite, with at least one object. The draws depend on their order: sort the objects first.
    """
    for name, values in columns.items():
        check_finite(values, name)
    table = np.stack(list(columns.values()))

    draws = resample_for_intervals(
        table.shape[1], lambda rows: table[:, rows].mean(axis=-1), rng=rng, n_resamples=n_resamples
    )
    means = table.mean(axis=1).tolist()
    return {name: ValueWithIntervals.of(mean, found) for name, mean, found in zip(columns, means, draws, strict=True)}

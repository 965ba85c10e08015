"""Metrics of a regression: RMSE, NMAD, bias, R² and outlier fractions, as Wu & Boada (2019) define them.

Means are exact sums, rounded once, so that the order of objects changes no bit of any metric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from modeling.evaluation.column_checks import Values, check_columns
from schemas.errors import ContractError

NMAD_FACTOR = 1.4826
"""Makes the median absolute deviation of a normal distribution equal to its standard deviation."""
OUTLIER_NMAD = 3.0
"""Limit of an outlier in NMADs; 0.27 % of a normal distribution lie beyond it."""
OUTLIER_DEX = 0.3
"""Limit of an outlier in dex: a factor of two in abundance (10^0.3 = 2.0). No survey prescribes a number of dex."""
BIN_DEX = 0.1
"""Width of the bins of the true value in the upper panel of Wu & Boada (2019), figure 3."""


def nmad(values: ArrayLike) -> float:
    """Return the normalised median absolute deviation, 1.4826 median |x - median x| (Wu & Boada 2019, section 4.1).

    NaN if one of the values, (n,), is NaN, or for n = 0.

    Examples
    --------
    >>> nmad([1, 2, 3, 4, 100])
    1.4826
    """
    x = np.asarray(values, dtype=np.float64)
    return float(centre_and_nmad(x)[1]) if x.size else math.nan


def centre_and_nmad(values: Values) -> tuple[Values, Values]:
    """Return the median and the NMAD along the last axis."""
    centre = np.median(values, axis=-1, keepdims=True)
    return centre[..., 0], NMAD_FACTOR * np.median(np.abs(values - centre), axis=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """Metrics of predictions. Errors are predicted - true, in the unit of the label (dex)."""

    n: int
    rmse: float
    nmad: float
    bias: float
    """Mean error."""
    r2: float
    """Explained share of the variance of the true values; NaN if they do not vary."""

    @classmethod
    def of(cls, true: ArrayLike, predicted: ArrayLike) -> Regression:
        """Compare predictions with true values, (object,) each, finite; at least one object.

        Examples
        --------
        >>> Regression.of([1, 2, 3], [1, 2, 6])
        Regression(n=3, rmse=1.732..., nmad=0.0, bias=1.0, r2=-3.5)
        """
        t, p = check_columns(true=true, predicted=predicted)
        if t.size == 0:
            raise ValueError("0 objects: metrics need at least 1")
        error = p - t
        variance = exact_mean((t - exact_mean(t)) ** 2)
        mean_square = exact_mean(error**2)
        return cls(
            n=t.size,
            rmse=math.sqrt(mean_square),
            nmad=nmad(error),
            bias=exact_mean(error),
            r2=1 - mean_square / variance if variance > 0 else math.nan,
        )


def exact_mean(values: Values) -> float:
    """Return the mean of finite values, (n,), by an exact sum: the same bits in any order. A million values take 0.1 s.

    Examples
    --------
    >>> exact_mean(np.array([1e16, 1.0, -1e16, 3.0]))
    1.0
    """
    return math.fsum(values.tolist()) / values.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Outlier fractions, 0 ... 1, by a limit relative to the scatter and by a fixed one.

    Work on photometric redshifts quotes this pair: beyond three scatters, and beyond a fixed error (there
    0.15 (1 + z), as in Salvato et al. 2019).
    """

    beyond_3_nmad: float
    """|error - median error| > 3 NMAD; if the NMAD is 0, every value that differs from the median."""
    beyond_0p3_dex: float
    """|error| > 0.3 dex."""

    @classmethod
    def of(cls, errors: Values) -> Outliers:
        """Count the outliers of errors, (object,), at least one, finite."""
        far = np.abs(errors - np.median(errors)) > OUTLIER_NMAD * nmad(errors)
        return cls(
            beyond_3_nmad=np.count_nonzero(far) / errors.size,
            beyond_0p3_dex=np.count_nonzero(np.abs(errors) > OUTLIER_DEX) / errors.size,
        )


def resampled_metrics(true: Values, errors: Values) -> dict[str, Values]:
    """Compute all metrics of many resamples (resample, object) at once, by name, (resample,) each."""
    mean_square = np.mean(errors**2, axis=-1)
    variance = np.var(true, axis=-1)
    centre, scatter = centre_and_nmad(errors)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(variance > 0, 1 - mean_square / variance, np.nan)
    far = np.abs(errors - centre[..., np.newaxis]) > OUTLIER_NMAD * scatter[..., np.newaxis]
    return {
        "rmse": np.sqrt(mean_square),
        "nmad": scatter,
        "bias": np.mean(errors, axis=-1),
        "r2": r2,
        "beyond_3_nmad": np.mean(far, axis=-1),
        "beyond_0p3_dex": np.mean(np.abs(errors) > OUTLIER_DEX, axis=-1),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class BinMetrics:
    """Metrics of the objects whose true value is in [low, high), in the unit of the label (dex)."""

    low: float
    high: float
    n: int
    rmse: float
    nmad: float
    bias: float


def metrics_by_bin(true: ArrayLike, predicted: ArrayLike, width: float = BIN_DEX) -> tuple[BinMetrics, ...]:
    """Compute metrics in bins of the true value that hold objects, from low to high.

    Parameters
    ----------
    true, predicted
        (object,) each, finite.
    width
        Width of a bin, in the unit of the label. Edges are whole multiples of it; a value on an edge, to a billionth
        of the width, counts to the bin above.

    Examples
    --------
    >>> [(found.low, found.n) for found in metrics_by_bin([8.7, 8.79, 8.8], [8.7, 8.7, 8.7])]
    [(8.7, 2), (8.8, 1)]
    """
    t, p = check_columns(true=true, predicted=predicted)
    if not 0 < width < np.inf:
        raise ContractError(f"width of the bins is {width}; give a positive number, as 0.1 (dex)")
    with np.errstate(over="ignore"):
        place = np.floor(t / width + 1e-9)
    if t.size and np.abs(place).max() > 2**53:
        raise ContractError(f"width of the bins is {width}, too small for values of {t.max():g}: give more")
    found = []
    for number in np.unique(place).tolist():
        chosen = place == number
        m = Regression.of(t[chosen], p[chosen])
        # 12 digits: an edge is 8.7 and not 8.700000000000001
        low, high = (float(f"{edge * width:.12g}") for edge in (number, number + 1))
        found.append(BinMetrics(low=low, high=high, n=m.n, rmse=m.rmse, nmad=m.nmad, bias=m.bias))
    return tuple(found)

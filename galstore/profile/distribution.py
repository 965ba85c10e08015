"""Distribution of the values of one column, in a size that does not grow with their number.

Values are counted in bins whose edges grow by 0.05 % (DDSketch: Masson, Rim & Lee 2019, VLDB 12, 2195). The edges are
the same for all columns and pages. Distributions of pages therefore add up exactly, in any order, and the relative
error of a quantile is at most 0.025 %. Two decades of values take 74 kB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

GROWTH = 1.0005
"""Ratio of neighbouring bin edges: 0.009 mag at 18 mag, 4 mdex at 12 + log(O/H) = 8.9."""
SMALLEST = 1e-9
"""Values closer to zero count as zero."""

_LOG_GROWTH = math.log(GROWTH)

Integers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def _empty() -> Integers:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Distribution:
    """Counts of the values of a column; add distributions of pages with `+`, starting from `Distribution()`.

    Examples
    --------
    >>> both = Distribution.of([1.0, 2.0]) + Distribution.of([3.0, float("nan")])
    >>> both.n, both.n_null, both.low, both.high, round(both.quantile(0.5), 2)
    (3, 1, 1.0, 3.0, 2.0)
    """

    keys: Integers = field(default_factory=_empty)
    """Numbers of the bins that are not empty, ascending: 0 holds zero, -k mirrors k; shape (bin,)."""
    counts: Integers = field(default_factory=_empty)
    """Number of values per bin, shape (bin,)."""
    n_null: int = 0
    """Number of NaN and infinite values, which are not binned."""
    low: float = math.inf
    high: float = -math.inf

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Distribution:
        """Count values of any shape; NaN and infinities are nulls."""
        flat = np.asarray(values, dtype=np.float64).reshape(-1)
        finite = flat[np.isfinite(flat)]
        if not finite.size:
            return cls(n_null=flat.size)
        keys, counts = np.unique(_keys(finite), return_counts=True)
        low, high = float(finite.min()), float(finite.max())
        return cls(keys=keys, counts=counts.astype(np.int64), n_null=flat.size - finite.size, low=low, high=high)

    def __add__(self, other: Distribution) -> Distribution:
        keys, position = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        counts = np.zeros(keys.size, dtype=np.int64)
        np.add.at(counts, position, np.concatenate([self.counts, other.counts]))
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Distribution(keys=keys, counts=counts, n_null=self.n_null + other.n_null, low=low, high=high)

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def null_share(self) -> float:
        """Fraction of nulls among all values; NaN without values."""
        n_all = self.n + self.n_null
        return self.n_null / n_all if n_all else math.nan

    def quantile(self, share: float) -> float:
        """Return the quantile at a fraction 0 ... 1, with a relative error of 0.025 %; NaN without values."""
        if not self.n:
            return math.nan
        position = int(np.searchsorted(np.cumsum(self.counts), share * self.n))
        key = self.keys[min(position, self.keys.size - 1)]
        return float(np.clip(_edges(np.array([key])).mean(), self.low, self.high))

    def histogram(self, edges: npt.ArrayLike) -> Values:
        """Count the values between neighbouring edges, shape (edge - 1,).

        A bin that an edge cuts is split in proportion to its width. Values outside the edges are not counted.
        """
        limits = np.asarray(edges, dtype=np.float64)
        if not self.n:
            return np.zeros(limits.size - 1)
        bounds = np.clip(_edges(self.keys), self.low, self.high)
        # equal values in a bin of zero width belong to the right of an edge that equals them
        below = np.concatenate([[0], np.cumsum(self.counts)])
        width = np.maximum(bounds[:, 1] - bounds[:, 0], 1e-300)
        bin_ = np.searchsorted(bounds[:, 1], limits, side="left")
        inside = np.minimum(bin_, self.keys.size - 1)
        share = np.clip((limits - bounds[inside, 0]) / width[inside], 0, 1)
        cumulative = np.where(bin_ == self.keys.size, self.n, below[inside] + share * self.counts[inside])
        # as in numpy, the last bin includes its upper edge
        if limits[-1] >= self.high:
            cumulative[-1] = self.n
        return np.diff(cumulative)


def _keys(values: Values) -> Integers:
    size = np.abs(values)
    with np.errstate(divide="ignore"):
        key = np.floor(np.log(np.maximum(size, SMALLEST) / SMALLEST) / _LOG_GROWTH).astype(np.int64) + 1
    return np.where(size < SMALLEST, 0, np.where(values < 0, -key, key))


def _edges(keys: Integers) -> Values:
    """Return the lower and upper edges of bins, shape (bin, 2)."""
    size = np.abs(keys)
    inner, outer = (SMALLEST * np.exp((size + step) * _LOG_GROWTH) for step in (-1, 0))
    inner, outer = np.where(size == 0, 0.0, inner), np.where(size == 0, 0.0, outer)
    return np.stack([np.where(keys < 0, -outer, inner), np.where(keys < 0, -inner, outer)], axis=1)

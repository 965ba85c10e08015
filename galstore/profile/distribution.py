"""Distribution: how the values of one column spread, in a size that does not grow with their number.

Values are counted in bins whose edges grow by 0.05 % (DDSketch: Masson, Rim & Lee 2019, VLDB 12, 2195). The edges are
the same for every column and every page, so that distributions of pages add up to exactly that of the whole, in any
order, and a quantile is wrong by 0.025 % of its own value at most. Two decades of values take 74 kB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

GROWTH = 1.0005
"""Ratio of a bin's edges: 0.009 mag at 18 mag, 4 mdex at 12 + log(O/H) = 8.9."""
SMALLEST = 1e-9
"""What is closer to zero counts as zero."""

_LOG_GROWTH = math.log(GROWTH)

Integers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def _nothing() -> Integers:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Distribution:
    """Counts of a column's values; distributions of pages add up with `+`, the zero is `Distribution()`.

    Examples
    --------
    >>> both = Distribution.of([1.0, 2.0]) + Distribution.of([3.0, float("nan")])
    >>> both.n, both.n_null, both.low, both.high, round(both.quantile(0.5), 2)
    (3, 1, 1.0, 3.0, 2.0)
    """

    keys: Integers = field(default_factory=_nothing)
    """(bin,) ascending; 0 = zero, -k the mirror image of k. Only bins that hold something."""
    counts: Integers = field(default_factory=_nothing)
    """(bin,) values in each."""
    n_null: int = 0
    """Values that are NaN or infinite; they are in no bin."""
    low: float = math.inf
    """The smallest value, as it is; infinity where there is none."""
    high: float = -math.inf
    """The largest value."""

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Distribution:
        """Count values of any shape; NaN and infinities are nulls."""
        given = np.asarray(values, dtype=np.float64).reshape(-1)
        finite = given[np.isfinite(given)]
        if not finite.size:
            return cls(n_null=given.size)
        keys, counts = np.unique(_keys(finite), return_counts=True)
        return cls(
            keys=keys,
            counts=counts.astype(np.int64),
            n_null=given.size - finite.size,
            low=float(finite.min()),
            high=float(finite.max()),
        )

    def __add__(self, other: Distribution) -> Distribution:
        keys, place = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        counts = np.zeros(keys.size, dtype=np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return Distribution(
            keys=keys,
            counts=counts,
            n_null=self.n_null + other.n_null,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
        )

    @property
    def n(self) -> int:
        """Values that are not null."""
        return int(self.counts.sum())

    @property
    def null_share(self) -> float:
        """Nulls among all values, 0 ... 1; NaN where there are no values at all."""
        n_all = self.n + self.n_null
        return self.n_null / n_all if n_all else math.nan

    def quantile(self, share: float) -> float:
        """The value below which this share (0 ... 1) of the values lies, good to 0.025 %; NaN where there are none."""
        if not self.n:
            return math.nan
        place = int(np.searchsorted(np.cumsum(self.counts), share * self.n))
        key = self.keys[min(place, self.keys.size - 1)]
        return float(np.clip(_edges(np.array([key])).mean(), self.low, self.high))

    def histogram(self, edges: npt.ArrayLike) -> Values:
        """Values between neighbouring edges, shape (edge - 1,): a bin that an edge cuts is shared out by its width.

        Values outside the edges are not counted.
        """
        wanted = np.asarray(edges, dtype=np.float64)
        if not self.n:
            return np.zeros(wanted.size - 1)
        bounds = np.clip(_edges(self.keys), self.low, self.high)
        # a bin of no width holds equal values: they belong to the right of an edge that they lie on
        below = np.concatenate([[0], np.cumsum(self.counts)])
        width = np.maximum(bounds[:, 1] - bounds[:, 0], 1e-300)
        bin_ = np.searchsorted(bounds[:, 1], wanted, side="left")
        inside = np.minimum(bin_, self.keys.size - 1)
        share = np.clip((wanted - bounds[inside, 0]) / width[inside], 0, 1)
        cumulative = np.where(bin_ == self.keys.size, self.n, below[inside] + share * self.counts[inside])
        # numpy's convention: the last edge belongs to its bin
        if wanted[-1] >= self.high:
            cumulative[-1] = self.n
        return np.diff(cumulative)


def _keys(values: Values) -> Integers:
    size = np.abs(values)
    with np.errstate(divide="ignore"):
        key = np.floor(np.log(np.maximum(size, SMALLEST) / SMALLEST) / _LOG_GROWTH).astype(np.int64) + 1
    return np.where(size < SMALLEST, 0, np.where(values < 0, -key, key))


def _edges(keys: Integers) -> Values:
    """Lower and upper edge of each bin, shape (bin, 2)."""
    size = np.abs(keys)
    inner, outer = (SMALLEST * np.exp((size + step) * _LOG_GROWTH) for step in (-1, 0))
    inner, outer = (np.where(size == 0, 0.0, one) for one in (inner, outer))
    return np.stack([np.where(keys < 0, -outer, inner), np.where(keys < 0, -inner, outer)], axis=1)

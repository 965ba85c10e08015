"""Relation between two quantities: medians in bins, and least-squares slopes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modeling.evaluation.column_checks import Values, check_columns
from schemas.errors import ContractError

MASS_BIN_DEX = 0.2
MIN_PER_BIN = 5
"""Bins with fewer galaxies have no meaningful median."""


class SparseRelationError(ContractError):
    """Too few galaxies for a relation in bins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BinnedRelation:
    """Median of one quantity in bins of another, such as metallicity in bins of mass.

    All columns have shape (bin,), by rising `centre`. Bins of too few galaxies are absent.
    """

    bin_dex: float
    centre: Values
    n: NDArray[np.int64]
    median: Values
    p16: Values
    p84: Values

    @classmethod
    def of(cls, x: ArrayLike, y: ArrayLike, *, bin_dex: float = MASS_BIN_DEX) -> BinnedRelation:
        """Measure the relation between x and y, (object,) each, finite; for example log mass and metallicity.

        Bin edges are multiples of `bin_dex`, and a galaxy on an edge belongs to the bin above.

        Raises
        ------
        SparseRelationError
            No bin holds enough galaxies.
        """
        x, y = check_columns(x=x, y=y)
        if x.size == 0:
            raise SparseRelationError("0 galaxies: a relation needs galaxies with finite values")
        # sums of binary fractions stay below their edge by a few units of the last place
        place = np.floor(x / bin_dex + 1e-9).astype(np.int64)
        order = np.argsort(place, kind="stable")
        bins, starts = np.unique(place[order], return_index=True)
        groups = zip(bins, np.split(y[order], starts[1:]), strict=True)
        full = [(bin_, part) for bin_, part in groups if len(part) >= MIN_PER_BIN]
        if not full:
            raise SparseRelationError(
                f"{x.size} galaxies, and no bin of {bin_dex:g} dex with {MIN_PER_BIN} of them: give more galaxies, or "
                "wider bins"
            )
        low, middle, high = np.array([np.percentile(part, [16, 50, 84]) for _, part in full]).T
        return cls(
            bin_dex=bin_dex,
            centre=np.array([(bin_ + 0.5) * bin_dex for bin_, _ in full]),
            n=np.array([len(part) for _, part in full], dtype=np.int64),
            median=middle,
            p16=low,
            p84=high,
        )

    def at(self, x: ArrayLike) -> Values:
        """Return the running median at x, NaN beyond the outer edges; same shape as x.

        It is linear between the medians of bins, and continued to the outer edges of the outer bins.
        """
        x = np.asarray(x, dtype=np.float64)
        half = self.bin_dex / 2
        first, last = self.centre[0] - half, self.centre[-1] + half
        slopes = np.diff(self.median) / np.diff(self.centre) if len(self.centre) > 1 else np.zeros(1)
        knots = np.concatenate([[first], self.centre, [last]])
        ends = self.median[0] - half * slopes[0], self.median[-1] + half * slopes[-1]
        values = np.concatenate([ends[:1], self.median, ends[1:]])
        inside = (x >= first - 1e-9) & (x <= last + 1e-9)
        return np.where(inside, np.interp(x, knots, values), np.nan)

    def residuals(self, x: ArrayLike, y: ArrayLike) -> Values:
        return np.asarray(y, dtype=np.float64) - self.at(x)


def least_squares_slope(x: ArrayLike, y: ArrayLike) -> float:
    """Return the slope of the least-squares line through (x, y), each (n,); NaN if x does not vary.

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

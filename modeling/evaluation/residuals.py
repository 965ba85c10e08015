"""Residuals: the state of a comparison, which blocks of predictions add to in any cut and any order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modeling.evaluation.metrics import Regression, check_pairs, nmad
from schemas.errors import ContractError

OUTLIER_NMAD = 3.0
"""Far from the median for this scatter; 0.27 % of a normal distribution."""
OUTLIER_DEX = 0.3
"""Wrong by more than a factor of two in abundance (10^0.3 = 2.0). No survey fixes a number of dex."""
BIN_DEX = 0.1
"""Width of the bins of the true value in the upper panel of Wu & Boada (2019), figure 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Shares of objects, 0 ... 1, that are far off, by a limit relative to the scatter and by a fixed one.

    Work on photometric redshifts quotes this pair: beyond three scatters, and beyond a fixed error (there
    0.15 (1 + z), as in Salvato et al. 2019).
    """

    beyond_3_nmad: float
    """|error - median error| > 3 NMAD."""
    beyond_0p3_dex: float
    """|error| > 0.3 dex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BinMetrics:
    """Metrics of the objects whose true value is in [low, high), in the unit of the label (dex)."""

    low: float
    high: float
    n: int
    rmse: float
    nmad: float
    bias: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residuals:
    """True and predicted values of objects that were scored somewhere, in no particular order.

    States add up: `Residuals.zero()` is the zero, and any cut into blocks and any order of `+` gives bit-identical
    metrics, since every mean is an exact sum and a median knows no order. The price is memory: 16 bytes an object.
    Each `+` copies both sides: merge a thousand blocks with `Residuals.merge`, which copies once.

    Parameters
    ----------
    true, predicted
        (object,) each, in the unit of the label, finite. They are copied.

    Raises
    ------
    ValueError
        Different lengths, or values that are not finite.

    Examples
    --------
    >>> (Residuals.of([8.5, 8.7], [8.6, 8.7]) + Residuals.of([9.0], [8.8])).n
    3
    """

    true: NDArray[np.float64]
    predicted: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name, values in zip(("true", "predicted"), check_pairs(self.true, self.predicted), strict=True):
            # + 0.0 is a copy without -0.0, which a median could return in one order and not in another
            own = values + 0.0
            own.flags.writeable = False
            object.__setattr__(self, name, own)

    @classmethod
    def of(cls, true: ArrayLike, predicted: ArrayLike) -> Residuals:
        """State of one block; see the class."""
        return cls(true=np.asarray(true, dtype=np.float64), predicted=np.asarray(predicted, dtype=np.float64))

    @classmethod
    def zero(cls) -> Residuals:
        """Of no objects."""
        return cls(true=np.empty(0), predicted=np.empty(0))

    @classmethod
    def merge(cls, parts: Iterable[Residuals]) -> Residuals:
        """Sum of many states, in one copy; the zero where there are none."""
        states = [cls.zero(), *parts]
        return cls(
            true=np.concatenate([state.true for state in states]),
            predicted=np.concatenate([state.predicted for state in states]),
        )

    def __add__(self, other: Residuals) -> Residuals:
        return Residuals.merge((self, other))

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same pairs, each as often; their order does not matter."""
        if not isinstance(other, Residuals):
            return NotImplemented
        one, two = self.ordered(), other.ordered()
        return np.array_equal(one.true, two.true) and np.array_equal(one.predicted, two.predicted)

    __hash__ = None  # type: ignore[assignment]

    @property
    def n(self) -> int:
        """Objects."""
        return int(self.true.size)

    @property
    def errors(self) -> NDArray[np.float64]:
        """(object,) predicted - true."""
        return self.predicted - self.true

    def ordered(self) -> Residuals:
        """The same pairs, sorted by true value, then by predicted value."""
        order = np.lexsort((self.predicted, self.true))
        return Residuals(true=self.true[order], predicted=self.predicted[order])

    def regression(self) -> Regression:
        """Metrics of all objects.

        Raises
        ------
        ValueError
            There are no objects.
        """
        return Regression.of(self.true, self.predicted)

    def outliers(self) -> Outliers:
        """Shares of objects that are far off; NaN where there are none.

        Where the NMAD is 0, whatever differs from the median is beyond it.
        """
        if not self.n:
            return Outliers(beyond_3_nmad=np.nan, beyond_0p3_dex=np.nan)
        errors = self.errors
        far = np.abs(errors - np.median(errors)) > OUTLIER_NMAD * nmad(errors)
        return Outliers(
            beyond_3_nmad=np.count_nonzero(far) / self.n,
            beyond_0p3_dex=np.count_nonzero(np.abs(errors) > OUTLIER_DEX) / self.n,
        )

    def bins(self, width: float = BIN_DEX) -> tuple[BinMetrics, ...]:
        """Metrics in bins of the true value.

        Parameters
        ----------
        width
            Of a bin, in the unit of the label. Edges are whole multiples of it; a value on an edge, to a billionth
            of the width, counts to the bin above.

        Returns
        -------
        tuple of BinMetrics
            Bins that hold objects, from low to high.

        Raises
        ------
        ContractError
            `width` is not a positive number, or so small that bins cannot be told apart.

        Examples
        --------
        >>> [(one.low, one.n) for one in Residuals.of([8.7, 8.79, 8.8], [8.7, 8.7, 8.7]).bins()]
        [(8.7, 2), (8.8, 1)]
        """
        if not 0 < width < np.inf:
            raise ContractError(f"width of the bins is {width}; give a positive number, as 0.1 (dex)")
        with np.errstate(over="ignore"):
            place = np.floor(self.true / width + 1e-9)
        if self.n and np.abs(place).max() > 2**53:
            raise ContractError(f"width of the bins is {width}, too small for values of {self.true.max():g}: give more")
        found = []
        for number in np.unique(place).tolist():
            chosen = place == number
            metrics = Regression.of(self.true[chosen], self.predicted[chosen])
            found.append(
                BinMetrics(
                    # 12 digits: an edge is 8.7 and not 8.700000000000001
                    low=float(f"{number * width:.12g}"),
                    high=float(f"{(number + 1) * width:.12g}"),
                    n=metrics.n,
                    rmse=metrics.rmse,
                    nmad=metrics.nmad,
                    bias=metrics.bias,
                )
            )
        return tuple(found)

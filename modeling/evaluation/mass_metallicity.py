"""Stellar mass and metallicity: the relation between them, its scatter, and how predictions flatten it.

Masses are log10(M / solar mass), metallicities 12 + log(O/H), both in dex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modeling.evaluation.bootstrap import Measured, Values, estimate, least_squares_slope, paired_columns
from modeling.evaluation.metrics import nmad
from schemas.errors import ContractError

TREMONTI_RANGE = (8.5, 11.5)
"""log masses between which Tremonti et al. (2004) fitted their relation."""

MASS_BIN_DEX = 0.2
MIN_PER_BIN = 5
"""A median of fewer galaxies says nothing."""

PIVOT_LOG_MASS = 10.0
"""Where low masses end and high ones begin; the sample's median is 10.06."""


class SparseRelationError(ContractError):
    """Too few galaxies for a relation in bins."""


def tremonti_metallicity(log_mass: ArrayLike) -> Values:
    """12 + log(O/H) = -1.492 + 1.847 log M - 0.08026 (log M)^2 (Tremonti et al. 2004, equation 3).

    Parameters
    ----------
    log_mass
        Of any shape.

    Returns
    -------
    ndarray
        Of that shape; NaN outside 8.5 < log M < 11.5, where the relation was not fitted, and for NaN.

    Examples
    --------
    >>> tremonti_metallicity([8.0, 10.0]).round(3).tolist()
    [nan, 8.952]
    """
    mass = np.asarray(log_mass, dtype=np.float64)
    low, high = TREMONTI_RANGE
    return np.where((mass > low) & (mass < high), -1.492 + 1.847 * mass - 0.08026 * mass**2, np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class BinnedRelation:
    """Median of one quantity in bins of another, as the mass-metallicity relation; bins of too few galaxies are absent.

    All columns have shape (bin,), by rising `centre`.
    """

    bin_dex: float
    centre: Values
    n: NDArray[np.int64]
    median: Values
    p16: Values
    p84: Values

    @classmethod
    def of(
        cls, x: ArrayLike, y: ArrayLike, *, bin_dex: float = MASS_BIN_DEX, min_per_bin: int = MIN_PER_BIN
    ) -> BinnedRelation:
        """Measure the relation of some galaxies.

        Parameters
        ----------
        x, y
            (object,) each, finite; as log mass and metallicity.
        bin_dex
            Width in x; edges are its multiples, and a galaxy on an edge belongs to the bin above.
        min_per_bin
            Bins of fewer galaxies are left out.

        Raises
        ------
        ValueError
            Lengths differ, or values are not finite.
        SparseRelationError
            No bin holds enough galaxies.
        """
        x, y = paired_columns(x=x, y=y)
        if x.size == 0:
            raise SparseRelationError("0 galaxies: a relation needs some with finite values")
        # sums of binary fractions stay below their edge by a few units of the last place
        place = np.floor(x / bin_dex + 1e-9).astype(np.int64)
        order = np.argsort(place, kind="stable")
        bins, starts = np.unique(place[order], return_index=True)
        groups = [(bin_, part) for bin_, part in zip(bins, np.split(y[order], starts[1:]), strict=True)]
        full = [(bin_, part) for bin_, part in groups if len(part) >= min_per_bin]
        if not full:
            raise SparseRelationError(
                f"{x.size} galaxies, and no bin of {bin_dex:g} dex with {min_per_bin} of them: give more galaxies, or "
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
        """Running median: straight lines between the bins' medians, carried on to the outer edges of the outer bins.

        Parameters
        ----------
        x
            Of any shape.

        Returns
        -------
        ndarray
            Of that shape; NaN beyond the outer edges, where no bin holds enough galaxies.
        """
        x = np.asarray(x, dtype=np.float64)
        half = self.bin_dex / 2
        first, last = self.centre[0] - half, self.centre[-1] + half
        slopes = np.diff(self.median) / np.diff(self.centre) if len(self.centre) > 1 else np.zeros(1)
        knots = np.concatenate([[first], self.centre, [last]])
        values = np.concatenate(
            [[self.median[0] - half * slopes[0]], self.median, [self.median[-1] + half * slopes[-1]]]
        )
        inside = (x >= first - 1e-9) & (x <= last + 1e-9)
        return np.where(inside, np.interp(x, knots, values), np.nan)

    def residuals(self, x: ArrayLike, y: ArrayLike) -> Values:
        """How far y lies above the running median at x; NaN where there is none."""
        return np.asarray(y, dtype=np.float64) - self.at(x)


def metallicity_from_mass(log_mass: ArrayLike, relation: BinnedRelation | None = None) -> Values:
    """Metallicity that a mass stands for, as for a predicted mass (Wu & Boada 2019, Figure 5).

    Parameters
    ----------
    log_mass
        Of any shape.
    relation
        Whose running median is read; by default the relation of Tremonti et al. (2004).

    Returns
    -------
    ndarray
        Of that shape; NaN outside the relation.
    """
    return tremonti_metallicity(log_mass) if relation is None else relation.at(log_mass)


@dataclass(frozen=True, slots=True, kw_only=True)
class MzrScatter:
    """Scatter of metallicity at fixed mass: NMAD of the residuals from the running median, each set from its own."""

    n: int
    """Galaxies in bins that hold enough of them."""
    true: Measured
    predicted: Measured
    ratio: Measured
    """predicted / true; below 1 where predictions follow mass more closely than the truth does."""
    centre: Values
    """(bin,): of the bins of mass."""
    ratio_by_bin: Values
    """(bin,): ratio of the NMADs within each bin."""


def measure_mzr_scatter(
    log_mass: ArrayLike, true: ArrayLike, predicted: ArrayLike, *, bin_dex: float = MASS_BIN_DEX, seed: int = 0
) -> MzrScatter:
    """Scatter of the true and of the predicted mass-metallicity relation, and their ratio (Wu & Boada 2019, section 5).

    The running median is interpolated between bins of mass, so that the slope within a bin is no scatter; it is
    measured anew in each resample of the bootstrap.

    Parameters
    ----------
    log_mass, true, predicted
        (object,) each, finite.
    bin_dex
        Width of the bins of mass.
    seed
        Of the bootstrap.

    Raises
    ------
    ValueError
        Lengths differ, or values are not finite.
    SparseRelationError
        No bin holds enough galaxies.
    """
    mass, true, predicted = paired_columns(log_mass=log_mass, true=true, predicted=predicted)
    relation = BinnedRelation.of(mass, true, bin_dex=bin_dex)
    inside = np.isfinite(relation.at(mass))

    def scatters(mass: Values, true: Values, predicted: Values) -> list[float]:
        try:
            of_true, of_predicted = (_scatter(mass, values, bin_dex) for values in (true, predicted))
        except SparseRelationError:  # a resample of very few galaxies: the error is then NaN
            return [float("nan")] * 3
        return [of_true, of_predicted, of_predicted / of_true if of_true > 0 else float("nan")]

    of_true, of_predicted, ratio = estimate(scatters, mass[inside], true[inside], predicted[inside], seed=seed)
    by_bin = []
    place = np.floor(mass / bin_dex + 1e-9)
    own = [BinnedRelation.of(mass, values, bin_dex=bin_dex).residuals(mass, values) for values in (true, predicted)]
    for centre in relation.centre:
        chosen = place == np.floor(centre / bin_dex)
        below = nmad(own[0][chosen])
        by_bin.append(nmad(own[1][chosen]) / below if below > 0 else float("nan"))
    return MzrScatter(
        n=int(np.count_nonzero(inside)),
        true=of_true,
        predicted=of_predicted,
        ratio=ratio,
        centre=relation.centre,
        ratio_by_bin=np.array(by_bin),
    )


def _scatter(mass: Values, metallicity: Values, bin_dex: float) -> float:
    residual = BinnedRelation.of(mass, metallicity, bin_dex=bin_dex).residuals(mass, metallicity)
    return nmad(residual[np.isfinite(residual)])


@dataclass(frozen=True, slots=True, kw_only=True)
class MassSlopes:
    """Least-squares slopes of metallicity against log mass, on one side of a pivot."""

    n: int
    true: Measured
    predicted: Measured
    change: Measured
    """predicted - true: negative where predictions rise less with mass."""


def measure_flattening(true: ArrayLike, predicted: ArrayLike, *, seed: int = 0) -> Measured:
    """Least-squares slope of predicted against true; below 1 where predictions lean to the mean.

    Wu & Boada (2019, section 4.2) see it as too high predictions of low metallicities, and too low ones of high ones.

    Parameters
    ----------
    true, predicted
        (object,) each, finite.
    seed
        Of the bootstrap.

    Raises
    ------
    ValueError
        Lengths differ, or values are not finite.
    """
    true, predicted = paired_columns(true=true, predicted=predicted)
    [slope] = estimate(lambda t, p: [least_squares_slope(t, p)], true, predicted, seed=seed)
    return slope


def measure_mass_slopes(
    log_mass: ArrayLike, true: ArrayLike, predicted: ArrayLike, *, pivot: float = PIVOT_LOG_MASS, seed: int = 0
) -> dict[str, MassSlopes]:
    """Slopes of the true and the predicted mass-metallicity relation at low and at high masses.

    Parameters
    ----------
    log_mass, true, predicted
        (object,) each, finite.
    pivot
        log mass at which 'high' begins.
    seed
        Of the bootstrap.

    Returns
    -------
    dict
        'low' and 'high'; a side with fewer than 5 galaxies is absent.

    Raises
    ------
    ValueError
        Lengths differ, or values are not finite.
    """
    mass, true, predicted = paired_columns(log_mass=log_mass, true=true, predicted=predicted)

    def slopes(mass: Values, true: Values, predicted: Values) -> list[float]:
        of_true, of_predicted = least_squares_slope(mass, true), least_squares_slope(mass, predicted)
        return [of_true, of_predicted, of_predicted - of_true]

    found = {}
    for side, chosen in (("low", mass < pivot), ("high", mass >= pivot)):
        n = int(np.count_nonzero(chosen))
        if n >= MIN_PER_BIN:
            of_true, of_predicted, change = estimate(slopes, mass[chosen], true[chosen], predicted[chosen], seed=seed)
            found[side] = MassSlopes(n=n, true=of_true, predicted=of_predicted, change=change)
    return found

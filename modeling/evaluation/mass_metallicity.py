"""Mass-metallicity relation: its scatter, and its flattening in predictions.

Masses are log10(M / solar mass), metallicities 12 + log(O/H), both in dex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from modeling.evaluation.binned_relation import (
    MASS_BIN_DEX,
    MIN_PER_BIN,
    BinnedRelation,
    SparseRelationError,
    least_squares_slope,
)
from modeling.evaluation.bootstrap import ValueWithError, estimate_errors
from modeling.evaluation.column_checks import Values, check_columns
from modeling.evaluation.metrics import nmad

TREMONTI_RANGE = (8.5, 11.5)
"""log masses between which Tremonti et al. (2004) fitted their relation."""
PIVOT_LOG_MASS = 10.0
"""Limit between low and high masses; the sample's median is 10.06."""


def tremonti_metallicity(log_mass: ArrayLike) -> Values:
    """Return 12 + log(O/H) = -1.492 + 1.847 log M - 0.08026 (log M)^2 (Tremonti et al. 2004, equation 3).

    NaN for NaN and outside 8.5 < log M < 11.5, the range of the fit; same shape as `log_mass`.

    Examples
    --------
    >>> tremonti_metallicity([8.0, 10.0]).round(3).tolist()
    [nan, 8.952]
    """
    mass = np.asarray(log_mass, dtype=np.float64)
    low, high = TREMONTI_RANGE
    return np.where((mass > low) & (mass < high), -1.492 + 1.847 * mass - 0.08026 * mass**2, np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class MzrScatter:
    """Scatter of metallicity at fixed mass: NMAD of residuals from the running median."""

    n: int
    """Number of galaxies in bins of enough galaxies."""
    true: ValueWithError
    predicted: ValueWithError
    ratio: ValueWithError
    """predicted / true; below 1 if predictions follow mass more closely than the true values do."""
    centre: Values
    """(bin,) Centres of the bins of mass."""
    ratio_by_bin: Values
    """(bin,) Ratio of the NMADs within each bin."""


def measure_mzr_scatter(log_mass: ArrayLike, true: ArrayLike, predicted: ArrayLike, *, seed: int = 0) -> MzrScatter:
    """Measure the scatter of the true and the predicted relation, and their ratio (Wu & Boada 2019, section 5).

    The running median is interpolated between bins of mass, so that the slope within a bin adds no scatter. Each
    resample of the bootstrap has a new running median. Columns are (object,), finite.

    Raises
    ------
    SparseRelationError
        No bin holds enough galaxies.
    """
    mass, true, predicted = check_columns(log_mass=log_mass, true=true, predicted=predicted)
    relation = BinnedRelation.of(mass, true)
    inside = np.isfinite(relation.at(mass))

    def scatters(mass: Values, true: Values, predicted: Values) -> list[float]:
        try:
            of_true, of_predicted = (_scatter(mass, values) for values in (true, predicted))
        except SparseRelationError:  # a resample of very few galaxies: the error is then NaN
            return [float("nan")] * 3
        return [of_true, of_predicted, of_predicted / of_true if of_true > 0 else float("nan")]

    of_true, of_predicted, ratio = estimate_errors(scatters, mass[inside], true[inside], predicted[inside], seed=seed)
    by_bin = []
    place = np.floor(mass / MASS_BIN_DEX + 1e-9)
    residuals = [BinnedRelation.of(mass, values).residuals(mass, values) for values in (true, predicted)]
    for centre in relation.centre:
        chosen = place == np.floor(centre / MASS_BIN_DEX)
        true_nmad = nmad(residuals[0][chosen])
        by_bin.append(nmad(residuals[1][chosen]) / true_nmad if true_nmad > 0 else float("nan"))
    return MzrScatter(
        n=int(np.count_nonzero(inside)),
        true=of_true,
        predicted=of_predicted,
        ratio=ratio,
        centre=relation.centre,
        ratio_by_bin=np.array(by_bin),
    )


def _scatter(mass: Values, metallicity: Values) -> float:
    residual = BinnedRelation.of(mass, metallicity).residuals(mass, metallicity)
    return nmad(residual[np.isfinite(residual)])


@dataclass(frozen=True, slots=True, kw_only=True)
class MassSlopes:
    """Least-squares slopes of metallicity against log mass, on one side of a pivot."""

    n: int
    true: ValueWithError
    predicted: ValueWithError
    change: ValueWithError
    """predicted - true: negative if predictions rise less with mass."""


def measure_flattening(true: ArrayLike, predicted: ArrayLike, *, seed: int = 0) -> ValueWithError:
    """Measure the least-squares slope of predicted against true, (object,); below 1 if biased to the mean.

    Wu & Boada (2019, section 4.2) describe it as too high predictions of low metallicities, and too low ones of high.
    """
    true, predicted = check_columns(true=true, predicted=predicted)
    [slope] = estimate_errors(lambda t, p: [least_squares_slope(t, p)], true, predicted, seed=seed)
    return slope


def measure_mass_slopes(
    log_mass: ArrayLike, true: ArrayLike, predicted: ArrayLike, *, seed: int = 0
) -> dict[str, MassSlopes]:
    """Measure slopes of the true and the predicted mass-metallicity relation at low and at high masses.

    Columns are (object,), finite. The result has 'low' and 'high'; a side with fewer than 5 galaxies is absent.
    """
    mass, true, predicted = check_columns(log_mass=log_mass, true=true, predicted=predicted)

    def slopes(mass: Values, true: Values, predicted: Values) -> list[float]:
        of_true, of_predicted = least_squares_slope(mass, true), least_squares_slope(mass, predicted)
        return [of_true, of_predicted, of_predicted - of_true]

    found = {}
    for side, chosen in (("low", mass < PIVOT_LOG_MASS), ("high", mass >= PIVOT_LOG_MASS)):
        n = int(np.count_nonzero(chosen))
        if n >= MIN_PER_BIN:
            columns = (mass[chosen], true[chosen], predicted[chosen])
            of_true, of_predicted, change = estimate_errors(slopes, *columns, seed=seed)
            found[side] = MassSlopes(n=n, true=of_true, predicted=of_predicted, change=change)
    return found

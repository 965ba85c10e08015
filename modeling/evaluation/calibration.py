"""Uncertainty: whether a predictor's own error bars are true, and error bars for one that has none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from modeling.evaluation.metrics import check_finite, check_pairs, exact_mean
from schemas.errors import TrainingError

PERCENTILES = (2.5, 16.0, 50.0, 84.0, 97.5)
"""Of a predictive distribution, in %: the columns that SDSS's galSpec tables give."""
N_PIT_BINS = 10
N_QUANTILES = 200
"""Of the integral over probabilities: the CRPS of a normal distribution is then right to 0.2 % of sigma."""
CONFORMAL_LEVELS = (0.68, 0.95)
MIN_ROWS = 3
"""Validation rows that the narrower of the two needs."""

_FRACTIONS = np.array(PERCENTILES) / 100
_Z = ndtri(_FRACTIONS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """What predictive distributions say about objects' true values, object by object; blocks add up with `+`.

    The zero is `Calibration.zero()`; memory is 18 bytes an object.
    """

    pit: NDArray[np.float64]
    """(object,) Probability integral transform: the predicted probability of a value below the true one. Uniform
    over 0 ... 1 where the distributions are right, high in the middle where they are too wide."""
    crps: NDArray[np.float64]
    """(object,) Continuous ranked probability score, in the unit of the label: an absolute error for distributions."""
    covered_68: NDArray[np.bool_]
    """(object,) Whether the true value is between the 16th and 84th percentile, ends included."""
    covered_95: NDArray[np.bool_]
    """(object,) Between the 2.5th and 97.5th percentile."""

    @classmethod
    def zero(cls) -> Calibration:
        """Of no objects."""
        none, never = np.empty(0), np.empty(0, dtype=np.bool_)
        return cls(pit=none, crps=none, covered_68=never, covered_95=never)

    @classmethod
    def of_gaussian(cls, true: ArrayLike, predicted: ArrayLike, sigma: ArrayLike) -> Calibration:
        """Predictions with a standard deviation, taken as normal distributions.

        Parameters
        ----------
        true, predicted, sigma
            (object,) each, in the unit of the label; finite, sigma above 0.

        Raises
        ------
        ValueError
            Different lengths, values that are not finite, or sigma of 0 or less.

        Notes
        -----
        CRPS = sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z = (true - predicted) / sigma: Gneiting et al.
        (2005), equation 5.
        """
        t, p = check_pairs(true, predicted)
        s = _check_sigma(sigma, t.size)
        z = (t - p) / s
        pit = ndtr(z)
        density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        return cls(
            pit=pit,
            crps=s * (z * (2 * pit - 1) + 2 * density - 1 / np.sqrt(np.pi)),
            covered_68=np.abs(z) <= _Z[3],
            covered_95=np.abs(z) <= _Z[4],
        )

    @classmethod
    def of_percentiles(cls, true: ArrayLike, percentiles: ArrayLike) -> Calibration:
        """Predictions as the 2.5th, 16th, 50th, 84th and 97.5th percentile.

        Parameters
        ----------
        true
            (object,), in the unit of the label, finite.
        percentiles
            (object, 5), finite, never falling along the second axis.

        Raises
        ------
        ValueError
            Another shape, values that are not finite, or percentiles that cross.

        Notes
        -----
        The distribution between percentiles: the normal score of the probability (its inverse normal distribution)
        is linear in the label, and beyond them it goes on along the outermost line. Percentiles of a normal
        distribution thus stand for exactly that, tails included.

        CRPS is twice the integral of the quantile (pinball) loss over all probabilities (Gneiting & Ranjan 2011),
        here the mean over 200 quantiles of this distribution, at probabilities 0.0025, 0.0075, ...
        The five percentiles alone, each with the probability around it as its weight, would come out 7 % low.
        """
        t = np.asarray(true, dtype=np.float64)
        q = np.asarray(percentiles, dtype=np.float64)
        if t.ndim != 1 or q.shape != (t.size, len(PERCENTILES)):
            raise ValueError(
                f"true has shape {t.shape}, percentiles {q.shape}: give (object,) and (object, {len(PERCENTILES)}), "
                f"percentiles {', '.join(f'{one:g}' for one in PERCENTILES)} of each object"
            )
        check_finite(t, "true")
        check_finite(q, "percentiles")
        n_crossed = int(np.count_nonzero((np.diff(q, axis=1) < 0).any(axis=1)))
        if n_crossed:
            raise ValueError(f"percentiles of {n_crossed} of {t.size} objects cross: sort them along the second axis")
        return cls(
            pit=_pit(t, q),
            crps=_crps(t, q),
            covered_68=(q[:, 1] <= t) & (t <= q[:, 3]),
            covered_95=(q[:, 0] <= t) & (t <= q[:, 4]),
        )

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(
            pit=np.concatenate([self.pit, other.pit]),
            crps=np.concatenate([self.crps, other.crps]),
            covered_68=np.concatenate([self.covered_68, other.covered_68]),
            covered_95=np.concatenate([self.covered_95, other.covered_95]),
        )

    @property
    def n(self) -> int:
        """Objects."""
        return int(self.pit.size)

    @property
    def mean_crps(self) -> float:
        """In the unit of the label; the same bits in any order of the objects. NaN where there are none."""
        return exact_mean(self.crps) if self.n else np.nan

    @property
    def coverage_68(self) -> float:
        """Share of objects, 0 ... 1, in their 68 % interval; 0.68 is right. NaN where there are none."""
        return float(np.mean(self.covered_68)) if self.n else np.nan

    @property
    def coverage_95(self) -> float:
        """Share of objects, 0 ... 1, in their 95 % interval; 0.95 is right. NaN where there are none."""
        return float(np.mean(self.covered_95)) if self.n else np.nan

    def pit_counts(self) -> tuple[int, ...]:
        """Objects in each tenth of the PIT; equal numbers are right, a U says that error bars are too small."""
        counts, _ = np.histogram(self.pit, bins=N_PIT_BINS, range=(0.0, 1.0))
        return tuple(counts.tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Conformal:
    """Split-conformal intervals: error bars that cover a chosen share of new objects, whatever the predictor is.

    Their promise holds on average over new objects that are drawn like the validation rows, which the predictor must
    not have been trained on. Fields are plain: `dataclasses.asdict` goes into JSON, `Conformal(**fields)` comes back.

    Examples
    --------
    >>> fitted = Conformal.of(true=[1.0, 2.0, 3.0, 4.0], predicted=[1.1, 1.8, 3.3, 4.4])
    >>> low, high = fitted.interval([5.0], 0.68)
    >>> print(low.round(3), high.round(3))
    [4.6] [5.4]
    """

    n: int
    """Validation rows."""
    by_sigma: bool
    """Whether scores are in units of the predictor's own sigma, and not of the label."""
    score_68: float | None
    """|true - predicted| (/ sigma) that a 68 % interval reaches to either side; None where n is too small."""
    score_95: float | None

    @classmethod
    def of(cls, true: ArrayLike, predicted: ArrayLike, sigma: ArrayLike | None = None) -> Conformal:
        """Learn the intervals from validation rows.

        The half-width is the ceil((n + 1) level)-th smallest score, that is the ceil((n + 1) level) / n quantile
        (Vovk et al. 2005; Angelopoulos & Bates 2021, section 1): intervals cover at least `level` of new objects,
        and at most 1 / (n + 1) more where scores have no ties.

        Parameters
        ----------
        true, predicted
            (object,) each, in the unit of the label, finite. 3 rows are enough for 68 %, 19 for 95 %.
        sigma
            (object,), above 0, same unit: intervals then follow each object's own uncertainty.

        Raises
        ------
        TrainingError
            Fewer rows than an interval of any level needs.
        ValueError
            Different lengths, values that are not finite, or sigma of 0 or less.
        """
        t, p = check_pairs(true, predicted)
        scores = np.abs(t - p)
        if sigma is not None:
            scores = scores / _check_sigma(sigma, t.size)
        scores.sort()
        low, high = (_score_at(scores, level) for level in CONFORMAL_LEVELS)
        if low is None:
            raise _too_few(t.size, CONFORMAL_LEVELS[0])
        return cls(n=t.size, by_sigma=sigma is not None, score_68=low, score_95=high)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Conformal:
        """What `dataclasses.asdict` made, perhaps through JSON."""
        return cls(**fields)

    def interval(
        self, predicted: ArrayLike, level: float, sigma: ArrayLike | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper ends for new objects.

        Parameters
        ----------
        predicted
            (object,), in the unit of the label; where it is NaN, the interval is.
        level
            0.68 or 0.95.
        sigma
            (object,), above 0: exactly where the validation rows had one.

        Returns
        -------
        tuple of two arrays
            (object,) each, in the unit of the label.

        Raises
        ------
        TrainingError
            There were too few validation rows for this level.
        ValueError
            Another level, or a sigma that is missing, uncalled for, of another length, or not above 0.
        """
        if level not in CONFORMAL_LEVELS:
            raise ValueError(f"level is {level}; scores are kept for 0.68 and 0.95: choose one of them")
        score = self.score_68 if level == CONFORMAL_LEVELS[0] else self.score_95
        if score is None:
            raise _too_few(self.n, level)
        if (sigma is not None) != self.by_sigma:
            got, expected = ("a", "without") if sigma is not None else ("no", "with")
            raise ValueError(f"got {got} sigma, but the validation rows came {expected} one: give the same here")
        centre = np.asarray(predicted, dtype=np.float64)
        half = score if sigma is None else score * _check_sigma(sigma, centre.size)
        return centre - half, centre + half


def _score_at(sorted_scores: NDArray[np.float64], level: float) -> float | None:
    rank = _rank(sorted_scores.size, level)
    return float(sorted_scores[rank - 1]) if rank <= sorted_scores.size else None


def _rank(n: int, level: float) -> int:
    # 25 * 0.68 is 17.000000000000004 in binary, and its ceiling 18
    return math.ceil(round((n + 1) * level, 9))


def _too_few(n: int, level: float) -> TrainingError:
    needed = math.ceil(round(level / (1 - level), 9))
    return TrainingError(
        f"{n} validation rows are too few for a {100 * level:.0f} % conformal interval, which needs {needed}: "
        "give more validation rows"
    )


def _pit(true: NDArray[np.float64], percentiles: NDArray[np.float64]) -> NDArray[np.float64]:
    segment = np.clip(np.count_nonzero(percentiles <= true[:, np.newaxis], axis=1) - 1, 0, len(PERCENTILES) - 2)
    rows = np.arange(true.size)
    low, high = percentiles[rows, segment], percentiles[rows, segment + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (true - low) / (high - low)
    # 0 / 0: the true value is at a step of the distribution
    share = np.where(np.isnan(share), 0.5, share)
    return np.asarray(ndtr(_Z[segment] + share * (_Z[segment + 1] - _Z[segment])))


def _crps(true: NDArray[np.float64], percentiles: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros(true.size)
    # one quantile at a time: memory stays at a few values an object
    for probability in (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES:
        score = ndtri(probability)
        segment = int(np.clip(np.searchsorted(_Z, score, side="right") - 1, 0, len(PERCENTILES) - 2))
        share = (score - _Z[segment]) / (_Z[segment + 1] - _Z[segment])
        error = true - (percentiles[:, segment] + share * (percentiles[:, segment + 1] - percentiles[:, segment]))
        total += np.maximum(probability * error, (probability - 1) * error)
    return 2 * total / N_QUANTILES


def _check_sigma(sigma: ArrayLike, n: int) -> NDArray[np.float64]:
    s = np.asarray(sigma, dtype=np.float64)
    if s.shape != (n,):
        raise ValueError(f"sigma has shape {s.shape}, expected is ({n},): give one standard deviation an object")
    check_finite(s, "sigma")
    n_bad = int(np.count_nonzero(s <= 0))
    if n_bad:
        raise ValueError(f"{n_bad} of {n} values of 'sigma' are 0 or less: leave those rows out first")
    return s

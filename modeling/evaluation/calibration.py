"""Calibration of predictive distributions: coverage, probability integral transform and CRPS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from modeling.evaluation.column_checks import Values, check_columns, check_finite, check_sigma

PERCENTILES = (2.5, 16.0, 50.0, 84.0, 97.5)
"""Percentiles that describe a predictive distribution, in %; SDSS's galSpec tables give the same."""
N_PIT_BINS = 10
N_QUANTILES = 200
"""Quantiles in the integral over probabilities: the CRPS of a normal distribution is then right to 0.2 % of sigma."""
_Z = ndtri(np.array(PERCENTILES) / 100)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Calibration of predictive distributions, object by object; 18 bytes an object."""

    pit: Values
    """(object,) Probability integral transform: the predicted probability of a value below the true one. Uniform
    over 0 ... 1 for calibrated distributions, concentrated in the middle if they are too wide."""
    crps: Values
    """(object,) Continuous ranked probability score, in the unit of the label: an absolute error for distributions."""
    covered_68: NDArray[np.bool_]
    """(object,) True if the true value is between the 16th and 84th percentile, ends included."""
    covered_95: NDArray[np.bool_]
    """(object,) True if it is between the 2.5th and 97.5th percentile."""

    @classmethod
    def empty(cls) -> Calibration:
        no_values, no_flags = np.empty(0), np.empty(0, dtype=np.bool_)
        return cls(pit=no_values, crps=no_values, covered_68=no_flags, covered_95=no_flags)

    @classmethod
    def of_gaussian(cls, true: ArrayLike, predicted: ArrayLike, sigma: ArrayLike) -> Calibration:
        """Compare true values with normal distributions; (object,) each, in the unit of the label, sigma above 0.

        CRPS = sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z = (true - predicted) / sigma: Gneiting et al.
        (2005), equation 5.
        """
        t, p = check_columns(true=true, predicted=predicted)
        s = check_sigma(sigma, t.size)
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
        """Compare true values with distributions given as the 2.5th, 16th, 50th, 84th and 97.5th percentile.

        Parameters
        ----------
        true
            (object,), in the unit of the label, finite.
        percentiles
            (object, 5), finite, never decreasing along the second axis.

        Notes
        -----
        The distribution between percentiles: the normal score of the probability (its inverse normal distribution)
        is linear in the label, and the outermost lines continue beyond the percentiles. Percentiles of a normal
        distribution thus give exactly this distribution, tails included.

        CRPS is twice the integral of the quantile (pinball) loss over all probabilities (Gneiting & Ranjan 2011),
        here the mean over 200 quantiles of this distribution, at probabilities 0.0025, 0.0075, ...
        The five percentiles alone, each with the probability around it as its weight, would be 7 % low.
        """
        t = np.asarray(true, dtype=np.float64)
        q = np.asarray(percentiles, dtype=np.float64)
        if t.ndim != 1 or q.shape != (t.size, len(PERCENTILES)):
            raise ValueError(
                f"true has shape {t.shape}, percentiles {q.shape}: give (object,) and (object, {len(PERCENTILES)}), "
                f"percentiles {', '.join(f'{percentile:g}' for percentile in PERCENTILES)} of each object"
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

    @property
    def n(self) -> int:
        return int(self.pit.size)

    def pit_counts(self) -> tuple[int, ...]:
        """Count the objects in each tenth of the PIT: equal counts if calibrated, a U shape if sigmas are too small."""
        counts, _ = np.histogram(self.pit, bins=N_PIT_BINS, range=(0.0, 1.0))
        return tuple(counts.tolist())


def _pit(true: Values, percentiles: Values) -> Values:
    segment = np.clip(np.count_nonzero(percentiles <= true[:, np.newaxis], axis=1) - 1, 0, len(PERCENTILES) - 2)
    rows = np.arange(true.size)
    low, high = percentiles[rows, segment], percentiles[rows, segment + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (true - low) / (high - low)
    # 0 / 0: the true value is at a step of the distribution
    share = np.where(np.isnan(share), 0.5, share)
    return np.asarray(ndtr(_Z[segment] + share * (_Z[segment + 1] - _Z[segment])))


def _crps(true: Values, percentiles: Values) -> Values:
    total = np.zeros(true.size)
    # a loop over quantiles needs memory for a few values per object only
    for probability in (np.arange(N_QUANTILES) + 0.5) / N_QUANTILES:
        score = ndtri(probability)
        segment = int(np.clip(np.searchsorted(_Z, score, side="right") - 1, 0, len(PERCENTILES) - 2))
        share = (score - _Z[segment]) / (_Z[segment + 1] - _Z[segment])
        error = true - (percentiles[:, segment] + share * (percentiles[:, segment + 1] - percentiles[:, segment]))
        total += np.maximum(probability * error, (probability - 1) * error)
    return 2 * total / N_QUANTILES

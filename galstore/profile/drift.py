"""Drift between two distributions of a column.

The measure is the population stability index over the deciles of the earlier values,

    PSI = sum over bins of (now - before) ln(now / before),   fractions of the values.

As usual, values below 0.1 mean no drift and above 0.25 a different population (Siddiqi 2006, "Credit Risk Scorecards",
ch. 9). Without drift, PSI / (1/n + 1/m) follows a chi-squared distribution with n_bins - 1 degrees of freedom
(Yurdakul & Naranjo 2020, J. Risk Model Validation 14, 89); a PSI below its 99 % quantile counts as no drift. The
Kolmogorov-Smirnov distance is added, since it does not depend on bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from galstore.profile.distribution import Distribution, Integers

N_BINS = 10
MODERATE, LARGE = 0.1, 0.25
MAX_NULL_CHANGE = 0.05
"""Largest change of the fraction of nulls that still counts as the same data delivery."""
_NOISE_QUANTILE = 0.99


class DriftVerdict(StrEnum):
    """Severity of a drift."""

    NONE = "none"
    MODERATE = "moderate"
    LARGE = "large"
    NULLS = "nulls changed"
    """The fraction of nulls changed by more than 5 percentage points."""
    EMPTY = "no values now"
    """The column had values before and has only nulls now."""
    UNKNOWN = "not measured"
    """The column had no values before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Comparison of one column before and now."""

    column: str
    n_before: int
    n_now: int
    psi: float
    """Population stability index; NaN if one side has no values."""
    noise: float
    """99 % quantile of the PSI of equal populations of these sizes."""
    ks: float
    """Largest difference of the cumulative distributions, 0 ... 1."""
    null_share_before: float
    null_share_now: float

    @property
    def null_change(self) -> float:
        return abs(self.null_share_now - self.null_share_before)

    @property
    def verdict(self) -> DriftVerdict:
        if not self.n_before:
            return DriftVerdict.UNKNOWN
        if not self.n_now:
            return DriftVerdict.EMPTY
        if self.null_change > MAX_NULL_CHANGE:
            return DriftVerdict.NULLS
        if self.psi <= max(MODERATE, self.noise):
            return DriftVerdict.NONE
        return DriftVerdict.LARGE if self.psi > LARGE else DriftVerdict.MODERATE


def measure_drift(column: str, before: Distribution, now: Distribution) -> Drift:
    """Compare two distributions of a column.

    Examples
    --------
    >>> same = Distribution.of(range(1000))
    >>> measure_drift("z", same, same).psi
    0.0
    """
    psi, noise, ks = math.nan, math.nan, math.nan
    if before.n and now.n:
        # counts over the union of both bins
        keys = np.union1d(before.keys, now.keys)
        old, new = np.zeros((2, keys.size), dtype=np.int64)
        old[np.searchsorted(keys, before.keys)] = before.counts
        new[np.searchsorted(keys, now.keys)] = now.counts
        ks = float(np.abs(np.cumsum(old) / before.n - np.cumsum(new) / now.n).max())
        psi, noise = _stability(old, new)
    shares = {"null_share_before": before.null_share, "null_share_now": now.null_share}
    return Drift(column=column, n_before=before.n, n_now=now.n, psi=psi, noise=noise, ks=ks, **shares)


def rank_drift(before: Mapping[str, Distribution], now: Mapping[str, Distribution]) -> list[Drift]:
    """Measure the drift of all common columns: changed nulls first, then by decreasing PSI, empty columns last."""
    last = {DriftVerdict.EMPTY: 1, DriftVerdict.UNKNOWN: 2}

    def order(drift: Drift) -> tuple[int, float]:
        if drift.verdict is DriftVerdict.NULLS:
            return -1, -drift.null_change
        return last.get(drift.verdict, 0), 0.0 if drift.verdict in last else -drift.psi

    drifts = [measure_drift(name, before[name], now[name]) for name in before if name in now]
    return sorted(drifts, key=order)


def _stability(old: Integers, new: Integers) -> tuple[float, float]:
    """Return the PSI over approximate deciles of the old values, and its noise level."""
    from scipy.stats import chi2

    n, m = int(old.sum()), int(new.sum())
    # a fine bin belongs to the decile of its last value, so that equal values stay together
    decile = np.minimum(np.ceil(np.cumsum(old) * N_BINS / n).astype(np.int64), N_BINS)
    _, decile = np.unique(np.maximum(decile, 1), return_inverse=True)
    before, now = np.bincount(decile, weights=old), np.bincount(decile, weights=new)
    n_bins = before.size
    # half a value is added to every bin, since an empty bin would make the index infinite
    p, q = (before + 0.5) / (n + 0.5 * n_bins), (now + 0.5) / (m + 0.5 * n_bins)
    psi = float(np.sum((q - p) * np.log(q / p)))
    noise = float(chi2.ppf(_NOISE_QUANTILE, n_bins - 1)) * (1 / n + 1 / m) if n_bins > 1 else 0.0
    return max(psi, 0.0), noise

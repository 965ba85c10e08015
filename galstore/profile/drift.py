"""Drift: how far a column's values have moved from what they were.

The measure is the population stability index over tenths of the earlier values,

    PSI = sum over bins of (now - before) ln(now / before),   shares of the values,

with the usual marks: below 0.1 nothing to speak of, above 0.25 another population (Siddiqi 2006, "Credit Risk
Scorecards", ch. 9). Few values scatter: without any drift, PSI / (1/n + 1/m) follows chi-squared with one degree of
freedom less than there are bins (Yurdakul & Naranjo 2020, J. Risk Model Validation 14, 89), and a PSI within its 99 %
is called no drift. The Kolmogorov-Smirnov distance is given beside it, since it needs no bins.
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
NULLS_MOVED = 0.05
"""A share of nulls that changed by so much is a change of what is delivered, whatever the values that are left."""
_NOISE_LEVEL = 0.99


class Verdict(StrEnum):
    """What a drift is worth."""

    NONE = "none"
    MODERATE = "moderate"
    LARGE = "large"
    NULLS = "nulls changed"
    """The share of nulls moved by more than 5 points."""
    EMPTY = "no values now"
    """There were values, and none came since: another catalog, or a column that is no longer delivered."""
    UNKNOWN = "not measured"
    """There were no values before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One column before and now."""

    column: str
    n_before: int
    n_now: int
    psi: float
    """NaN where one side has no values."""
    noise: float
    """The PSI that 99 % of equal populations of these sizes stay below."""
    ks: float
    """Largest difference of the two cumulative distributions, 0 ... 1."""
    null_share_before: float
    null_share_now: float

    @property
    def verdict(self) -> Verdict:
        if not self.n_before:
            return Verdict.UNKNOWN
        if not self.n_now:
            return Verdict.EMPTY
        if abs(self.null_share_now - self.null_share_before) > NULLS_MOVED:
            return Verdict.NULLS
        if self.psi <= max(MODERATE, self.noise):
            return Verdict.NONE
        return Verdict.LARGE if self.psi > LARGE else Verdict.MODERATE


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
        old, new = _aligned(before, now)
        ks = float(np.abs(np.cumsum(old) / before.n - np.cumsum(new) / now.n).max())
        psi, noise = _stability(old, new)
    return Drift(
        column=column, n_before=before.n, n_now=now.n, psi=psi, noise=noise, ks=ks,
        null_share_before=before.null_share, null_share_now=now.null_share,
    )  # fmt: skip


def rank_drift(before: Mapping[str, Distribution], now: Mapping[str, Distribution]) -> list[Drift]:
    """The drift of every column that both have: changed nulls first, then by PSI from the largest, empty ones last."""
    found = [measure_drift(name, before[name], now[name]) for name in before if name in now]
    return sorted(found, key=_order)


def _order(drift: Drift) -> tuple[int, float, float]:
    place = {Verdict.NULLS: 0, Verdict.EMPTY: 2, Verdict.UNKNOWN: 3}.get(drift.verdict, 1)
    moved = abs(drift.null_share_now - drift.null_share_before)
    return place, -moved if place == 0 else 0.0, -drift.psi if place == 1 else 0.0


def _aligned(before: Distribution, now: Distribution) -> tuple[Integers, Integers]:
    """Both counts over the bins that either has."""
    keys = np.union1d(before.keys, now.keys)
    counts = []
    for one in (before, now):
        full = np.zeros(keys.size, dtype=np.int64)
        full[np.searchsorted(keys, one.keys)] = one.counts
        counts.append(full)
    return counts[0], counts[1]


def _stability(old: Integers, new: Integers) -> tuple[float, float]:
    """PSI over (about) tenths of the old values, and what noise alone reaches."""
    from scipy.stats import chi2

    n, m = int(old.sum()), int(new.sum())
    # a fine bin belongs to the tenth in which its last value lies, so that one value is never cut in two
    tenth = np.minimum(np.ceil(np.cumsum(old) * N_BINS / n).astype(np.int64), N_BINS)
    _, tenth = np.unique(np.maximum(tenth, 1), return_inverse=True)
    before, now = (np.bincount(tenth, weights=one) for one in (old, new))
    n_bins = before.size
    # half a value in every bin: an empty one would make the index infinite
    p, q = (before + 0.5) / (n + 0.5 * n_bins), (now + 0.5) / (m + 0.5 * n_bins)
    psi = float(np.sum((q - p) * np.log(q / p)))
    noise = float(chi2.ppf(_NOISE_LEVEL, n_bins - 1)) * (1 / n + 1 / m) if n_bins > 1 else 0.0
    return max(psi, 0.0), noise

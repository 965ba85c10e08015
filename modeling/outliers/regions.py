"""Regions of descriptions: where those of ordinary objects lie, and what sets them apart from others.

A region has a Mahalanobis distance with a shrunk covariance (Ledoit & Wolf 2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_WINSORISED = 0.01
"""Training values beyond these quantiles are moved to them before anything is learnt from them."""
_LOOSENESS = 0.1
"""Inverse strength of the regularisation of the logistic regression."""
_MOST_SPREADS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """Where descriptions of training objects lie: a centre, and axes in units of their spread."""

    centre: Floats
    """(feature,)"""
    axes: Floats
    """(axis, feature): what maps a difference from the centre to independent numbers of unit variance."""
    border: float
    """Distance that counts as the end of the region."""

    def distance(self, described: Floats) -> Floats:
        """Distance from the centre in units of the border, (object,); NaN where a feature is."""
        apart = (described - self.centre) @ self.axes.T
        return np.asarray(np.sqrt((apart**2).mean(axis=1)) / self.border, dtype=np.float64)

    @classmethod
    def around(cls, described: Floats) -> Region:
        """The region of some objects, (object, feature), with a border of 1."""
        from sklearn.covariance import LedoitWolf

        inner = winsorised(described)
        centre, spread = inner.mean(axis=0), inner.std(axis=0)
        # what does not vary says nothing: a value that differs from it is one spread of the others away at most
        unit = np.where(spread > 1e-9, spread, np.inf)
        varies = np.flatnonzero(np.isfinite(unit))
        axes = np.zeros((varies.size, described.shape[1]))
        if varies.size:
            covariance = LedoitWolf(assume_centered=True).fit((inner - centre)[:, varies] / unit[varies]).covariance_
            values, vectors = np.linalg.eigh(covariance)
            axes[:, varies] = (vectors / np.sqrt(values)).T / unit[varies]
        return cls(centre=centre, axes=axes, border=1.0)

    def bordered(self, border: float) -> Region:
        """The same, with another border."""
        return Region(centre=self.centre, axes=self.axes, border=border)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contrast:
    """What sets ordinary images apart from counterexamples: a multinomial logistic regression of their statistics."""

    centre: Floats
    spread: Floats
    """(statistic,) Mean and standard deviation of ordinary images."""
    weights: Floats
    """(class, statistic) Of standardised statistics; class 0 are ordinary images."""
    offsets: Floats
    """(class,)"""
    border: float

    @classmethod
    def of(cls, ordinary: Floats, others: Floats) -> Contrast:
        """Learn from statistics of ordinary images (object, statistic), and of kinds of others (kind, object, ...)."""
        from sklearn.linear_model import LogisticRegression

        centre, spread = ordinary.mean(axis=0), ordinary.std(axis=0) + 1e-6
        fitted = LogisticRegression(C=_LOOSENESS, max_iter=2000).fit(
            standardised(np.concatenate([ordinary, *others]), centre, spread),
            np.repeat(np.arange(len(others) + 1), [len(ordinary), *(len(one) for one in others)]),
        )
        # of two classes sklearn gives the weights of the second alone
        weights, offsets = (
            np.concatenate([0 * one, one]) if len(others) == 1 else one for one in (fitted.coef_, fitted.intercept_)
        )
        return cls(centre=centre, spread=spread, weights=weights, offsets=offsets, border=1.0)

    def distance(self, described: Floats) -> Floats:
        """log(1 + odds against being ordinary) in units of the border, (object,)."""
        logits = standardised(described, self.centre, self.spread) @ self.weights.T + self.offsets
        against = np.logaddexp.reduce(logits, axis=1) - logits[:, 0]
        return np.asarray(against / self.border, dtype=np.float64)


def winsorised(values: Floats) -> Floats:
    """Values (object, feature) with the most extreme ones of each feature moved to its outer quantiles."""
    low, high = np.quantile(values, [_WINSORISED, 1 - _WINSORISED], axis=0)
    return np.asarray(np.clip(values, low, high), dtype=np.float64)


def standardised(described: Floats, centre: Floats, spread: Floats) -> Floats:
    """Descriptions in units of a spread about a centre, at most 8 of it."""
    # a value far beyond all others must not outvote the rest
    return np.asarray(np.clip((described - centre) / spread, -_MOST_SPREADS, _MOST_SPREADS), dtype=np.float64)

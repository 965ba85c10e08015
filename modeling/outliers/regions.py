"""Classifiers of feature vectors: a Mahalanobis region of ordinary objects, and a discriminant against others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
_WINSORISED = 0.01
"""Values beyond these quantiles are clipped to them before a fit."""
_INVERSE_REGULARISATION = 0.1
_MAX_SPREADS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MahalanobisRegion:
    """Mahalanobis distance from ordinary objects, with a shrunk covariance (Ledoit & Wolf 2004)."""

    centre: Values
    """(feature,)"""
    axes: Values
    """(axis, feature) Map from differences from the centre to independent numbers of unit variance."""
    threshold: float
    """Distance that gives a score of 1."""

    def score(self, features: Values) -> Values:
        """Return distances in units of the threshold, (object,); NaN if a feature is NaN."""
        apart = (features - self.centre) @ self.axes.T
        return np.asarray(np.sqrt((apart**2).mean(axis=1)) / self.threshold, dtype=np.float64)

    @classmethod
    def fit(cls, features: Values) -> MahalanobisRegion:
        """Fit a region to objects, (object, feature), with a threshold of 1."""
        from sklearn.covariance import LedoitWolf

        inner = winsorise(features)
        centre, spread = inner.mean(axis=0), inner.std(axis=0)
        # a constant feature carries no information, and is ignored
        unit = np.where(spread > 1e-9, spread, np.inf)
        varies = np.flatnonzero(np.isfinite(unit))
        axes = np.zeros((varies.size, features.shape[1]))
        if varies.size:
            covariance = LedoitWolf(assume_centered=True).fit((inner - centre)[:, varies] / unit[varies]).covariance_
            values, vectors = np.linalg.eigh(covariance)
            axes[:, varies] = (vectors / np.sqrt(values)).T / unit[varies]
        return cls(centre=centre, axes=axes, threshold=1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogisticDiscriminant:
    """Multinomial logistic regression that separates ordinary images from kinds of counterexamples."""

    centre: Values
    spread: Values
    """(statistic,) Mean and standard deviation of ordinary images."""
    weights: Values
    """(class, statistic) Weights of standardised statistics; class 0 are ordinary images."""
    offsets: Values
    """(class,)"""
    threshold: float

    @classmethod
    def fit(cls, ordinary: Values, others: Values) -> LogisticDiscriminant:
        """Fit to statistics of ordinary images (object, statistic) and of counterexamples (kind, object, statistic)."""
        from sklearn.linear_model import LogisticRegression

        centre, spread = ordinary.mean(axis=0), ordinary.std(axis=0) + 1e-6
        fitted = LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=2000).fit(
            standardise(np.concatenate([ordinary, *others]), centre, spread),
            np.repeat(np.arange(len(others) + 1), [len(ordinary), *(len(kind) for kind in others)]),
        )
        # for two classes sklearn gives the weights of the second alone
        weights, offsets = (
            np.concatenate([0 * values, values]) if len(others) == 1 else values
            for values in (fitted.coef_, fitted.intercept_)
        )
        return cls(centre=centre, spread=spread, weights=weights, offsets=offsets, threshold=1.0)

    def score(self, statistics: Values) -> Values:
        """Return log(1 + odds against being ordinary) in units of the threshold, (object,)."""
        logits = standardise(statistics, self.centre, self.spread) @ self.weights.T + self.offsets
        against = np.logaddexp.reduce(logits, axis=1) - logits[:, 0]
        return np.asarray(against / self.threshold, dtype=np.float64)


def winsorise(values: Values) -> Values:
    """Clip each feature of values (object, feature) to its outer quantiles."""
    low, high = np.quantile(values, [_WINSORISED, 1 - _WINSORISED], axis=0)
    return np.asarray(np.clip(values, low, high), dtype=np.float64)


def standardise(values: Values, centre: Values, spread: Values) -> Values:
    """Return values in units of the spread about the centre, clipped to ±8: no extreme value may dominate."""
    return np.asarray(np.clip((values - centre) / spread, -_MAX_SPREADS, _MAX_SPREADS), dtype=np.float64)

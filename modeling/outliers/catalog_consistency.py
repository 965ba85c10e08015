"""Consistency of an image with the catalog values of its object: brightness, colours and size.

A service that returns the cutout of another object, or at another scale, returns a good image of a galaxy. A ridge
regression predicts the catalog values from image statistics, and its residuals are compared with those of training
rows. With a fixed pixel scale the size reveals a wrong scale; with `petro_r90`, which makes all galaxies equally large,
the magnitude does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import pandas as pd

from modeling.outliers.regions import MahalanobisRegion, Values, standardise, winsorise

PHOTOMETRY = ("modelMag_g", "modelMag_r", "modelMag_i")
"""Catalog columns that give r, g - r and r - i."""
COMPARED_COLUMNS = (*PHOTOMETRY, "petroR90_r", "pixel_scale")
"""Catalog columns of the comparison: AB mag, arcsec, arcsec per pixel. The compared values are r, g - r, r - i and
the logarithm of petroR90."""
_RIDGE = 10.0
"""Penalty of the regression, whose inputs are standardised."""
_N_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CatalogConsistency:
    """Ridge regression of catalog values on image statistics, and the region of its residuals."""

    centre: Values
    spread: Values
    """(statistic,) Mean and standard deviation of the training images' statistics."""
    weights: Values
    """(value, statistic) Weights of standardised statistics."""
    offsets: Values
    """(value,)"""
    residuals: MahalanobisRegion
    """Region of catalog values minus predicted values."""

    @classmethod
    def fit(cls, statistics: Values, catalog: pd.DataFrame) -> tuple[CatalogConsistency, Values] | None:
        """Fit to statistics (object, statistic) and `COMPARED_COLUMNS` of training rows, with a threshold of 1.

        Return also the scores of training rows that were left out in turn, or None if fewer than two objects per fold
        have all values.
        """
        from sklearn.linear_model import Ridge
        from sklearn.model_selection import KFold, cross_val_predict

        features, values = _features(statistics, catalog), _compared_values(catalog)
        known = np.isfinite(features).all(axis=1) & np.isfinite(values).all(axis=1)
        if known.sum() < 2 * _N_FOLDS:
            return None
        features, values = features[known], values[known]
        inner = winsorise(values)
        centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
        inputs, ridge = standardise(features, centre, spread), Ridge(alpha=_RIDGE)
        folds = KFold(_N_FOLDS, shuffle=True, random_state=0)
        # residuals of the rows of the fit itself are smaller than those of new rows
        predicted = cross_val_predict(ridge, inputs, inner, cv=folds)
        residuals = MahalanobisRegion.fit(inner - predicted)
        ridge.fit(inputs, inner)
        fitted = cls(centre=centre, spread=spread, weights=ridge.coef_, offsets=ridge.intercept_, residuals=residuals)
        return fitted, residuals.score(values - predicted)

    def score(self, statistics: Values, catalog: pd.DataFrame) -> Values:
        """Return distances of catalog values from the image in thresholds, (object,); NaN if a value is unknown."""
        inputs = standardise(_features(statistics, catalog), self.centre, self.spread)
        return self.residuals.score(_compared_values(catalog) - inputs @ self.weights.T - self.offsets)


def has_compared_columns(catalog: pd.DataFrame | None) -> TypeGuard[pd.DataFrame]:
    return catalog is not None and set(COMPARED_COLUMNS) <= set(catalog.columns)


def magnitude_and_colours(catalog: pd.DataFrame) -> Values:
    """Return r, g - r and r - i in mag, (object, 3), from the columns `PHOTOMETRY`."""
    g, r, i = (catalog[name].to_numpy(dtype=np.float64) for name in PHOTOMETRY)
    return np.stack([r, g - r, r - i], axis=1)


def _features(statistics: Values, catalog: pd.DataFrame) -> Values:
    return np.concatenate([statistics, _log(catalog["pixel_scale"])[:, None]], axis=1)


def _compared_values(catalog: pd.DataFrame) -> Values:
    return np.concatenate([magnitude_and_colours(catalog), _log(catalog["petroR90_r"])[:, None]], axis=1)


def _log(values: pd.Series[float]) -> Values:
    """Return natural logarithms; NaN for values of 0 or less."""
    numbers = values.to_numpy(dtype=np.float64)
    return np.log(np.where(numbers > 0, numbers, np.nan))

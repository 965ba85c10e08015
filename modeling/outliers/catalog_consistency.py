"""Agreement: whether an image is that of the catalog's object, by its brightness, colours and size.

A service that sends another object's cutout, or another scale than it was asked for, sends a good image of a galaxy.
What the image says of the catalog's values is learnt by a ridge regression from its statistics; by how much the
values miss that has a region. Under a fixed scale a wrong one shows by the size, under `petro_r90`, where all galaxies
are equally large in their frame, by the magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modeling.outliers.regions import Floats, Region, standardised, winsorised

PHOTOMETRY = ("modelMag_g", "modelMag_r", "modelMag_i")
"""Columns of the catalog from which r, g - r and r - i are made."""

COMPARED = (*PHOTOMETRY, "petroR90_r", "pixel_scale")
"""What is known of an object without its image: AB mag, arcsec, arcsec per pixel. The values that are compared are r,
g - r, r - i and the logarithm of petroR90."""

_RIDGE = 10.0
"""Penalty of the regression, whose inputs are standardised."""
_N_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Agreement:
    """What images say of their objects' catalog values."""

    centre: Floats
    spread: Floats
    """(statistic,) Mean and standard deviation of the training images' statistics."""
    weights: Floats
    """(value, statistic) Of standardised statistics."""
    offsets: Floats
    """(value,)"""
    missed: Region
    """Of what the values miss the image's words by."""

    @classmethod
    def learn(cls, statistics: Floats, catalog: pd.DataFrame) -> tuple[Agreement, Floats] | None:
        """Learn from training rows; the border, 1, is still to be set.

        Parameters
        ----------
        statistics
            (object, statistic) of their images.
        catalog
            `COMPARED` of the same objects, NaN where there is none.

        Returns
        -------
        tuple of Agreement and ndarray, or None
            The second are distances of training rows that were left out in turn. None where fewer than two objects a
            fold have all values.
        """
        from sklearn.linear_model import Ridge
        from sklearn.model_selection import KFold, cross_val_predict

        described, values = _described(statistics, catalog), _compared(catalog)
        known = np.isfinite(described).all(axis=1) & np.isfinite(values).all(axis=1)
        if known.sum() < 2 * _N_FOLDS:
            return None
        described, values = described[known], values[known]
        inner = winsorised(values)
        centre, spread = described.mean(axis=0), described.std(axis=0) + 1e-6
        inputs, ridge = standardised(described, centre, spread), Ridge(alpha=_RIDGE)
        folds = KFold(_N_FOLDS, shuffle=True, random_state=0)
        # each object is left out in turn: a regression misses what it was fitted to by less than anything new
        told = cross_val_predict(ridge, inputs, inner, cv=folds)
        missed = Region.around(inner - told)
        ridge.fit(inputs, inner)
        learnt = cls(centre=centre, spread=spread, weights=ridge.coef_, offsets=ridge.intercept_, missed=missed)
        return learnt, missed.distance(values - told)

    def distance(self, statistics: Floats, catalog: pd.DataFrame) -> Floats:
        """How far values are from what images say, in units of the border, (object,); NaN where one is not known."""
        inputs = standardised(_described(statistics, catalog), self.centre, self.spread)
        return self.missed.distance(_compared(catalog) - inputs @ self.weights.T - self.offsets)

    def bordered(self, border: float) -> Agreement:
        """The same, with another border."""
        return replace(self, missed=self.missed.bordered(border))

    def to_arrays(self) -> dict[str, Floats]:
        """All but the border, by name."""
        return {
            "centre": self.centre, "spread": self.spread, "weights": self.weights, "offsets": self.offsets,
            "missed.centre": self.missed.centre, "missed.axes": self.missed.axes,
        }  # fmt: skip

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], border: float) -> Agreement:
        """What `to_arrays` gave; KeyError where one is missing."""
        names = ("centre", "spread", "weights", "offsets")
        missed = Region(centre=arrays["missed.centre"], axes=arrays["missed.axes"], border=border)
        return cls(**{name: arrays[name] for name in names}, missed=missed)


def can_compare(catalog: pd.DataFrame | None) -> bool:
    """Whether a catalog has all columns that are compared."""
    return catalog is not None and set(COMPARED) <= set(catalog.columns)


def colours_of(catalog: pd.DataFrame) -> Floats:
    """r, g - r and r - i of the columns `PHOTOMETRY`, mag, (object, 3)."""
    g, r, i = (catalog[name].to_numpy(dtype=np.float64) for name in PHOTOMETRY)
    return np.stack([r, g - r, r - i], axis=1)


def _described(statistics: Floats, catalog: pd.DataFrame) -> Floats:
    """An image, and the scale that it was asked for at."""
    return np.concatenate([statistics, _log(catalog["pixel_scale"])[:, None]], axis=1)


def _compared(catalog: pd.DataFrame) -> Floats:
    return np.concatenate([colours_of(catalog), _log(catalog["petroR90_r"])[:, None]], axis=1)


def _log(values: pd.Series[float]) -> Floats:
    """NaN where a value is not above 0."""
    numbers = values.to_numpy(dtype=np.float64)
    return np.log(np.where(numbers > 0, numbers, np.nan))

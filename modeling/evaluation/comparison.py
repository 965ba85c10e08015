"""Paired comparison of two predictors on the same objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modeling.evaluation.bootstrap import N_FOR_INTERVALS, ValueWithIntervals, resample_for_intervals
from modeling.evaluation.column_checks import Values
from modeling.evaluation.metrics import Regression, centre_and_nmad


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricDifference:
    """Metric of the first predictor minus the same metric of the second, with its central 95 % interval."""

    value: float
    low_95: float
    high_95: float

    @property
    def is_significant(self) -> bool:
        """Return True if zero is outside the interval; False if its ends are NaN."""
        return self.low_95 > 0 or self.high_95 < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """Differences of two predictors on the same objects; below zero if the first one is better."""

    n: int
    rmse: MetricDifference
    nmad: MetricDifference

    @classmethod
    def of(
        cls,
        true: ArrayLike,
        first: ArrayLike,
        second: ArrayLike,
        *,
        rng: np.random.Generator,
        n_resamples: int = N_FOR_INTERVALS,
    ) -> PairedComparison:
        """Compare two predictors by a paired bootstrap: both are measured on each resample of the objects.

        Errors that both make on an object cancel. The interval is therefore much narrower than the intervals of the
        two metrics suggest (Efron & Tibshirani 1993).

        Parameters
        ----------
        true, first, second
            (object,) each, finite. Their order changes no number.
        n_resamples
            At least 100.
        """
        metrics_first, metrics_second = Regression.of(true, first), Regression.of(true, second)
        t, a, b = (np.asarray(values, dtype=np.float64) for values in (true, first, second))
        order = np.lexsort((b, a, t))
        errors = [(a - t)[order], (b - t)[order]]

        def differences(rows: NDArray[np.int64]) -> Values:
            drawn = np.stack([predictor_errors[rows] for predictor_errors in errors])
            rmse, scatter = np.sqrt(np.mean(drawn**2, axis=-1)), centre_and_nmad(drawn)[1]
            return np.stack([rmse[0] - rmse[1], scatter[0] - scatter[1]])

        draws = resample_for_intervals(len(t), differences, rng=rng, n_resamples=n_resamples)
        found = {}
        for name, metric_draws in zip(("rmse", "nmad"), draws, strict=True):
            value = getattr(metrics_first, name) - getattr(metrics_second, name)
            ends = ValueWithIntervals.of(value, metric_draws)
            found[name] = MetricDifference(value=value, low_95=ends.low_95, high_95=ends.high_95)
        return cls(n=metrics_first.n, **found)

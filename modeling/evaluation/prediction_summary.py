"""Summary of the predictions of a catalog, added up over batches of any size and order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galstore.profile.distribution import Distribution
from modeling.evaluation.calibration import N_PIT_BINS, Calibration
from modeling.evaluation.column_checks import Values

PERCENTILE_COLUMNS = ("p2_5", "p16", "p50", "p84", "p97_5")
"""Columns of `modeling.evaluation.calibration.PERCENTILES`."""
SPREADS = ("sigma", "view_spread", "ensemble_spread")
WIDTHS = {"width_68": ("p16", "p84"), "width_95": ("p2_5", "p97_5")}
"""Widths in `PredictionSummary.columns`: differences of two percentiles."""
MASS_EDGES = np.linspace(7.0, 12.4, 28)
"""log10(M / solar mass), bins of 0.2 dex."""
METALLICITY_EDGES = np.linspace(7.0, 10.0, 301)
"""12 + log(O/H), bins of 0.01 dex."""
MIN_PER_BIN = 5
"""Bins with fewer objects have no meaningful median."""
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibrationTally:
    """Errors and calibration of predictions of objects with a known value; batches add up with `+`."""

    n: int = 0
    squared_error: float = 0.0
    """Sum of (predicted - true) squared."""
    error: float = 0.0
    """Sum of predicted - true."""
    n_with_bars: int = 0
    """Objects with percentiles or a sigma, which the following fields refer to."""
    n_68: int = 0
    n_95: int = 0
    pit_counts: Integers = field(default_factory=lambda: np.zeros(N_PIT_BINS, dtype=np.int64))
    crps: float = 0.0

    @classmethod
    def of(cls, table: pd.DataFrame, true: Values) -> CalibrationTally:
        """Compare predictions with known values, (object,), NaN if unknown.

        The table has the column `prediction`, and `PERCENTILE_COLUMNS` or `sigma` if they exist.
        """
        predicted = table["prediction"].to_numpy(dtype=np.float64)
        known = np.isfinite(true) & np.isfinite(predicted)
        error = predicted[known] - true[known]
        calibration = _calibrate(table.loc[known], true[known], predicted[known])
        return cls(
            n=int(known.sum()),
            squared_error=float(error @ error),
            error=float(error.sum()),
            n_with_bars=calibration.n,
            n_68=int(calibration.covered_68.sum()),
            n_95=int(calibration.covered_95.sum()),
            pit_counts=np.array(calibration.pit_counts(), dtype=np.int64),
            crps=float(calibration.crps.sum()),
        )

    def __add__(self, other: CalibrationTally) -> CalibrationTally:
        sums = {item.name: getattr(self, item.name) + getattr(other, item.name) for item in fields(self)}
        return CalibrationTally(**sums)

    @property
    def rmse(self) -> float:
        return math.sqrt(_ratio(self.squared_error, self.n))

    @property
    def bias(self) -> float:
        return _ratio(self.error, self.n)

    @property
    def coverage_68(self) -> float:
        return _ratio(self.n_68, self.n_with_bars)

    @property
    def coverage_95(self) -> float:
        return _ratio(self.n_95, self.n_with_bars)

    @property
    def mean_crps(self) -> float:
        return _ratio(self.crps, self.n_with_bars)


def _ratio(total: float, n: int) -> float:
    return total / n if n else math.nan


def _calibrate(table: pd.DataFrame, true: Values, predicted: Values) -> Calibration:
    if set(PERCENTILE_COLUMNS) <= set(table.columns):
        bars = table[list(PERCENTILE_COLUMNS)].to_numpy(dtype=np.float64)
        usable = np.isfinite(bars).all(axis=1) & (np.diff(bars, axis=1) >= 0).all(axis=1)
        if usable.any():
            return Calibration.of_percentiles(true[usable], bars[usable])
    if "sigma" in table.columns:
        sigma = table["sigma"].to_numpy(dtype=np.float64)
        usable = np.isfinite(sigma) & (sigma > 0)
        if usable.any():
            return Calibration.of_gaussian(true[usable], predicted[usable], sigma[usable])
    return Calibration.empty()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictionSummary:
    """Distributions, flags and errors of a table of predictions; batches add up with `+`."""

    n: int = 0
    by_status: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, Distribution] = field(default_factory=dict)
    """`prediction`, and the existing columns of `SPREADS` and `WIDTHS`."""
    flags: Mapping[str, int] = field(default_factory=dict)
    """Number of objects by name of the flag; an object may have several."""
    n_flagged: int = 0
    has_flags: bool = False
    relation: Integers = field(
        default_factory=lambda: np.zeros((MASS_EDGES.size - 1, METALLICITY_EDGES.size - 1), dtype=np.int64)
    )
    """Number of objects in bins of `MASS_EDGES` and of `METALLICITY_EDGES`."""
    calibration: CalibrationTally = field(default_factory=CalibrationTally)

    @classmethod
    def of(
        cls,
        table: pd.DataFrame,
        *,
        flag_bits: Mapping[str, int] | None = None,
        log_mass: Values | None = None,
        true: Values | None = None,
    ) -> PredictionSummary:
        """Summarise one batch.

        Parameters
        ----------
        table
            Column `prediction` (NaN = none); optional are `status`, `SPREADS`, `PERCENTILE_COLUMNS` and `flags` (a bit
            mask; 0 = none, negative or null = not known).
        flag_bits
            Value of each flag's bit, by name.
        log_mass, true
            (object,) log10 stellar mass and known value of the target; NaN if unknown.
        """
        predicted = table["prediction"].to_numpy(dtype=np.float64)
        columns = {"prediction": predicted}
        columns |= {name: table[name].to_numpy(dtype=np.float64) for name in SPREADS if name in table}
        for name, (low, high) in WIDTHS.items():
            if low in table and high in table:
                columns[name] = (table[high] - table[low]).to_numpy(dtype=np.float64)
        has_flags = flag_bits is not None and "flags" in table and bool((table["flags"] >= 0).any())
        raised = _flags(table, flag_bits or {}) if has_flags else {}
        any_flag = np.any(list(raised.values()), axis=0) if raised else np.zeros(len(table), dtype=bool)
        relation = PredictionSummary().relation
        if log_mass is not None:
            known = np.isfinite(log_mass) & np.isfinite(predicted)
            counts, _, _ = np.histogram2d(log_mass[known], predicted[known], bins=(MASS_EDGES, METALLICITY_EDGES))
            relation = counts.astype(np.int64)
        status = table["status"] if "status" in table else pd.Series(np.where(np.isfinite(predicted), "scored", "none"))
        return cls(
            n=len(table),
            by_status={str(name): int(n) for name, n in status.value_counts().items()},
            columns={name: Distribution.of(values) for name, values in columns.items()},
            flags={name: int(rows.sum()) for name, rows in raised.items()},
            n_flagged=int(any_flag.sum()),
            has_flags=has_flags,
            relation=relation,
            calibration=CalibrationTally() if true is None else CalibrationTally.of(table, true),
        )

    def __add__(self, other: PredictionSummary) -> PredictionSummary:
        empty = Distribution()
        names = dict.fromkeys([*self.columns, *other.columns])
        return PredictionSummary(
            n=self.n + other.n,
            by_status=dict(Counter(self.by_status) + Counter(other.by_status)),
            columns={name: self.columns.get(name, empty) + other.columns.get(name, empty) for name in names},
            flags={
                name: self.flags.get(name, 0) + other.flags.get(name, 0)
                for name in dict.fromkeys([*self.flags, *other.flags])
            },
            n_flagged=self.n_flagged + other.n_flagged,
            has_flags=self.has_flags or other.has_flags,
            relation=self.relation + other.relation,
            calibration=self.calibration + other.calibration,
        )

    @property
    def n_scored(self) -> int:
        return self.columns["prediction"].n if "prediction" in self.columns else 0


def _flags(table: pd.DataFrame, bits: Mapping[str, int]) -> dict[str, NDArray[np.bool_]]:
    mask = table["flags"].fillna(-1).to_numpy(dtype=np.int64)
    mask = np.where(mask < 0, 0, mask)
    return {name: (mask & bit) != 0 for name, bit in bits.items()}


def flagged_positions(table: pd.DataFrame, bits: Mapping[str, int], most: int) -> dict[str, list[int]]:
    """Return positions of the first objects with each flag, at most `most` each; empty without a column `flags`."""
    if "flags" not in table:
        return {}
    return {name: np.flatnonzero(raised)[:most].tolist() for name, raised in _flags(table, bits).items()}


def relation_percentiles(counts: Integers) -> tuple[Values, Values]:
    """Return the centres of mass bins that hold at least 5 objects, and percentiles of the predictions in them.

    Shapes are (bin,), log10(M / solar mass), and (bin, share) for the 16th, 50th and 84th percentile.
    """
    filled = counts.sum(axis=1) >= MIN_PER_BIN
    centres = (MASS_EDGES[1:] + MASS_EDGES[:-1])[filled] / 2
    percentiles = np.empty((centres.size, 3))
    for place, row in enumerate(counts[filled]):
        cumulative = np.concatenate([[0], np.cumsum(row)]) / row.sum()
        percentiles[place] = np.interp((0.16, 0.5, 0.84), cumulative, METALLICITY_EDGES)
    return centres, percentiles

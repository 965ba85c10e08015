"""Evaluation of a table of predictions: metrics with intervals, and counts of the rows that are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd

from modeling.evaluation.bootstrap import N_FOR_INTERVALS, ValueWithIntervals, estimate_means, estimate_metrics
from modeling.evaluation.calibration import Calibration
from modeling.evaluation.column_checks import Values
from modeling.evaluation.comparison import PairedComparison
from modeling.evaluation.metrics import BIN_DEX, BinMetrics, metrics_by_bin
from schemas.catalog import SENTINEL
from schemas.errors import CatalogError, ContractError


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedColumns:
    """Names of the columns that are evaluated; no name may be given twice."""

    true: str
    predicted: str
    sigma: str | None = None
    """Standard deviation of each prediction, in the unit of the label."""
    against: str | None = None
    """A second predictor, to be compared on the same rows."""

    def __post_init__(self) -> None:
        for name in self.names:
            if self.names.count(name) > 1:
                raise ContractError(f"column {name!r} is named twice: give a different column for each option")

    @property
    def names(self) -> list[str]:
        return [name for name in (self.true, self.predicted, self.sigma, self.against) if name is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """Quality of predictions. Errors are predicted - true, in the unit of the label (dex)."""

    columns: EvaluatedColumns
    n_rows: int
    n: int
    """Number of evaluated rows: `n_rows` less those of `left_out`."""
    left_out: Mapping[str, int]
    """Number of rows that are not evaluated, by their first reason; reasons without rows are absent."""
    metrics: Mapping[str, ValueWithIntervals]
    """'rmse', 'nmad', 'bias', 'r2', 'beyond_3_nmad', 'beyond_0p3_dex'; with a sigma also 'crps', 'coverage_68' and
    'coverage_95'."""
    bins: tuple[BinMetrics, ...]
    """Bins of the true value that hold rows."""
    pit_counts: tuple[int, ...] | None
    """Rows in each tenth of the probability integral transform; None without a sigma."""
    comparison: PairedComparison | None
    """`predicted` less `against`; None without a second predictor."""
    n_resamples: int
    seed: int

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON, with None for NaN."""
        plain: dict[str, object] = asdict(self)
        if self.comparison is not None:
            plain["comparison"] = {"n": self.comparison.n} | {
                name: {**asdict(difference), "is_significant": difference.is_significant}
                for name, difference in (("rmse", self.comparison.rmse), ("nmad", self.comparison.nmad))
            }
        return {name: _without_nan(value) for name, value in plain.items()}


def evaluate_predictions(
    table: pd.DataFrame,
    columns: EvaluatedColumns,
    *,
    bin_width: float = BIN_DEX,
    n_resamples: int = N_FOR_INTERVALS,
    seed: int = 0,
) -> EvaluationResult:
    """Evaluate a table of predictions; the order of its rows changes no number.

    Parameters
    ----------
    table
        One row per object. Rows without a usable number in a column are left out and counted.
    columns
        Names of numeric columns.
    bin_width
        Width of the bins of the true value, in the unit of the label.
    n_resamples
        Number of resamples of each bootstrap, at least 100.

    Raises
    ------
    CatalogError
        A column is absent or not numeric, or no row is left.
    """
    values, left_out = usable_rows(table, columns)
    true, predicted = values[columns.true], values[columns.predicted]
    # separate random streams: an additional column does not change the other numbers
    for_metrics, for_sigma, for_pairs = (np.random.default_rng([seed, stream]) for stream in range(3))
    bins = metrics_by_bin(true, predicted, bin_width)
    metrics = estimate_metrics(true, predicted, rng=for_metrics, n_resamples=n_resamples)
    pit_counts, comparison = None, None
    if columns.sigma is not None:
        calibration = Calibration.of_gaussian(true, predicted, values[columns.sigma])
        covered_68, covered_95 = (c.astype(np.float64) for c in (calibration.covered_68, calibration.covered_95))
        means = {"crps": calibration.crps, "coverage_68": covered_68, "coverage_95": covered_95}
        metrics |= estimate_means(means, rng=for_sigma, n_resamples=n_resamples)
        pit_counts = calibration.pit_counts()
    if columns.against is not None:
        against = values[columns.against]
        comparison = PairedComparison.of(true, predicted, against, rng=for_pairs, n_resamples=n_resamples)
    return EvaluationResult(
        columns=columns,
        n_rows=len(table),
        n=true.size,
        left_out=left_out,
        metrics=metrics,
        bins=bins,
        pit_counts=pit_counts,
        comparison=comparison,
        n_resamples=n_resamples,
        seed=seed,
    )


def usable_rows(table: pd.DataFrame, columns: EvaluatedColumns) -> tuple[dict[str, Values], dict[str, int]]:
    """Return the values of the rows that are evaluated, sorted, and count the other rows by their first reason.

    Null, NaN, -9999 and infinities are missing values; sigma must be above 0.

    Returns
    -------
    tuple
        (object,) float64 by column name, and the number of rows left out by reason. Together they are all rows.

    Raises
    ------
    CatalogError
        A column is absent or not numeric, or no row is left.
    """
    values = {name: _numbers(table, name) for name in columns.names}
    usable = np.ones(len(table), dtype=np.bool_)
    left_out: dict[str, int] = {}
    for name, column in values.items():
        faults = {
            f"{name} is null or NaN": np.isnan(column),
            f"{name} is {SENTINEL:.0f}": column == SENTINEL,
            f"{name} is infinite": np.isinf(column),
        }
        if name == columns.sigma:
            faults[f"{name} is 0 or less"] = column <= 0
        for reason, rows in faults.items():
            n_lost = int(np.count_nonzero(rows & usable))
            if n_lost:
                left_out[reason] = n_lost
                usable &= ~rows
    if not usable.any():
        why = "; ".join(f"{n:,} rows: {reason}" for reason, n in left_out.items()) or "the table has 0 rows"
        raise CatalogError(f"no row is left to evaluate: {why}. Give a table with numbers in {', '.join(values)}")
    order = np.lexsort([column[usable] for column in reversed(values.values())])
    return {name: column[usable][order] for name, column in values.items()}, left_out


def _numbers(table: pd.DataFrame, name: str) -> Values:
    if name not in table.columns:
        names = [str(column) for column in table.columns]
        close = get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"the table has {', '.join(names[:20])}"
        raise CatalogError(f"no column {name!r}; {hint}")
    column = table[name]
    if column.isna().all():
        return np.full(len(table), np.nan)
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        first = column.dropna().iloc[0]
        raise CatalogError(
            f"column {name!r} holds {column.dtype} values, as {str(first)[:40]!r}, expected are numbers: name another "
            "column, or leave unknown values blank"
        )
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

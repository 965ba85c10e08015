"""Evaluation: a table of predictions becomes metrics with intervals, and a tally of the rows that do not count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modeling.evaluation.calibration import Calibration
from modeling.evaluation.comparison import N_RESAMPLES, Comparison, Estimate, estimate_means, estimate_metrics
from modeling.evaluation.residuals import BIN_DEX, BinMetrics, Residuals
from schemas.catalog import SENTINEL
from schemas.errors import CatalogError, ContractError

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredColumns:
    """Names of the columns that are evaluated.

    Raises
    ------
    ContractError
        A name is given twice.
    """

    true: str
    predicted: str
    sigma: str | None = None
    """Standard deviation of each prediction, in the unit of the label."""
    against: str | None = None
    """A second predictor, to be compared on the same rows."""

    def __post_init__(self) -> None:
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise ContractError(f"column {name!r} is named twice: give each question a column of its own")

    @property
    def names(self) -> list[str]:
        """Those that are given, in the order in which rows are checked."""
        return [name for name in (self.true, self.predicted, self.sigma, self.against) if name is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How good predictions are. Errors are predicted - true, in the unit of the label (dex)."""

    columns: ScoredColumns
    n_rows: int
    n: int
    """Rows that count: `n_rows` less those of `left_out`."""
    left_out: Mapping[str, int]
    """Rows that do not count, by their first reason; reasons without rows are absent."""
    metrics: Mapping[str, Estimate]
    """'rmse', 'nmad', 'bias', 'r2', 'beyond_3_nmad', 'beyond_0p3_dex'; with a sigma also 'crps', 'coverage_68' and
    'coverage_95'."""
    bins: tuple[BinMetrics, ...]
    """Of the true value; those that hold rows."""
    pit_counts: tuple[int, ...] | None
    """Rows in each tenth of the probability integral transform; None without a sigma."""
    comparison: Comparison | None
    """`predicted` less `against`; None where there is no second predictor."""
    n_resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where there is no number."""
        plain = asdict(self)
        if self.comparison is not None:
            for name in ("rmse", "nmad"):
                plain["comparison"][name]["is_significant"] = getattr(self.comparison, name).is_significant
        cleaned: dict[str, Any] = _without_nan(plain)
        return cleaned


def score_predictions(
    table: pd.DataFrame,
    columns: ScoredColumns,
    *,
    bin_width: float = BIN_DEX,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Scores:
    """Evaluate a table of predictions; the order of its rows changes no number.

    Parameters
    ----------
    table
        One row an object. Rows without a usable number in a column are left out and counted.
    columns
        Which columns to use, of numbers.
    bin_width
        Of the bins of the true value, in the unit of the label.
    n_resamples
        Of each bootstrap, at least 100.
    seed
        Of the bootstraps.

    Raises
    ------
    CatalogError
        A column is absent or not of numbers, or no row is left.
    ContractError
        `bin_width` is out of range.
    ValueError
        `n_resamples` is below 100.
    """
    values, left_out = usable_rows(table, columns)
    true, predicted = values[columns.true], values[columns.predicted]
    residuals = Residuals.of(true, predicted)
    # one stream of draws for each question: asking a second one does not change the answer to the first
    for_metrics, for_sigma, for_pairs = (np.random.default_rng([seed, stream]) for stream in range(3))
    bins = residuals.bins(bin_width)
    metrics = estimate_metrics(residuals, rng=for_metrics, n_resamples=n_resamples)
    pit_counts, comparison = None, None
    if columns.sigma is not None:
        calibration = Calibration.of_gaussian(true, predicted, values[columns.sigma])
        means = {
            "crps": calibration.crps,
            "coverage_68": calibration.covered_68.astype(np.float64),
            "coverage_95": calibration.covered_95.astype(np.float64),
        }
        metrics |= estimate_means(means, rng=for_sigma, n_resamples=n_resamples)
        pit_counts = calibration.pit_counts()
    if columns.against is not None:
        comparison = Comparison.of(true, predicted, values[columns.against], rng=for_pairs, n_resamples=n_resamples)
    return Scores(
        columns=columns,
        n_rows=len(table),
        n=residuals.n,
        left_out=left_out,
        metrics=metrics,
        bins=bins,
        pit_counts=pit_counts,
        comparison=comparison,
        n_resamples=n_resamples,
        seed=seed,
    )


def usable_rows(table: pd.DataFrame, columns: ScoredColumns) -> tuple[dict[str, Values], dict[str, int]]:
    """Numbers of the rows that count, sorted by value, and the number of other rows by their first reason.

    Parameters
    ----------
    table
        One row an object.
    columns
        Which columns to use. Null, NaN, -9999 and infinities are no numbers; sigma must be above 0.

    Returns
    -------
    tuple
        (object,) float64 by name of the column, and rows left out by reason. Together they are all rows.

    Raises
    ------
    CatalogError
        A column is absent or not of numbers, or no row is left.
    """
    values = {name: _numbers(table, name) for name in columns.names}
    kept = np.ones(len(table), dtype=np.bool_)
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
            n_lost = int(np.count_nonzero(rows & kept))
            if n_lost:
                left_out[reason] = n_lost
                kept &= ~rows
    if not kept.any():
        why = "; ".join(f"{n:,} rows: {reason}" for reason, n in left_out.items()) or "it has no rows at all"
        raise CatalogError(f"no row is left to evaluate: {why}. Give a table with numbers in {', '.join(values)}")
    order = np.lexsort([column[kept] for column in reversed(values.values())])
    return {name: column[kept][order] for name, column in values.items()}, left_out


def _numbers(table: pd.DataFrame, name: str) -> Values:
    if name not in table.columns:
        names = [str(column) for column in table.columns]
        close = get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names[:20])}"
        raise CatalogError(f"there is no column {name!r}; {hint}")
    column = table[name]
    if column.isna().all():
        return np.full(len(table), np.nan)
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        first = column.dropna().iloc[0]
        raise CatalogError(
            f"column {name!r} holds {column.dtype} values, as {str(first)[:40]!r}; numbers are needed: name another "
            "column, or leave what is unknown blank"
        )
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

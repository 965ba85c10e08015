"""Baselines that a network has to beat, fitted to the same training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

from modeling.evaluation.column_checks import Values
from modeling.evaluation.metrics import Regression

FOREST_COLUMNS = ("modelMag_g", "modelMag_r", "modelMag_i")
"""Magnitudes of the bands that the images are made of (Wu & Boada 2019, section 4.2)."""
N_TREES = 40
MIN_LEAF = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Predictions of a baseline, or the reason for their absence."""

    name: str
    predicted: Values | None
    """(object,) of the evaluated rows, in the unit of the label; NaN if a row lacks an input. None if the baseline
    could not be fitted."""
    note: str = ""
    """Reason for absent predictions, or number of rows that are left out; empty if all rows are predicted."""

    def against(self, true: Values) -> Regression | str:
        """Measure the baseline on the rows that it predicts, true: (object,); return the note if it predicts none."""
        if self.predicted is None:
            return self.note
        scored = np.isfinite(self.predicted)
        return Regression.of(true[scored], self.predicted[scored])


def predict_mean(train_labels: Values, n: int) -> Baseline:
    """Predict the mean of the training labels, (object,) without NaN, for n objects.

    Examples
    --------
    >>> predict_mean(np.array([8.0, 9.0]), 3).predicted
    array([8.5, 8.5, 8.5])
    """
    return Baseline(name="mean of training labels", predicted=np.full(n, np.mean(train_labels)))


def predict_forest(
    train_catalog: pd.DataFrame,
    train_labels: Values,
    catalog: pd.DataFrame,
    *,
    columns: Sequence[str] = FOREST_COLUMNS,
    seed: int = 0,
) -> Baseline:
    """Predict with the paper's random forest on magnitudes: 40 trees, at least 8 galaxies per leaf.

    Parameters
    ----------
    train_catalog, catalog
        Have `columns`, mag; null if unknown. Rows of `train_catalog` as in `train_labels`.
    columns
        Inputs of the trees; by default the paper's g, r and i.

    Returns
    -------
    Baseline
        Training rows with a null magnitude are left out, and evaluated rows with one get NaN: no magnitude is
        imputed. Both are counted in `note`. No predictions if a column is absent or too few rows are complete.
    """
    name = "random forest on g, r, i magnitudes" if tuple(columns) == FOREST_COLUMNS else "random forest on magnitudes"
    if len(train_catalog) != len(train_labels):
        raise ValueError(f"{len(train_catalog)} catalog rows and {len(train_labels)} labels: give one label per row")
    for rows, table in (("training", train_catalog), ("evaluated", catalog)):
        absent = [column for column in columns if column not in table.columns or table[column].isna().all()]
        if absent or not columns:
            missing = f"values of {', '.join(absent)}" if absent else "magnitudes"
            return Baseline(name=name, predicted=None, note=f"not fitted: the {rows} rows lack {missing}")
    train_magnitudes, magnitudes = (
        table[list(columns)].to_numpy(dtype=np.float64, na_value=np.nan) for table in (train_catalog, catalog)
    )
    complete, scored = (np.isfinite(values).all(axis=1) for values in (train_magnitudes, magnitudes))
    inputs = f"all {len(columns)} magnitudes" if len(columns) != len(FOREST_COLUMNS) else "all three magnitudes"
    if complete.sum() < 2 * MIN_LEAF or not scored.any():
        found = f"{complete.sum()} training and {scored.sum()} evaluated rows have {inputs}"
        return Baseline(name=name, predicted=None, note=f"not fitted: {found}, needed are {2 * MIN_LEAF} and 1")
    forest = RandomForestRegressor(n_estimators=N_TREES, min_samples_leaf=MIN_LEAF, random_state=seed, n_jobs=1)
    forest.fit(train_magnitudes[complete], train_labels[complete])
    predicted = np.full(len(catalog), np.nan)
    predicted[scored] = forest.predict(magnitudes[scored])
    note = ""
    if not (complete.all() and scored.all()):
        note = f"{(~complete).sum()} training and {(~scored).sum()} evaluated rows without {inputs} are left out"
    return Baseline(name=name, predicted=predicted, note=note)


def known_magnitudes(catalog: pd.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns with at least one value, in the given order: a survey may lack a band.

    Examples
    --------
    >>> known_magnitudes(pd.DataFrame({"modelMag_u": [np.nan], "modelMag_g": [17.0]}), ("modelMag_u", "modelMag_g"))
    ('modelMag_g',)
    """
    return tuple(name for name in names if name in catalog.columns and catalog[name].notna().any())

"""Baselines: what a network has to beat, from the same training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from modeling.evaluation.metrics import Regression

FOREST_COLUMNS = ("modelMag_g", "modelMag_r", "modelMag_i")
"""Magnitudes of the bands that the images are made of (Wu & Boada 2019, section 4.2)."""

N_TREES = 40
MIN_LEAF = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Predictions of a baseline, or why there are none."""

    name: str
    predicted: NDArray[np.float64] | None
    """(object,) of the evaluated rows, in the unit of the label; NaN where a row lacks an input. None where the
    baseline could not be fitted at all."""
    note: str = ""
    """Why there are no predictions, or what they leave out; empty where there is nothing to say."""

    def against(self, true: NDArray[np.float64]) -> Regression | str:
        """How well the baseline does on the rows that it predicts, or why it predicts none.

        Parameters
        ----------
        true
            (object,) of the evaluated rows, without NaN.
        """
        if self.predicted is None:
            return self.note
        scored = np.isfinite(self.predicted)
        return Regression.of(true[scored], self.predicted[scored])


def predict_mean(train_labels: NDArray[np.float64], n: int) -> Baseline:
    """The mean of the training labels, for every object.

    Parameters
    ----------
    train_labels
        (object,), without NaN.
    n
        Objects to predict.

    Examples
    --------
    >>> predict_mean(np.array([8.0, 9.0]), 3).predicted
    array([8.5, 8.5, 8.5])
    """
    return Baseline(name="mean of training labels", predicted=np.full(n, np.mean(train_labels)))


def predict_forest(
    train_catalog: pd.DataFrame,
    train_labels: NDArray[np.float64],
    catalog: pd.DataFrame,
    *,
    columns: Sequence[str] = FOREST_COLUMNS,
    seed: int = 0,
) -> Baseline:
    """The paper's random forest on magnitudes: 40 trees, at least 8 galaxies a leaf.

    Parameters
    ----------
    train_catalog
        Has `columns`, mag; null where unknown. Rows as in `train_labels`.
    train_labels
        (object,), without NaN.
    catalog
        The same columns of the rows to predict.
    columns
        What the trees see; by default the paper's g, r and i.
    seed
        Of the trees.

    Returns
    -------
    Baseline
        Training rows with a null magnitude are left out, and evaluated rows with one get NaN: no magnitude is made
        up. Both are counted in `note`. No predictions where a column is absent or too few rows are complete.

    Raises
    ------
    ValueError
        Catalog and labels of different length.
    """
    name = "random forest on g, r, i magnitudes" if tuple(columns) == FOREST_COLUMNS else "random forest on magnitudes"
    if len(train_catalog) != len(train_labels):
        raise ValueError(f"{len(train_catalog)} catalog rows and {len(train_labels)} labels: give one label a row")
    for which, table in (("training", train_catalog), ("evaluated", catalog)):
        absent = [column for column in columns if column not in table.columns or table[column].isna().all()]
        if absent or not columns:
            what = f"values of {', '.join(absent)}" if absent else "magnitudes"
            return Baseline(name=name, predicted=None, note=f"not fitted: the {which} rows have no {what}")
    train_magnitudes, magnitudes = _magnitudes(train_catalog, columns), _magnitudes(catalog, columns)
    complete, scored = _complete(train_magnitudes), _complete(magnitudes)
    all_of_them = f"all {len(columns)} magnitudes" if len(columns) != len(FOREST_COLUMNS) else "all three magnitudes"
    if complete.sum() < 2 * MIN_LEAF or not scored.any():
        return Baseline(
            name=name,
            predicted=None,
            note=f"not fitted: {complete.sum()} training and {scored.sum()} evaluated rows have {all_of_them}, "
            f"needed are {2 * MIN_LEAF} and 1",
        )
    forest: Any = RandomForestRegressor(n_estimators=N_TREES, min_samples_leaf=MIN_LEAF, random_state=seed, n_jobs=1)
    forest.fit(train_magnitudes[complete], train_labels[complete])
    predicted = np.full(len(catalog), np.nan)
    predicted[scored] = forest.predict(magnitudes[scored])
    return Baseline(name=name, predicted=predicted, note=_left_out(~complete, ~scored, all_of_them))


def known_magnitudes(catalog: pd.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """Those of some magnitudes that at least one row of a catalog has, in their order: a survey may lack a band.

    Examples
    --------
    >>> known_magnitudes(pd.DataFrame({"modelMag_u": [np.nan], "modelMag_g": [17.0]}), ("modelMag_u", "modelMag_g"))
    ('modelMag_g',)
    """
    return tuple(name for name in names if name in catalog.columns and catalog[name].notna().any())


def _magnitudes(catalog: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.float64]:
    return catalog[list(columns)].to_numpy(dtype=np.float64, na_value=np.nan)


def _complete(magnitudes: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(magnitudes).all(axis=1), dtype=np.bool_)


def _left_out(train_rows: NDArray[np.bool_], rows: NDArray[np.bool_], all_of_them: str) -> str:
    if not train_rows.any() and not rows.any():
        return ""
    return f"{train_rows.sum()} training and {rows.sum()} evaluated rows without {all_of_them} are left out"

"""Split-conformal prediction intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from modeling.evaluation.column_checks import Values, check_columns, check_sigma
from schemas.errors import TrainingError

CONFORMAL_LEVELS = (0.68, 0.95)
MIN_INTERVAL_ROWS = 3
"""Validation rows that a 68 % interval needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformalIntervals:
    """Split-conformal intervals, which cover a chosen share of new objects for any predictor.

    The coverage holds on average over new objects that are drawn like the validation rows. The predictor must not have
    been trained on these rows. Fields are plain: `dataclasses.asdict` gives JSON values, and
    `ConformalIntervals(**values)` reads them.

    Examples
    --------
    >>> fitted = ConformalIntervals.of(true=[1.0, 2.0, 3.0, 4.0], predicted=[1.1, 1.8, 3.3, 4.4])
    >>> print(round(fitted.score_68, 3), fitted.score_95)
    0.4 None
    """

    n: int
    """Number of validation rows."""
    by_sigma: bool
    """True if scores are in units of the predictor's sigma, False if in the unit of the label."""
    score_68: float | None
    """Half-width of the 68 % interval: |true - predicted| (/ sigma); None if n is too small."""
    score_95: float | None

    @classmethod
    def of(cls, true: ArrayLike, predicted: ArrayLike, sigma: ArrayLike | None = None) -> ConformalIntervals:
        """Fit the intervals to validation rows.

        The half-width is the ceil((n + 1) level)-th smallest score, that is the ceil((n + 1) level) / n quantile
        (Vovk et al. 2005; Angelopoulos & Bates 2021, section 1). Intervals cover at least `level` of new objects, and
        at most 1 / (n + 1) more if scores have no ties.

        Parameters
        ----------
        true, predicted
            (object,) each, in the unit of the label, finite. A 68 % interval needs 3 rows, a 95 % interval 19.
        sigma
            (object,), above 0, same unit: half-widths are then proportional to the sigma of each object.

        Raises
        ------
        TrainingError
            Fewer rows than the 68 % interval needs.
        """
        t, p = check_columns(true=true, predicted=predicted)
        scores = np.abs(t - p)
        if sigma is not None:
            scores = scores / check_sigma(sigma, t.size)
        scores.sort()
        narrow, wide = (_score_at(scores, level) for level in CONFORMAL_LEVELS)
        if narrow is None:
            level = CONFORMAL_LEVELS[0]
            needed = math.ceil(round(level / (1 - level), 9))
            raise TrainingError(
                f"{t.size} validation rows are too few for a {100 * level:.0f} % conformal interval, which needs "
                f"{needed}: give more validation rows"
            )
        return cls(n=t.size, by_sigma=sigma is not None, score_68=narrow, score_95=wide)

    def half_widths(self, sigma: Values, level: float) -> Values:
        """Return half the width of the interval of each object, in the unit of the label, (object,).

        `level` is 0.68 or 0.95; NaN if the validation rows were too few for it. Only the number of the predicted
        standard deviations counts unless `by_sigma`.
        """
        score = {CONFORMAL_LEVELS[0]: self.score_68, CONFORMAL_LEVELS[1]: self.score_95}[level]
        if score is None:
            return np.full(sigma.shape, np.nan)
        return score * sigma if self.by_sigma else np.full(sigma.shape, score)


def _score_at(sorted_scores: Values, level: float) -> float | None:
    # 25 * 0.68 is 17.000000000000004 in binary, and its ceiling 18
    rank = math.ceil(round((sorted_scores.size + 1) * level, 9))
    return float(sorted_scores[rank - 1]) if rank <= sorted_scores.size else None

"""Numbers of Wu & Boada (2019), measured on one table of galaxies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from modeling.evaluation.binned_relation import SparseRelationError
from modeling.evaluation.bootstrap import ValueWithError
from modeling.evaluation.column_checks import Values
from modeling.evaluation.fundamental_relation import measure_fundamental_relation
from modeling.evaluation.mass_metallicity import (
    PIVOT_LOG_MASS,
    measure_flattening,
    measure_mass_slopes,
    measure_mzr_scatter,
    tremonti_metallicity,
)
from modeling.evaluation.metrics import Regression
from modeling.figures.paper import Galaxies


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Measured number beside the value of the paper."""

    name: str
    value: float
    n_galaxies: int
    error: float | None = None
    """Standard error; None if it was not measured."""
    paper: float | None = None
    """Value in Wu & Boada (2019) at 128 px; None if they give none."""
    paper_error: float | None = None

    @property
    def text(self) -> str:
        return f"{self.value:.4f}" if self.error is None else f"{self.value:.4f} ± {self.error:.4f}"

    @property
    def paper_text(self) -> str:
        if self.paper is None:
            return ""
        return f"{self.paper:.4f}" if self.paper_error is None else f"{self.paper:.3f} ± {self.paper_error:.3f}"


def measure_paper_numbers(galaxies: Galaxies, *, of_metallicity: bool = True, seed: int = 0) -> list[Measurement]:
    """Measure every number that the available quantities allow; numbers of too few galaxies are left out.

    Units are dex, dex per dex, or none (ratio, rank correlation). Unless values are metallicities, the numbers of
    the paper do not apply.
    """
    steps: tuple[tuple[tuple[str, ...], Callable[..., Iterator[Measurement]]], ...] = (
        (("true", "predicted"), _of_metallicity),
        (("log_mass", "predicted_log_mass"), _of_mass),
        (("true", "predicted_log_mass"), _of_metallicity_from_mass),
        (("log_mass", "true", "predicted"), _of_relation),
        (("log_mass", "log_sfr", "true", "predicted"), _of_fundamental),
    )
    found: list[Measurement] = []
    for needs, measure in steps:
        if all(name in galaxies.columns for name in needs):
            complete = galaxies.complete(*needs)
            if complete.any():
                try:
                    found += measure(*(galaxies.columns[name][complete] for name in needs), seed)
                except SparseRelationError:  # the figure of the same quantities reports it
                    continue
    return found if of_metallicity else [replace(number, paper=None, paper_error=None) for number in found]


def _of_metallicity(true: Values, predicted: Values, seed: int) -> Iterator[Measurement]:
    result = Regression.of(true, predicted)
    yield Measurement(name="RMSE", value=result.rmse, n_galaxies=result.n, paper=0.0851)
    yield Measurement(name="NMAD", value=result.nmad, n_galaxies=result.n, paper=0.0668)
    yield Measurement(name="bias", value=result.bias, n_galaxies=result.n)
    yield _measured("slope of predicted on true", measure_flattening(true, predicted, seed=seed), result.n)


def _of_mass(log_mass: Values, predicted: Values, seed: int) -> Iterator[Measurement]:
    result = Regression.of(log_mass, predicted)
    yield Measurement(name="mass: RMSE", value=result.rmse, n_galaxies=result.n, paper=0.2229)
    yield Measurement(name="mass: NMAD", value=result.nmad, n_galaxies=result.n, paper=0.1985)
    yield _measured("mass: slope of predicted on true", measure_flattening(log_mass, predicted, seed=seed), result.n)


def _of_metallicity_from_mass(true: Values, predicted_log_mass: Values, seed: int) -> Iterator[Measurement]:
    del seed
    from_mass = tremonti_metallicity(predicted_log_mass)
    inside = np.isfinite(from_mass)
    if inside.any():
        result = Regression.of(true[inside], from_mass[inside])
        yield Measurement(name="metallicity from mass: RMSE", value=result.rmse, n_galaxies=result.n, paper=0.1208)
        yield Measurement(name="metallicity from mass: NMAD", value=result.nmad, n_galaxies=result.n, paper=0.1008)


def _of_relation(log_mass: Values, true: Values, predicted: Values, seed: int) -> Iterator[Measurement]:
    scatter = measure_mzr_scatter(log_mass, true, predicted, seed=seed)
    yield _measured("scatter at given mass, true", scatter.true, scatter.n)
    yield _measured("scatter at given mass, predicted", scatter.predicted, scatter.n)
    yield _measured("scatter ratio, predicted / true", scatter.ratio, scatter.n, paper=0.821, paper_error=0.077)
    for side, slopes in measure_mass_slopes(log_mass, true, predicted, seed=seed).items():
        where = f"at log M {'<' if side == 'low' else '>='} {PIVOT_LOG_MASS:g}"
        yield _measured(f"slope with mass {where}, true", slopes.true, slopes.n)
        yield _measured(f"slope with mass {where}, predicted", slopes.predicted, slopes.n)
        yield _measured(f"slope with mass {where}, change", slopes.change, slopes.n)


def _of_fundamental(
    log_mass: Values, log_sfr: Values, true: Values, predicted: Values, seed: int
) -> Iterator[Measurement]:
    relation = measure_fundamental_relation(log_mass, log_sfr, true, predicted, seed=seed)
    n = relation.residuals.log_sfr.size
    for name, trend in (("true", relation.true), ("predicted", relation.predicted)):
        yield _measured(f"fundamental relation: Spearman, {name}", trend.spearman, n)
        yield _measured(f"fundamental relation: slope, {name}", trend.slope, n)


def _measured(
    name: str, estimate: ValueWithError, n: int, *, paper: float | None = None, paper_error: float | None = None
) -> Measurement:
    return Measurement(
        name=name, value=estimate.value, error=estimate.error, n_galaxies=n, paper=paper, paper_error=paper_error
    )

"""All figures of Wu & Boada (2019) from one table of galaxies, with reasons for the missing ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from modeling.evaluation.binned_relation import SparseRelationError
from modeling.evaluation.fundamental_relation import measure_fundamental_relation
from modeling.evaluation.mass_metallicity import measure_mzr_scatter, tremonti_metallicity
from modeling.figures import relations
from modeling.figures.gallery import draw_gallery, gallery_rows
from modeling.figures.predictions import draw_comparison, draw_distributions
from modeling.figures.resolution import SweepPoint, draw_resolution
from modeling.figures.style import Values, mark_simulated

QUANTITIES = ("true", "predicted", "log_mass", "predicted_log_mass", "log_sfr")
ReadCutouts = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Galaxies:
    """Data of the figures: columns of shape (object,), NaN if a galaxy lacks the value.

    Masses are log10(M / solar mass), star formation rates log10(solar masses a year).
    """

    columns: Mapping[str, Values]
    """Available columns by name, one of `QUANTITIES`."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Messages that explain missing columns, by name; also for 'cutouts' and 'sweep'."""
    has_cutout: NDArray[np.bool_] | None = None
    """(object,)."""
    read_cutouts: ReadCutouts | None = None
    """Function of row numbers that returns (n, y, x, band) uint8, bands in the order red, green, blue."""
    sweep: Sequence[SweepPoint] = ()

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns have the lengths {lengths}: give one value per galaxy in each")

    def complete(self, *names: str) -> NDArray[np.bool_]:
        """Return a mask of the galaxies with all of these quantities, (object,)."""
        return np.asarray(np.isfinite([self.columns[name] for name in names]).all(axis=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperFigure:
    """Figure, or the reason for its absence."""

    name: str
    title: str
    figure: Figure | None = None
    n_galaxies: int = 0
    n_left_out: int = 0
    """Galaxies that lack a quantity, or have a predicted mass outside Tremonti's relation (Figure 5b)."""
    reason: str = ""


class _Plan(NamedTuple):
    name: str
    title: str
    needs: tuple[str, ...]
    draw: Callable[..., Figure]
    """Function of the needed columns and the label."""


def _draw_from_mass(true: Values, predicted_log_mass: Values, label: str) -> Figure:
    return relations.draw_metallicity_from_mass(true, tremonti_metallicity(predicted_log_mass), label=label)


def _draw_mzr(log_mass: Values, true: Values, predicted: Values, label: str) -> Figure:
    scatter = measure_mzr_scatter(log_mass, true, predicted)
    return relations.draw_mzr(log_mass, true, predicted, label=label, scatter=scatter)


def _draw_fundamental(log_mass: Values, log_sfr: Values, true: Values, predicted: Values, label: str) -> Figure:
    del label
    return relations.draw_fundamental_relation(measure_fundamental_relation(log_mass, log_sfr, true, predicted))


PLANS = (
    _Plan(
        "figure-2-distributions",
        "distributions of true and predicted values",
        ("true", "predicted"),
        lambda true, predicted, label: draw_distributions(true, predicted, label=label),
    ),
    _Plan(
        "figure-3-comparison",
        "predicted against true, and its scatter",
        ("true", "predicted"),
        lambda true, predicted, label: draw_comparison(true, predicted, label=label),
    ),
    _Plan(
        "figure-5a-mass",
        "stellar mass, predicted against true",
        ("log_mass", "predicted_log_mass"),
        lambda mass, predicted, label: relations.draw_mass_comparison(mass, predicted),  # noqa: ARG005
    ),
    _Plan(
        "figure-5b-metallicity-from-mass",
        "metallicity from the predicted mass through Tremonti et al. (2004), against true",
        ("true", "predicted_log_mass"),
        _draw_from_mass,
    ),
    _Plan(
        "figure-6-mass-metallicity",
        "mass-metallicity relation, true and predicted",
        ("log_mass", "true", "predicted"),
        _draw_mzr,
    ),
    _Plan(
        "fundamental-relation",
        "residual metallicity against residual star formation rate",
        ("log_mass", "log_sfr", "true", "predicted"),
        _draw_fundamental,
    ),
)


def draw_paper_figures(galaxies: Galaxies, *, label: str, simulated: bool = False, seed: int = 0) -> list[PaperFigure]:
    """Draw every figure that the available quantities allow.

    Parameters
    ----------
    galaxies
        Rows that lack a quantity are left out of the figures that need it, and counted.
    label
        Name of the target, as in '12 + log(O/H)'.
    simulated
        Mark each figure as one of simulated galaxies.

    Returns
    -------
    list of PaperFigure
        In the order of the paper; a missing figure is None with a reason.
    """
    drawn = [_gallery(galaxies, seed=seed)]
    for plan in PLANS:
        drawn.append(_drawn(plan, galaxies, label))
        if plan.name.startswith("figure-3"):
            drawn.append(_resolution(galaxies))
    for paper_figure in drawn:
        if simulated and paper_figure.figure is not None:
            mark_simulated(paper_figure.figure)
    return drawn


def _drawn(plan: _Plan, galaxies: Galaxies, label: str) -> PaperFigure:
    missing = [name for name in plan.needs if name not in galaxies.columns]
    if missing:
        return PaperFigure(name=plan.name, title=plan.title, reason=_reason(galaxies, missing))
    complete = galaxies.complete(*plan.needs)
    if plan.draw is _draw_from_mass:
        complete &= np.isfinite(tremonti_metallicity(galaxies.columns["predicted_log_mass"]))
    n = int(np.count_nonzero(complete))
    reason, figure = f"no galaxy has finite values of {', '.join(plan.needs)}", None
    if n:
        try:
            figure, reason = plan.draw(*(galaxies.columns[name][complete] for name in plan.needs), label), ""
        except SparseRelationError as error:
            reason = str(error)
    return PaperFigure(
        name=plan.name, title=plan.title, figure=figure, n_galaxies=n, n_left_out=len(complete) - n, reason=reason
    )


def _gallery(galaxies: Galaxies, *, seed: int) -> PaperFigure:
    name, title = "figure-1-cutouts", "cutouts with predicted and true values"
    missing = [column for column in ("true", "predicted") if column not in galaxies.columns]
    if galaxies.read_cutouts is None or galaxies.has_cutout is None:
        missing.append("cutouts")
    if missing or galaxies.read_cutouts is None or galaxies.has_cutout is None:
        return PaperFigure(name=name, title=title, reason=_reason(galaxies, missing))
    rows_shown = np.flatnonzero(galaxies.complete("true", "predicted") & galaxies.has_cutout)
    n_left_out = len(galaxies.has_cutout) - rows_shown.size
    if not rows_shown.size:
        return PaperFigure(
            name=name, title=title, n_left_out=n_left_out, reason="no galaxy with finite values has a stored cutout"
        )
    true, predicted = (galaxies.columns[column][rows_shown] for column in ("true", "predicted"))
    rows = gallery_rows(true, predicted, seed=seed)
    wanted, place = np.unique(np.concatenate(list(rows.values())), return_inverse=True)
    pixels = galaxies.read_cutouts(rows_shown[wanted])
    split = np.split(pixels[place], np.cumsum([len(chosen) for chosen in rows.values()])[:-1])
    figure = draw_gallery(dict(zip(rows, split, strict=True)), rows, true, predicted)
    return PaperFigure(name=name, title=title, figure=figure, n_galaxies=rows_shown.size, n_left_out=n_left_out)


def _resolution(galaxies: Galaxies) -> PaperFigure:
    name, title = "figure-4-resolution", "RMSE and NMAD against the side of the images"
    if not galaxies.sweep:
        return PaperFigure(name=name, title=title, reason=_reason(galaxies, ["sweep"]))
    return PaperFigure(name=name, title=title, figure=draw_resolution(galaxies.sweep))


def _reason(galaxies: Galaxies, missing: Sequence[str]) -> str:
    return "; ".join(galaxies.absent.get(name, f"no {name.replace('_', ' ')}") for name in missing)

"""Figures 5 and 6 of the paper: mass and metallicity; and the fundamental relation as residuals."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from modeling.evaluation.binned_relation import MASS_BIN_DEX, BinnedRelation
from modeling.evaluation.fundamental_relation import FundamentalRelation, Trend
from modeling.evaluation.mass_metallicity import TREMONTI_RANGE, MzrScatter, tremonti_metallicity
from modeling.figures.predictions import METALLICITY_RANGE, compare_values
from modeling.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PAGE_INCHES,
    Values,
    count_bar,
    draw_counts,
    legend,
    share_counts,
    tidy,
)

MASS_RANGE = (8.4, 11.4)
"""Range of log mass in the paper's figures."""
MASS_LABEL = "log(M / M$_\\odot$)"
Range = tuple[float, float]


def draw_mass_comparison(log_mass: Values, predicted_log_mass: Values) -> Figure:
    """Draw Figure 5, left: predicted log10(M / solar mass) against the catalog's, (object,), in bins of 0.2 dex."""
    labels = {"x_label": f"true {MASS_LABEL}", "y_label": f"predicted {MASS_LABEL}"}
    return compare_values(log_mass, predicted_log_mass, **labels, bin_dex=MASS_BIN_DEX, usual_range=MASS_RANGE)


def draw_metallicity_from_mass(true: Values, from_mass: Values, *, label: str) -> Figure:
    """Draw Figure 5, right: metallicity from the predicted mass against the true one, (object,) each, finite."""
    return compare_values(true, from_mass, x_label=f"true {label}", y_label=f"{label} from predicted mass")


def draw_mzr(log_mass: Values, true: Values, predicted: Values, *, label: str, scatter: MzrScatter) -> Figure:
    """Draw the mass-metallicity relation, true (left) and predicted (right), with Tremonti et al. (2004) on both.

    Each panel is a 2-D histogram with the median and the 16th and 84th percentiles in bins of 0.2 dex; the right one
    repeats the true median, which shows where the predicted relation is flatter. Columns are (object,), finite; the
    scatter belongs to the same galaxies.
    """
    figure = Figure(figsize=(PAGE_INCHES, 3.3), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    x_range, y_range = _usual(log_mass, MASS_RANGE), _usual(np.concatenate([true, predicted]), METALLICITY_RANGE)
    relations = [BinnedRelation.of(log_mass, values) for values in (true, predicted)]
    curve = np.linspace(*TREMONTI_RANGE, 200)[1:-1]
    sets = (
        ("true", true, relations[0], f"NMAD {scatter.true.value:.3f} dex", ORANGE),
        ("predicted", predicted, relations[1], f"NMAD {scatter.predicted.value:.3f} dex\nratio {scatter.ratio}", BLUE),
    )
    meshes = []
    for axis, (name, values, relation, text, colour) in zip(panels, sets, strict=True):
        meshes.append(draw_counts(axis, log_mass, values, x_range=x_range, y_range=y_range, alpha=0.7))
        axis.plot(curve, tremonti_metallicity(curve), color="black", linewidth=1.2, linestyle="--", zorder=4)
        if name == "predicted":
            axis.plot(relations[0].centre, relations[0].median, color=ORANGE, linewidth=1.4, label="median, true")
        axis.plot(relation.centre, relation.median, color=colour, linewidth=1.8, label=f"median, {name}")
        for side, outer in ((relation.p16, f"16th and 84th percentile, {name}"), (relation.p84, None)):
            axis.plot(relation.centre, side, color=colour, linewidth=1, linestyle=":", label=outer)
        axis.plot([], [], color="black", linewidth=1.2, linestyle="--", label="Tremonti et al. (2004)")
        axis.set(xlabel=MASS_LABEL, xlim=x_range, ylim=y_range)
        axis.text(0.03, 0.97, text, transform=axis.transAxes, fontsize=8, ha="left", va="top", color=colour)
        legend(axis, loc="lower right")
    panels[0].set_ylabel(f"true {label}")
    panels[1].set_ylabel(f"predicted {label}")
    panels[1].tick_params(labelleft=True)
    drawn = [mesh for mesh in meshes if mesh is not None]
    if drawn:
        share_counts(drawn)
        count_bar(figure, drawn[0], panels, aspect=30, pad=0.01)
    tidy(*panels)
    return figure


def draw_fundamental_relation(relation: FundamentalRelation) -> Figure:
    """Draw residual metallicity against residual star formation rate, true (left) and predicted (right).

    Residuals are relative to the median at the same mass. The line has the least-squares slope of all galaxies. Points
    with bars are medians and 16th and 84th percentiles in bins of 0.2 dex.
    """
    figure = Figure(figsize=(PAGE_INCHES, 3.1), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    x = relation.residuals.log_sfr
    both = np.concatenate([relation.residuals.true, relation.residuals.predicted])
    x_range, y_range = _spread(x), _spread(both)
    sets = (
        ("true", relation.residuals.true, relation.true, ORANGE),
        ("predicted", relation.residuals.predicted, relation.predicted, BLUE),
    )
    for axis, (name, values, trend, colour) in zip(panels, sets, strict=True):
        draw_counts(axis, x, values, x_range=x_range, y_range=y_range, alpha=0.7)
        axis.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
        binned = BinnedRelation.of(x, values)
        shown = (binned.centre > x_range[0]) & (binned.centre < x_range[1])
        bars = np.array([binned.median - binned.p16, binned.p84 - binned.median])[:, shown]
        centre, median = binned.centre[shown], binned.median[shown]
        axis.errorbar(centre, median, yerr=bars, color=colour, fmt="o", markersize=3.5, linewidth=1)
        ends = np.array(x_range)
        middle = float(values.mean() - trend.slope.value * x.mean())
        axis.plot(ends, middle + trend.slope.value * ends, color=GREEN, linewidth=1.4)
        axis.text(0.97, 0.97, _trend_text(trend), transform=axis.transAxes, fontsize=8, ha="right", va="top")
        axis.set(xlabel="residual log SFR at given mass [dex]", ylabel=f"residual {name} metallicity [dex]")
        axis.set(xlim=x_range, ylim=y_range)
    panels[1].tick_params(labelleft=True)
    tidy(*panels)
    return figure


def _trend_text(trend: Trend) -> str:
    numbers = (("Spearman", trend.spearman), ("slope", trend.slope))
    lines = [f"{name} {number.value:+.3f} ± {number.error:.3f}" for name, number in numbers]
    return "\n".join(lines).replace("-", "\N{MINUS SIGN}")


def _usual(values: Values, usual: Range) -> Range:
    return usual if np.mean((values >= usual[0]) & (values <= usual[1])) >= 0.95 else _spread(values)


def _spread(values: Values) -> Range:
    low, high = (float(q) for q in np.quantile(values, [0.002, 0.998]))
    margin = 0.08 * (high - low) + 1e-6
    return low - margin, high + margin

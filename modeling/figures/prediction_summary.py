"""Figures of the predictions of a catalog: distributions, calibration and mass-metallicity relation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from galstore.profile.distribution import Distribution
from modeling.evaluation.calibration import N_PIT_BINS
from modeling.evaluation.mass_metallicity import TREMONTI_RANGE, tremonti_metallicity
from modeling.evaluation.prediction_summary import (
    MASS_EDGES,
    METALLICITY_EDGES,
    CalibrationTally,
    Integers,
    relation_percentiles,
)
from modeling.figures.quality import shared_edges, shares
from modeling.figures.relations import MASS_LABEL
from modeling.figures.style import BLUE, COUNTS, GREEN, GREY, ORANGE, PAGE_INCHES, count_bar, legend, one_panel, tidy

MASS_SHOWN, METALLICITY_SHOWN = (8.0, 12.0), (8.0, 9.4)


def draw_scored(new: Distribution, *, labels: Distribution, held_out: Distribution, label: str) -> Figure:
    """Draw predictions of a new catalog with the training labels and predictions of held-out galaxies, as shares."""
    figure = Figure(figsize=(PAGE_INCHES * 0.8, 2.9), layout="constrained")
    axis = figure.subplots()
    edges = shared_edges([new, labels, held_out])
    axis.stairs(shares(labels, edges), edges, fill=True, color=ORANGE, alpha=0.35, label="training labels")
    axis.stairs(
        shares(held_out, edges), edges, color=GREEN, linewidth=1.4, linestyle="--", label="predicted, held-out galaxies"
    )
    axis.stairs(shares(new, edges), edges, color=BLUE, linewidth=1.8, label="predicted, new catalog")
    axis.set(xlabel=label, ylabel="share of objects", ylim=(0, None))
    tidy(axis)
    legend(axis, loc="upper left", fontsize=8)
    return figure


def draw_pit(tallies: Mapping[str, CalibrationTally]) -> Figure:
    """Draw the probability integral transform as shares: flat if calibrated, a U shape if sigmas are too small."""
    figure, axis = one_panel(2.5)
    edges = np.linspace(0, 1, N_PIT_BINS + 1)
    for (name, tally), colour, style in zip(tallies.items(), (GREEN, BLUE), ("--", "-"), strict=False):
        shown = tally.pit_counts / max(1, tally.n_with_bars)
        axis.stairs(shown, edges, color=colour, linewidth=1.6, linestyle=style, label=name)
    axis.axhline(1 / N_PIT_BINS, color=GREY, linewidth=1, linestyle=":", label="right error bars")
    highest = max(float((tally.pit_counts / max(1, tally.n_with_bars)).max()) for tally in tallies.values())
    axis.set(xlabel="predicted probability of a lower value", ylabel="share of objects", xlim=(0, 1))
    axis.set_ylim(0, 1.45 * max(highest, 1 / N_PIT_BINS))
    legend(axis, loc="upper left")
    return figure


def draw_relation(counts: Integers, *, label: str) -> Figure:
    """Draw predicted metallicity against mass, its median, 16th and 84th percentiles, and Tremonti et al. (2004).

    Counts are `modeling.evaluation.prediction_summary.PredictionSummary.relation`, with at least one object.
    """
    figure, axis = one_panel(3.1)
    # bins of 0.01 dex are needed for the percentiles; 0.05 dex are easier to read
    coarse = counts.reshape(counts.shape[0], -1, 5).sum(axis=2)
    mesh = axis.pcolormesh(
        MASS_EDGES,
        METALLICITY_EDGES[::5],
        np.ma.masked_equal(coarse.T, 0),
        cmap=COUNTS,
        norm=LogNorm(1, max(2, int(coarse.max()))),
        rasterized=True,
        alpha=0.7,
    )
    count_bar(figure, mesh, axis, aspect=25, pad=0.02)
    centres, percentiles = relation_percentiles(counts)
    axis.plot(centres, percentiles[:, 1], color=BLUE, linewidth=1.8, label="median, predicted")
    for side, name in ((0, "16th and 84th percentile"), (2, None)):
        axis.plot(centres, percentiles[:, side], color=BLUE, linewidth=1, linestyle=":", label=name)
    curve = np.linspace(*TREMONTI_RANGE, 100)[1:-1]
    axis.plot(
        curve, tremonti_metallicity(curve), color="black", linewidth=1.2, linestyle="--", label="Tremonti et al. (2004)"
    )
    axis.set(xlabel=MASS_LABEL, ylabel=f"predicted {label}", xlim=MASS_SHOWN, ylim=METALLICITY_SHOWN)
    legend(axis, loc="lower right")
    return figure

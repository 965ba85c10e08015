"""Figures of the distributions of catalog columns, before and now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from galstore.profile.distribution import Distribution
from modeling.figures.style import BLUE, GREY, PAGE_INCHES, Values, n_bins, tidy

MAX_BINS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Distributions of one column."""

    title: str
    now: Distribution
    before: Distribution | None = None


def shared_edges(parts: Sequence[Distribution], max_bins: int = MAX_BINS) -> Values:
    """Return edges of bins that hold all but the outermost 0.5 % of each part on either side, shape (bin + 1,).

    The number of bins follows the smallest part, so that its noise does not hide its shape.
    """
    filled = [part for part in parts if part.n]
    if not filled:
        return np.linspace(0, 1, max_bins + 1)
    bins = min(max_bins, n_bins(min(part.n for part in filled)))
    low = min(max(part.quantile(0.005) - _margin(part), part.low) for part in filled)
    high = max(min(part.quantile(0.995) + _margin(part), part.high) for part in filled)
    if high <= low:
        margin = 0.5 if low == 0 else abs(low) * 0.01
        low, high = low - margin, high + margin
    return np.linspace(low, high, bins + 1)


def _margin(part: Distribution) -> float:
    return 0.02 * (part.quantile(0.995) - part.quantile(0.005))


def shares(spread: Distribution, edges: Values) -> Values:
    return spread.histogram(edges) / max(1, spread.n)


def draw_columns(panels: Sequence[Panel]) -> Figure:
    """Draw distributions, at least one, as shares of their values: grey areas before, blue lines now."""
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = Figure(figsize=(PAGE_INCHES, 1.75 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, panels, strict=False):
        parts = [part for part in (panel.before, panel.now) if part is not None]
        edges = shared_edges(parts)
        if panel.before is not None and panel.before.n:
            axis.stairs(shares(panel.before, edges), edges, fill=True, color=GREY, alpha=0.4)
        if panel.now.n:
            axis.stairs(shares(panel.now, edges), edges, color=BLUE, linewidth=1.4)
        axis.set(xlabel=panel.title, yticks=[], ylim=(0, None))
        tidy(axis)
        axis.spines["left"].set_visible(False)
        axis.xaxis.label.set_size(8)
        axis.tick_params(labelsize=7)
    return figure

"""Figures of predictions: distributions, comparison with true values, training curve and baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modeling.evaluation.metrics import Regression
from modeling.figures.style import (
    BLUE,
    COLUMN_INCHES,
    GREEN,
    GREY,
    ORANGE,
    PAGE_INCHES,
    Values,
    count_bar,
    draw_counts,
    legend,
    n_bins,
    one_panel,
    tidy,
)

if TYPE_CHECKING:
    # imports torch, which figures of a table of predictions do not need
    from modeling.models.training_log import EpochRecord

METALLICITY_RANGE = (8.2, 9.3)
"""Range of the axes in the paper's Figure 3, 12 + log(O/H)."""
BIN_DEX = 0.1
MIN_PER_BIN = 5
"""Bins with fewer galaxies have no meaningful scatter, and are not drawn."""


def draw_distributions(true: Values, predicted: Values, *, label: str) -> Figure:
    """Draw Figure 2: distributions of the true and the predicted values, (object,) each, finite."""
    figure, axis = one_panel()
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    bins: list[float] = np.linspace(low, high, n_bins(len(true)) + 1).tolist()
    axis.hist(true, bins=bins, color=ORANGE, alpha=0.4, label="true")
    axis.hist(predicted, bins=bins, histtype="step", color=BLUE, linewidth=1.6, label="predicted")
    axis.set(xlabel=label, ylabel="galaxies")
    legend(axis, loc="upper left")
    return figure


def draw_comparison(true: Values, predicted: Values, *, label: str) -> Figure:
    """Draw Figure 3: predicted against true, (object,) each, finite, and the scatter.

    The lower panel is a 2-D histogram on a logarithmic colour scale with the one-to-one line and the running median,
    plus and minus RMSE and NMAD of each 0.1-dex bin of the true value. The upper panel shows the same RMSE and NMAD as
    markers with areas proportional to the number of galaxies, and the global values as lines. The axes are those of the
    paper if they hold 95 % of the values, else they follow the data. Fewer than 1,000 galaxies are drawn as points.
    """
    return compare_values(true, predicted, x_label=f"true {label}", y_label=f"predicted {label}")


def compare_values(
    true: Values,
    predicted: Values,
    *,
    x_label: str,
    y_label: str,
    bin_dex: float = BIN_DEX,
    usual_range: tuple[float, float] = METALLICITY_RANGE,
) -> Figure:
    """Draw the two panels of `draw_comparison` for any quantity; the usual range is used if it holds 95 % of values."""
    low, high = _square_range(true, predicted, usual_range)
    figure = Figure(figsize=(COLUMN_INCHES, COLUMN_INCHES * 1.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[1, 2.6], sharex=True)
    mesh = draw_counts(lower, true, predicted, x_range=(low, high), y_range=(low, high))
    if mesh is not None:
        count_bar(figure, mesh, lower, location="bottom", aspect=40, pad=0.02)
    lower.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle="--", label="one to one")
    shown = (true >= low) & (true <= high)
    centre, count, middle, rmse, scatter = _binned(true[shown], predicted[shown], bin_dex)
    lower.plot(centre, middle, color=ORANGE, linewidth=1.6, label="median")
    for values, colour, style, name in ((rmse, BLUE, "-", "RMSE"), (scatter, GREEN, "-.", "NMAD")):
        lower.plot(centre, middle + values, color=colour, linewidth=1, linestyle=style, label=f"± {name}")
        lower.plot(centre, middle - values, color=colour, linewidth=1, linestyle=style)
    lower.set(xlim=(low, high), ylim=(low, high), xlabel=x_label, ylabel=y_label)
    legend(lower, loc="upper left")
    overall = Regression.of(true, predicted)
    area = 60 * count / max(1, count.max(initial=1))
    for values, everywhere, colour, marker, name in (
        (rmse, overall.rmse, BLUE, "o", "RMSE"),
        (scatter, overall.nmad, GREEN, "D", "NMAD"),
    ):
        upper.scatter(centre, values, s=area + 4, color=colour, marker=marker, alpha=0.75, linewidths=0)
        upper.axhline(everywhere, color=colour, linewidth=1, linestyle=":" if name == "NMAD" else "-")
        place, text = (0.985, 0.97 if name == "RMSE" else 0.8), f"{name} {everywhere:.4f}"
        upper.annotate(text, place, xycoords="axes fraction", ha="right", va="top", color=colour, fontsize=8)
    # room for the two numbers above the highest marker
    upper.set(ylabel="scatter [dex]", ylim=(0, 1.55 * max(overall.rmse, overall.nmad, rmse.max(initial=0))))
    tidy(upper, lower)
    return figure


def draw_training(log: Sequence[EpochRecord], *, best_epoch: int) -> Figure:
    """Draw the training curve: RMSE and NMAD of the validation rows against epochs, and the selected epoch."""
    figure, axis = one_panel()
    epochs = [record.epoch for record in log]
    marker = "o" if len(log) <= 30 else ""
    axis.plot(epochs, [r.rmse for r in log], color=BLUE, marker=marker, markersize=3, label="RMSE")
    axis.plot(epochs, [r.nmad for r in log], color=GREEN, marker=marker, markersize=3, linestyle="--", label="NMAD")
    axis.axvline(best_epoch, color=GREY, linewidth=1, linestyle=":", label=f"selected: epoch {best_epoch}")
    axis.set(xlabel="epoch", ylabel="validation [dex]", ylim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axis)
    return figure


def draw_predictors(predictors: Mapping[str, Regression]) -> Figure:
    """Draw RMSE and NMAD of every predictor on the same rows, by name, best first."""
    ordered = sorted(predictors.items(), key=lambda item: -item[1].rmse)
    figure = Figure(figsize=(PAGE_INCHES * 0.8, 0.75 + 0.36 * len(ordered)), layout="constrained")
    axis = figure.subplots()
    for place, (_, result) in enumerate(ordered):
        axis.plot([result.nmad, result.rmse], [place, place], color="#cccccc", linewidth=2, zorder=1)
        label, point = f"{result.rmse:.3f}", (result.rmse, place)
        axis.annotate(label, point, (7, 0), textcoords="offset points", fontsize=8, va="center")
    places = range(len(ordered))
    axis.scatter([r.rmse for _, r in ordered], places, color=BLUE, s=36, label="RMSE", zorder=2)
    axis.scatter([r.nmad for _, r in ordered], places, color=GREEN, s=30, marker="D", label="NMAD", zorder=2)
    axis.set_yticks(places, [name for name, _ in ordered])
    axis.set(xlabel="error [dex]", xlim=(0, 1.15 * max(max(r.rmse, r.nmad) for _, r in ordered)))
    legend(axis, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1)
    axis.margins(y=0.12)
    tidy(axis)
    return figure


def _binned(true: Values, predicted: Values, bin_dex: float) -> tuple[Values, ...]:
    """Return centre, number, median, RMSE and NMAD of each bin of the true value with enough galaxies."""
    place = np.floor(true / bin_dex + 1e-9).astype(np.int64)
    lines = []
    for bin_ in np.unique(place):
        chosen = place == bin_
        if np.count_nonzero(chosen) >= MIN_PER_BIN:
            result = Regression.of(true[chosen], predicted[chosen])
            middle = float(np.median(predicted[chosen]))
            lines.append(((bin_ + 0.5) * bin_dex, result.n, middle, result.rmse, result.nmad))
    return tuple(np.array(lines, dtype=np.float64).reshape(-1, 5).T)


def _square_range(true: Values, predicted: Values, usual: tuple[float, float]) -> tuple[float, float]:
    both = np.concatenate([true, predicted])
    low, high = usual
    if np.mean((both >= low) & (both <= high)) >= 0.95:
        return usual
    low, high = (float(q) for q in np.quantile(both, [0.001, 0.999]))
    margin = 0.03 * (high - low) + 1e-6
    return low - margin, high + margin

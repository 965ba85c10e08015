"""Figures of the paper, and those that a run is judged by.

Each function returns a matplotlib Figure made without pyplot, so that nothing global is kept and no display is
needed. Colours are those of Okabe & Ito (2008), which colour-blind readers can tell apart; sizes fit a paper's columns.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from modeling.metrics import Regression
from modeling.train import EpochRecord

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"

COLUMN_INCHES = 3.5
PAGE_INCHES = 7.2

METALLICITY_RANGE = (8.2, 9.3)
"""Axes of the paper's Figure 3, 12 + log(O/H)."""

BIN_DEX = 0.1
MIN_PER_BIN = 5
"""A scatter or a median of fewer galaxies says nothing, and is not drawn."""

MIN_FOR_HISTOGRAM = 300
"""Fewer galaxies are drawn as points: a histogram of them is mostly empty."""

N_COLUMNS = 5

Values = NDArray[np.float64]


def figure_png(figure: Figure, dpi: int = 160) -> bytes:
    """A figure as PNG, without a creation date: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def gallery_rows(true: Values, predicted: Values, *, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """Which objects Figure 1 shows.

    Parameters
    ----------
    true, predicted
        (object,), finite.
    seed
        Of the random row.

    Returns
    -------
    dict
        Seven titles, in order; up to five row numbers each, all fewer than `len(true)`.
    """
    rng = np.random.default_rng(seed)
    error = predicted - true
    n = min(N_COLUMNS, len(true))
    return {
        "lowest predicted": np.argsort(predicted)[:n],
        "highest predicted": np.argsort(-predicted)[:n],
        "lowest true": np.argsort(true)[:n],
        "highest true": np.argsort(-true)[:n],
        "most under-predicted": np.argsort(error)[:n],
        "most over-predicted": np.argsort(-error)[:n],
        "random": rng.choice(len(true), size=n, replace=False),
    }


def draw_gallery(
    cutouts: Mapping[str, NDArray[np.uint8]], rows: Mapping[str, NDArray[np.int64]], true: Values, predicted: Values
) -> Figure:
    """Figure 1: seven rows of five cutouts, each with its predicted and its true value.

    Parameters
    ----------
    cutouts
        By title of the row: (column, y, x, band), bands in the order of red, green and blue.
    rows
        From `gallery_rows`.
    true, predicted
        (object,).
    """
    figure = Figure(figsize=(PAGE_INCHES * 0.86, 1.09 * len(rows) + 0.25))
    axes = figure.subplots(len(rows), N_COLUMNS, squeeze=False)
    for row_axes, (title, chosen) in zip(axes, rows.items(), strict=True):
        for column, axis in enumerate(row_axes):
            axis.set_axis_off()
            if column >= len(chosen):
                continue
            axis.imshow(cutouts[title][column], interpolation="nearest")
            row = chosen[column]
            _label_cutout(axis, 0.03, f"{predicted[row]:.2f}", "left", BLUE)
            _label_cutout(axis, 0.97, f"{true[row]:.2f}", "right", ORANGE)
        row_axes[0].text(
            -0.06,
            0.5,
            title.replace(" ", "\n", 1),
            transform=row_axes[0].transAxes,
            fontsize=8,
            ha="right",
            va="center",
        )
    figure.subplots_adjust(left=0.165, right=0.995, bottom=0.005, top=0.968, wspace=0.04, hspace=0.04)
    figure.text(0.58, 0.994, "predicted (left, blue) and true (right, orange)", fontsize=8, ha="center", va="top")
    return figure


def _label_cutout(axis: Axes, x: float, text: str, align: str, colour: str) -> None:
    axis.text(
        x,
        0.035,
        text,
        transform=axis.transAxes,
        fontsize=7,
        fontweight="bold",
        color="white",
        ha=align,
        va="bottom",
        bbox={"facecolor": colour, "edgecolor": "none", "boxstyle": "round,pad=0.15"},
    )


def draw_distributions(true: Values, predicted: Values, *, label: str) -> Figure:
    """Figure 2: distributions of the true and the predicted values.

    Parameters
    ----------
    true, predicted
        (object,), finite.
    label
        Name of the quantity, for the axis.
    """
    figure, axis = _one_panel()
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    bins: list[float] = np.linspace(low, high, _n_bins(len(true)) + 1).tolist()
    axis.hist(true, bins=bins, color=ORANGE, alpha=0.35, label="true")
    axis.hist(predicted, bins=bins, histtype="step", color=BLUE, linewidth=1.6, label="predicted")
    axis.set(xlabel=label, ylabel="galaxies")
    axis.legend(frameon=False, loc="upper left")
    return figure


def draw_comparison(true: Values, predicted: Values, *, label: str) -> Figure:
    """Figure 3: predicted against true, and the scatter along it.

    The lower panel is a 2-D histogram on a logarithmic colour scale with the one-to-one line, the running median and,
    around it, RMSE and NMAD of each 0.1-dex bin of the true value. The upper panel shows the same RMSE and NMAD, with
    areas that follow the number of galaxies, and the global values as lines.

    Parameters
    ----------
    true, predicted
        (object,), finite. Axes are those of the paper where they hold 95 % of the values, else they follow the data;
        fewer than 300 galaxies are drawn as points.
    label
        Name of the quantity.
    """
    low, high = _square_range(true, predicted)
    figure = Figure(figsize=(COLUMN_INCHES * 1.25, COLUMN_INCHES * 1.62), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[1, 2.6], sharex=True)
    if len(true) < MIN_FOR_HISTOGRAM:
        lower.scatter(true, predicted, s=9, color=GREY, alpha=0.6, linewidths=0)
    else:
        n_bins = 55 if len(true) > 5000 else 33
        *_, mesh = lower.hist2d(
            true, predicted, bins=n_bins, range=[[low, high]] * 2, norm=LogNorm(vmin=1), cmap="Greys"
        )
        bar = figure.colorbar(mesh, ax=lower, location="bottom", aspect=40, pad=0.02)
        bar.set_label("galaxies", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    lower.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle="--", label="one to one")
    shown = (true >= low) & (true <= high)
    centre, count, middle, rmse, scatter = _binned(true[shown], predicted[shown])
    lower.plot(centre, middle, color=ORANGE, linewidth=1.6, label="median")
    for sign in (-1, 1):
        lower.plot(centre, middle + sign * rmse, color=BLUE, linewidth=1, label="± RMSE" if sign > 0 else None)
        lower.plot(
            centre,
            middle + sign * scatter,
            color=GREEN,
            linewidth=1,
            linestyle="-.",
            label="± NMAD" if sign > 0 else None,
        )
    lower.set(xlim=(low, high), ylim=(low, high), xlabel=f"true {label}", ylabel=f"predicted {label}")
    lower.legend(frameon=False, fontsize=7, loc="upper left")
    overall = Regression.of(true, predicted)
    area = 90 * count / max(1, count.max(initial=1))
    for values, everywhere, colour, marker, name in (
        (rmse, overall.rmse, BLUE, "o", "RMSE"),
        (scatter, overall.nmad, GREEN, "D", "NMAD"),
    ):
        upper.scatter(centre, values, s=area + 4, color=colour, marker=marker, alpha=0.75, linewidths=0)
        upper.axhline(everywhere, color=colour, linewidth=1, linestyle=":" if name == "NMAD" else "-")
        upper.annotate(
            f"{name} {everywhere:.4f}",
            (0.985, 0.95 if name == "RMSE" else 0.8),
            xycoords="axes fraction",
            ha="right",
            va="top",
            color=colour,
            fontsize=8,
        )
    # room for the two numbers above the highest marker
    upper.set(ylabel="scatter [dex]", ylim=(0, 1.45 * max(overall.rmse, overall.nmad, rmse.max(initial=0))))
    _tidy(upper, lower)
    return figure


def draw_training(log: Sequence[EpochRecord], *, best_epoch: int) -> Figure:
    """Training curve: RMSE and NMAD of the validation rows against epochs, and the epoch that was kept."""
    figure, axis = _one_panel()
    epochs = [record.epoch for record in log]
    marker = "o" if len(log) <= 30 else ""
    axis.plot(epochs, [r.rmse for r in log], color=BLUE, marker=marker, markersize=3, label="RMSE")
    axis.plot(epochs, [r.nmad for r in log], color=GREEN, marker=marker, markersize=3, linestyle="--", label="NMAD")
    axis.axvline(best_epoch, color=GREY, linewidth=1, linestyle=":", label=f"kept: epoch {best_epoch}")
    axis.set(xlabel="epoch", ylabel="validation [dex]", ylim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False)
    return figure


def draw_predictors(predictors: Mapping[str, Regression]) -> Figure:
    """RMSE and NMAD of every predictor on the same rows, best first.

    Parameters
    ----------
    predictors
        By name.
    """
    ordered = sorted(predictors.items(), key=lambda item: -item[1].rmse)
    figure = Figure(figsize=(PAGE_INCHES * 0.8, 0.75 + 0.36 * len(ordered)), layout="constrained")
    axis = figure.subplots()
    for place, (_, result) in enumerate(ordered):
        axis.plot([result.nmad, result.rmse], [place, place], color="#cccccc", linewidth=2, zorder=1)
        axis.annotate(
            f"{result.rmse:.3f}", (result.rmse, place), (7, 0), textcoords="offset points", fontsize=8, va="center"
        )
    places = range(len(ordered))
    axis.scatter([r.rmse for _, r in ordered], places, color=BLUE, s=36, label="RMSE", zorder=2)
    axis.scatter([r.nmad for _, r in ordered], places, color=GREEN, s=30, marker="D", label="NMAD", zorder=2)
    axis.set_yticks(places, [name for name, _ in ordered])
    axis.set(xlabel="error [dex]", xlim=(0, 1.15 * max(max(r.rmse, r.nmad) for _, r in ordered)))
    axis.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1)
    axis.margins(y=0.12)
    _tidy(axis)
    return figure


def draw_new_catalog(predicted: Values, *, label: str, training_mean: float | None = None) -> Figure:
    """Distribution of the predictions of a new catalog.

    Parameters
    ----------
    predicted
        (object,); NaN where an object was not scored, and left out.
    label
        Name of the quantity.
    training_mean
        Drawn as a line, where given: a catalog that sits elsewhere is another kind of galaxies.
    """
    figure, axis = _one_panel()
    scored = predicted[np.isfinite(predicted)]
    axis.hist(scored, bins=_n_bins(len(scored)), color=BLUE, alpha=0.75)
    if training_mean is not None:
        axis.axvline(training_mean, color=ORANGE, linewidth=1.4, linestyle="--", label="mean of training labels")
        axis.legend(frameon=False, loc="upper left")
    axis.set(xlabel=f"predicted {label}", ylabel="galaxies")
    return figure


def _binned(true: Values, predicted: Values) -> tuple[Values, Values, Values, Values, Values]:
    """Centre, number, median, RMSE and NMAD of each 0.1-dex bin of the true value that holds enough galaxies."""
    place = np.floor(true / BIN_DEX + 1e-9).astype(np.int64)
    lines = []
    for bin_ in np.unique(place):
        chosen = place == bin_
        if np.count_nonzero(chosen) >= MIN_PER_BIN:
            result = Regression.of(true[chosen], predicted[chosen])
            middle = float(np.median(predicted[chosen]))
            lines.append(((bin_ + 0.5) * BIN_DEX, result.n, middle, result.rmse, result.nmad))
    centre, count, middle_line, rmse, scatter = np.array(lines, dtype=np.float64).reshape(-1, 5).T
    return centre, count, middle_line, rmse, scatter


def _square_range(true: Values, predicted: Values) -> tuple[float, float]:
    both = np.concatenate([true, predicted])
    low, high = METALLICITY_RANGE
    if np.mean((both >= low) & (both <= high)) >= 0.95:
        return METALLICITY_RANGE
    low, high = (float(q) for q in np.quantile(both, [0.001, 0.999]))
    margin = 0.03 * (high - low) + 1e-6
    return low - margin, high + margin


def _n_bins(n: int) -> int:
    # the square root rule, kept between what shows a shape and what shows noise
    return int(np.clip(np.sqrt(n), 8, 60))


def _one_panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(COLUMN_INCHES * 1.25, COLUMN_INCHES * 0.9), layout="constrained")
    axis = figure.subplots()
    _tidy(axis)
    return figure, axis


def _tidy(*axes: Any) -> None:
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.xaxis.label.set_size(9)
        axis.yaxis.label.set_size(9)

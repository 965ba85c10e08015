"""Figure 1: cutouts with their true and predicted values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from modeling.figures.style import BLUE, ORANGE, PAGE_INCHES, Values

N_COLUMNS = 5


def gallery_rows(true: Values, predicted: Values, *, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """Choose the objects of Figure 1: seven titles, in order, with up to five row numbers each."""
    rng = np.random.default_rng(seed)
    error = predicted - true
    n = min(N_COLUMNS, len(true))
    ranked = {
        "lowest predicted": predicted,
        "highest predicted": -predicted,
        "lowest true": true,
        "highest true": -true,
        "most under-predicted": error,
        "most over-predicted": -error,
    }
    rows = {title: np.argsort(values)[:n] for title, values in ranked.items()}
    return {**rows, "random": rng.choice(len(true), size=n, replace=False)}


def draw_gallery(
    cutouts: Mapping[str, NDArray[np.uint8]], rows: Mapping[str, NDArray[np.int64]], true: Values, predicted: Values
) -> Figure:
    """Draw Figure 1: seven rows of five cutouts, each with its predicted and its true value.

    Parameters
    ----------
    cutouts
        (column, y, x, band) by title of the row, bands in the order red, green, blue.
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
        heading, place = title.replace(" ", "\n", 1), row_axes[0].transAxes
        row_axes[0].text(-0.06, 0.5, heading, transform=place, fontsize=8, ha="right", va="center")
    figure.subplots_adjust(left=0.165, right=0.995, bottom=0.005, top=0.968, wspace=0.04, hspace=0.04)
    figure.text(0.58, 0.994, "predicted (left, blue) and true (right, orange)", fontsize=8, ha="center", va="top")
    return figure


def _label_cutout(axis: Axes, x: float, text: str, align: str, colour: str) -> None:
    box = {"facecolor": colour, "edgecolor": "none", "boxstyle": "round,pad=0.15"}
    label = axis.text(x, 0.035, text, transform=axis.transAxes, ha=align, va="bottom", bbox=box)
    label.set(fontsize=7, fontweight="bold", color="white")

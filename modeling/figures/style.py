"""Style of all figures: sizes of journal columns, the colour-blind safe colours of Okabe & Ito (2008), file formats.

Figures are made without pyplot: they need no global state and no display.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend import Legend
from numpy.typing import NDArray

from schemas.errors import ContractError

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
PURPLE = "#CC79A7"
COLUMN_INCHES = 3.5
"""Width of one column of a journal page; text of 7-9 points needs no scaling there."""
PAGE_INCHES = 7.2
"""Width of both columns."""
FORMATS = ("png", "pdf")
COUNTS = ListedColormap(mpl.colormaps["Greys"](np.linspace(0.2, 1, 256)), name="counts")
"""Colours of a 2-D histogram: grey from the first galaxy on, since white is invisible."""
SIMULATED = "simulated galaxies"
"""Label of every figure of a simulated sky."""
MIN_FOR_HISTOGRAM = 1000
"""Fewer galaxies are drawn as points: their histogram is mostly empty."""
Values = NDArray[np.float64]


def figure_png(figure: Figure, dpi: int = 200) -> bytes:
    """Return a figure as PNG, without a creation date: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def figure_bytes(figure: Figure, format: str) -> bytes:  # noqa: A002 - as in matplotlib
    """Return a figure as a file of one of `FORMATS`; raise `ContractError` for another format."""
    if format not in FORMATS:
        raise ContractError(f"format {format!r} is unknown: choose one of {', '.join(FORMATS)}")
    if format == "png":
        return figure_png(figure, dpi=300)
    buffer = io.BytesIO()
    nameless = {"Creator": None, "Producer": None, "CreationDate": None}
    # text is stored as fonts, not outlines, as journals require
    with mpl.rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format="pdf", dpi=300, metadata=nameless)
    return buffer.getvalue()


def mark_simulated(figure: Figure) -> None:
    """Write the label of simulated galaxies across the top of a figure."""
    if figure.get_layout_engine() is None:
        figure.text(0.006, 0.994, SIMULATED, fontsize=8, color=GREY, ha="left", va="top", style="italic")
    else:
        figure.suptitle(SIMULATED, fontsize=8, color=GREY, style="italic")


def one_panel(height_inches: float = 2.7) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(COLUMN_INCHES, height_inches), layout="constrained")
    axis = figure.subplots()
    tidy(axis)
    return figure, axis


def tidy(*axes: Axes) -> None:
    """Remove the upper and right spines, and set text sizes."""
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.xaxis.label.set_fontsize(9)
        axis.yaxis.label.set_fontsize(9)


def legend(axis: Axes, **options: Any) -> Legend:
    """Add a legend without a frame, in a size that fits a column."""
    return axis.legend(**{"frameon": False, "fontsize": 7, **options})


def draw_counts(
    axis: Axes, x: Values, y: Values, *, x_range: tuple[float, float], y_range: tuple[float, float], alpha: float = 1
) -> QuadMesh | None:
    """Draw galaxies as a 2-D histogram on a logarithmic colour scale, or as points if they are few.

    The returned mesh is for `count_bar`; None for points. Use alpha below 1 if lines are drawn over it.
    """
    if len(x) < MIN_FOR_HISTOGRAM:
        axis.scatter(x, y, s=8, color=GREY, alpha=0.55, linewidths=0)
        return None
    # rasterized: one image in a PDF, not thousands of squares with hairlines between them
    bins, norm = 55 if len(x) > 5000 else 33, LogNorm(vmin=1)
    *_, mesh = axis.hist2d(
        x, y, bins=bins, range=[x_range, y_range], norm=norm, cmap=COUNTS, alpha=alpha, rasterized=True
    )
    share_counts([mesh])
    return mesh


def share_counts(meshes: Sequence[QuadMesh]) -> None:
    """Give histograms a common colour scale, from one galaxy to the fullest cell of all."""
    fullest = max(float(np.max(np.asarray(mesh.get_array()))) for mesh in meshes)
    for mesh in meshes:
        mesh.set_norm(LogNorm(vmin=1, vmax=max(fullest, 2)))


def count_bar(panel: Figure | SubFigure, mesh: QuadMesh, axes: Any, **options: Any) -> None:
    """Draw the colour scale of a histogram, with whole numbers of galaxies."""
    bar = panel.colorbar(mesh, ax=axes, **options)
    count_bar_ticks(bar, float(np.max(np.asarray(mesh.norm.vmax))))
    bar.set_label("galaxies", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def count_bar_ticks(bar: Colorbar, fullest: float) -> None:
    """Label a logarithmic colour scale, which ends at the fullest cell, with whole numbers."""
    steps = (1, 2, 5) if fullest <= 50 else (1,)
    ticks = [step * 10**power for power in range(7) for step in steps if step * 10**power <= fullest]
    # the default formatter writes 10^0, and overlapping labels of minor ticks
    bar.set_ticks([float(tick) for tick in ticks], labels=[f"{tick:,}" for tick in ticks])
    bar.minorticks_off()


def n_bins(n: int) -> int:
    """Return the number of histogram bins for n values: the square root rule, limited to 8 ... 60."""
    return int(np.clip(np.sqrt(n), 8, 60))

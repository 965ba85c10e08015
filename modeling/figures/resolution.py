"""Figure 4, errors against resolution, and the table of a sweep that it is drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from modeling.figures.style import BLUE, COLUMN_INCHES, GREY, ORANGE, PURPLE, legend, tidy
from schemas.errors import CatalogError

NETWORK = "network"
"""Predictor whose rows are drawn as the main curve."""
SWEEP_COLUMNS = ("predictor", "level", "rmse", "nmad")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """Errors of a predictor at one image size, in dex."""

    predictor: str
    level: int
    """Side of the images in px; 0 for a predictor without images."""
    rmse: float
    nmad: float

    def __post_init__(self) -> None:
        if self.level < 0 or not (math.isfinite(self.rmse) and math.isfinite(self.nmad)):
            raise ValueError(
                f"{self.predictor}: level {self.level}, rmse {self.rmse}, nmad {self.nmad}: give a level of at least 0 "
                "and finite errors"
            )


def read_sweep(path: Path) -> list[SweepPoint]:
    """Read a sweep: CSV with the columns predictor, level, rmse, nmad.

    `predictor` is `network` for the curve, with `level` its side in px; the rows of other predictors, with `level`
    empty or 0, are baselines. Without the column `predictor` all rows are the network's.

    Raises
    ------
    CatalogError
        The file does not exist or is not CSV, a column is missing, or a value is not a number.
    """
    if not path.is_file():
        raise CatalogError(f"sweep {path} does not exist: give a CSV with the columns {','.join(SWEEP_COLUMNS)}")
    try:
        table = pd.read_csv(path)
    except ValueError as error:  # raised by pandas for a file that is not a table
        raise CatalogError(f"sweep {path} is not a CSV ({error}): its columns are {','.join(SWEEP_COLUMNS)}") from error
    for name in SWEEP_COLUMNS[1:]:
        if name not in table.columns:
            close = get_close_matches(name, [str(column) for column in table.columns], n=1, cutoff=0.5)
            meant = f" (did you mean {close[0]}?)" if close else ""
            raise CatalogError(f"sweep {path} lacks the column {name!r}{meant}: it needs {','.join(SWEEP_COLUMNS)}")
    points = []
    for number, row in enumerate(table.to_dict(orient="records"), start=2):
        try:
            predictor, level = str(row.get("predictor", NETWORK)), 0 if pd.isna(row["level"]) else int(row["level"])
            rmse, nmad = float(row["rmse"]), float(row["nmad"])
            points.append(SweepPoint(predictor=predictor, level=level, rmse=rmse, nmad=nmad))
        except ValueError as error:
            raise CatalogError(f"line {number} of sweep {path} cannot be read: {error}") from error
    if not any(point.predictor == NETWORK and point.level for point in points):
        raise CatalogError(f"sweep {path} lacks rows of predictor {NETWORK!r} with a level: they are the curve")
    return points


def draw_resolution(points: Sequence[SweepPoint]) -> Figure:
    """Draw Figure 4: RMSE (above) and NMAD (below) against the side of the images, on a logarithmic axis.

    Points with a level are drawn as one curve per predictor, points without one as horizontal lines.
    """
    figure = Figure(figsize=(COLUMN_INCHES, 4.6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    levels = sorted({point.level for point in points if point.level})
    curves = dict.fromkeys(point.predictor for point in points if point.level)
    ordered = sorted(curves, key=lambda predictor: predictor != NETWORK)
    styles = ((BLUE, "o"), (ORANGE, "s"), (PURPLE, "^")) * 9
    note = {"textcoords": "offset points", "fontsize": 7, "color": GREY, "ha": "right", "va": "bottom"}
    for axis, name in zip(panels, ("rmse", "nmad"), strict=True):
        for predictor, (colour, marker) in zip(ordered, styles, strict=False):
            line = sorted((p.level, getattr(p, name)) for p in points if p.predictor == predictor and p.level)
            x, y = zip(*line, strict=True)
            axis.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.4, label=predictor)
        for value, predictor in [(getattr(point, name), point.predictor) for point in points if not point.level]:
            axis.axhline(value, color=GREY, linewidth=1, linestyle="--")
            axis.annotate(predictor, (levels[-1], value), (0, 1.5), **note)
        highest = max(getattr(point, name) for point in points)
        axis.set(ylabel=f"{name.upper()} [dex]", ylim=(0, 1.14 * highest))
    panels[1].set_xscale("log", base=2)
    panels[1].xaxis.set_major_locator(FixedLocator([float(level) for level in levels]))
    panels[1].xaxis.set_minor_locator(NullLocator())
    panels[1].set_xticklabels([str(level) for level in levels])
    panels[1].set_xlabel("side of the images [px]")
    legend(panels[0], loc="lower left")
    tidy(*panels)
    return figure

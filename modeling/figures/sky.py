"""Maps of the sky: objects per HEALPix cell, and the share of them without an image."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from galstore.cube.index.healpix import sky_cells
from galstore.profile.catalog import SKY_ORDER, SkyCounts
from modeling.figures.style import GREY, PAGE_INCHES, Values, count_bar_ticks

COARSEST = 3
"""Order of cells of 7.3 deg; larger cells show no structure."""
TYPICAL_IN_CELL = 10
"""Minimum of the median number of objects in the cells of the map that hold any."""
SMALL_FIELD_DEG = 60.0
"""Limit in right ascension and declination below which a survey is drawn as a field, not on the whole sky."""
GRID = (360, 720)
Bounds = tuple[float, float, float, float]
"""Right ascension from, to, declination from, to; deg."""


def map_order(sky: SkyCounts) -> int:
    """Return the finest HEALPix order at which the median cell with objects has at least 10."""
    for order in range(SKY_ORDER, COARSEST, -1):
        registered = sky.at_order(order).registered
        if registered.any() and np.median(registered[registered > 0]) >= TYPICAL_IN_CELL:
            return order
    return COARSEST


def draw_sky(sky: SkyCounts) -> Figure:
    """Draw objects per cell and the share of them that is quarantined; ICRS, east to the left; at least one object."""
    shown = sky.at_order(map_order(sky))
    fetched = shown.stored + shown.quarantined
    with np.errstate(invalid="ignore"):
        quarantined = np.where(fetched > 0, shown.quarantined / fetched, np.nan)
    bounds = _small_field(sky)
    figure = Figure(figsize=(PAGE_INCHES, 2.55 if bounds is None else 3.5), layout="constrained")
    most = float(shown.registered.max())
    panels = (
        ("objects in a cell", np.where(shown.registered > 0, shown.registered, np.nan), LogNorm(1, max(most, 2))),
        ("share quarantined", quarantined, Normalize(0, max(0.02, float(np.nanmax(quarantined, initial=0))))),
    )
    for place, (title, values, norm) in enumerate(panels, start=1):
        if bounds is None:
            axis = figure.add_subplot(1, 2, place, projection="mollweide")
            _draw_whole(axis, values, norm)
        else:
            axis = figure.add_subplot(1, 2, place)
            _draw_field(axis, values, norm, bounds)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=7)
        mesh = axis.collections[0]
        bar = figure.colorbar(mesh, ax=axis, location="bottom", aspect=35, pad=0.06 if bounds is None else 0.02)
        bar.ax.tick_params(labelsize=7)
        if place == 1:
            count_bar_ticks(bar, max(most, 2))
        else:
            bar.ax.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=None))
    return figure


def _small_field(sky: SkyCounts) -> Bounds | None:
    """Return the bounds of a small survey; None for a larger one."""
    from cdshealpix.nested import healpix_to_lonlat

    ra, dec = (angle.to_value("deg") for angle in healpix_to_lonlat(np.flatnonzero(sky.registered), SKY_ORDER))
    margin = 1.0
    low, high = float(dec.min()) - margin, float(dec.max()) + margin
    # the survey is outside the largest gap in right ascension
    ordered = np.sort(ra)
    gaps = np.diff(np.append(ordered, ordered[0] + 360))
    widest = int(gaps.argmax())
    first = float(ordered[(widest + 1) % ordered.size])
    width = 360 - float(gaps[widest])
    if width > SMALL_FIELD_DEG or high - low > SMALL_FIELD_DEG or max(abs(low), abs(high)) > 75:
        return None
    return first - margin, first + width + margin, low, high


def _values_at(ra: Values, dec: Values, values: Values) -> NDArray[np.float64]:
    order = int(np.log2(values.size / 12) / 2)
    return np.asarray(values[sky_cells(ra.ravel() % 360, dec.ravel(), order=order)].reshape(ra.shape))


def _draw_whole(axis: mpl.axes.Axes, values: Values, norm: Normalize) -> None:
    dec_edges, x_edges = np.linspace(-90, 90, GRID[0] + 1), np.linspace(-180, 180, GRID[1] + 1)
    x, dec = np.meshgrid((x_edges[1:] + x_edges[:-1]) / 2, (dec_edges[1:] + dec_edges[:-1]) / 2)
    # right ascension 180 in the middle, increasing to the left
    drawn = _values_at(180 - x, dec, values)
    edges = np.deg2rad(x_edges), np.deg2rad(dec_edges)
    mesh = axis.pcolormesh(*edges, np.ma.masked_invalid(drawn), norm=norm, cmap="cividis", rasterized=True)
    mesh.set_zorder(1)
    axis.set_xticks(np.deg2rad([-120, -60, 0, 60, 120]), ["300°", "240°", "180°", "120°", "60°"])
    axis.set_yticks(np.deg2rad([-60, -30, 0, 30, 60]))
    axis.grid(color=GREY, linewidth=0.4, alpha=0.6)


def _draw_field(axis: mpl.axes.Axes, values: Values, norm: Normalize, bounds: Bounds) -> None:
    ra_edges, dec_edges = np.linspace(*bounds[:2], GRID[0]), np.linspace(*bounds[2:], GRID[0])
    ra, dec = np.meshgrid((ra_edges[1:] + ra_edges[:-1]) / 2, (dec_edges[1:] + dec_edges[:-1]) / 2)
    drawn = _values_at(ra, dec, values)
    axis.pcolormesh(ra_edges, dec_edges, np.ma.masked_invalid(drawn), norm=norm, cmap="cividis", rasterized=True)
    axis.set_xlabel("right ascension [deg]", fontsize=8)
    axis.set_ylabel("declination [deg]", fontsize=8)
    axis.invert_xaxis()
    axis.xaxis.set_major_formatter(lambda value, _: f"{value % 360:g}")
    axis.set_aspect(1 / max(0.2, float(np.cos(np.deg2rad((bounds[2] + bounds[3]) / 2)))))

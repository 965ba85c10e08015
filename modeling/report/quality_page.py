"""The page of data quality: what the survey delivered, what was refused, what has changed since last time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galstore.cube.runs import RunSummary
from galstore.profile.catalog import Profile
from galstore.profile.distribution import Distribution
from galstore.profile.drift import Drift, rank_drift
from galstore.profile.drift import Verdict as DriftVerdict
from galstore.profile.images import MOST_IMAGES, PROXIES
from modeling.figures.quality import Panel, draw_columns
from modeling.figures.sky import draw_sky
from modeling.report.pages import Heading, IngestCounts, Picture, picture, thumbnails, write_page
from modeling.report.refused_responses import show_refused
from modeling.report.spreads import draw_spread
from schemas.catalog import COLUMN
from schemas.cube import STATE_COLUMNS

N_DRAWN = 6
"""Columns that are drawn large: those that moved most, or the first ones."""

USUAL = ("petroMag_r", "z", "petroR90_r", "oh_p50", "lgm_tot_p50", "pixel_scale")
"""What is drawn where nothing can be compared."""

_STATE = {column.name: column for column in STATE_COLUMNS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Objects that were known before, and those that came since."""

    told: str
    """One sentence: which objects are compared with which."""
    snapshot: str
    n_before: int
    before: Profile
    now: Profile
    sharpness_before: Mapping[str, Distribution] = field(default_factory=dict)
    sharpness_now: Mapping[str, Distribution] = field(default_factory=dict)

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """Every column, the most striking first."""
        return tuple(rank_drift(self.before.columns, self.now.columns))

    @property
    def image_drifts(self) -> tuple[Drift, ...]:
        """The same for the sharpness of images."""
        return tuple(rank_drift(self.sharpness_before, self.sharpness_now))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Everything that the page shows."""

    heading: Heading
    snapshot: str
    ingest: IngestCounts
    catalogs: Sequence[Mapping[str, Any]]
    """name, n_registered, n_vanished, n_rejected of each."""
    whole: Profile
    sharpness: Mapping[str, Distribution]
    """Of a sample of all stored images."""
    comparison: Comparison | str
    """A text says why there is none."""
    quarantined: pd.DataFrame
    """Some quarantined objects of each reason: `galstore.ingest.quarantine.QUARANTINE_COLUMNS`."""
    refused: pd.DataFrame
    """Kept answers of quarantined objects: `object_id`, `reason`, `body`."""
    stored_ids: NDArray[np.int64]
    """The first stored objects, to be shown beside them."""
    read_stored: Callable[[], NDArray[np.uint8]]
    """Their cutouts, (object, y, x, band)."""
    runs: Sequence[RunSummary]
    """Newest first."""


def write_quality(path: Path, quality: Quality) -> None:
    """Write the page."""
    comparison = quality.comparison
    every = _lines(quality)
    lines = [one for one in every if one.drift is None or one.drift.n_before or one.drift.n_now]
    missing = [one.name for one in lines if one.drift is not None and one.drift.verdict is DriftVerdict.EMPTY]
    lines = [one for one in lines if one.name not in missing]
    write_page(
        path,
        "quality.html.j2",
        quality.heading,
        quality=quality,
        compared=None if isinstance(comparison, str) else comparison,
        why_not=comparison if isinstance(comparison, str) else "",
        lines=lines,
        missing=missing,
        images=_images(quality),
        stored=thumbnails(quality.read_stored(), [str(one) for one in quality.stored_ids]),
        most_images=MOST_IMAGES,
        image_lines=_image_lines(quality),
        reasons=_by_reason(quality.quarantined),
        refused=show_refused(quality.refused),
        runs=quality.runs,
    )


def summarise_quality(quality: Quality) -> dict[str, Any]:
    """The page's numbers as plain data."""
    comparison = quality.comparison
    counts = asdict(quality.ingest)
    summary: dict[str, Any] = {
        **counts,
        "add_up": quality.ingest.stored + quality.ingest.quarantined + quality.ingest.pending
        == quality.ingest.registered,
        "catalogs": [dict(one) for one in quality.catalogs],
        "n_objects": quality.whole.n_objects,
        "columns": {name: _numbers(spread) for name, spread in quality.whole.columns.items()},
        "sharpness": {name: _numbers(spread) for name, spread in quality.sharpness.items()},
        "runs": [one.to_dict() for one in quality.runs],
    }
    if isinstance(comparison, str):
        return {**summary, "compared_with": None, "not_compared": comparison, "drift": []}
    known = {"snapshot": comparison.snapshot, "n_objects": comparison.n_before}
    drifts = [{**_plain(asdict(one)), "verdict": one.verdict.value} for one in comparison.drifts]
    of_images = [{**_plain(asdict(one)), "verdict": one.verdict.value} for one in comparison.image_drifts]
    return {**summary, "compared_with": known, "drift": drifts, "image_drift": of_images}


def _numbers(spread: Distribution) -> dict[str, Any]:
    named = {"p2_5": 0.025, "p16": 0.16, "p50": 0.5, "p84": 0.84, "p97_5": 0.975}
    quantiles = {name: spread.quantile(share) for name, share in named.items()}
    return _plain({"n": spread.n, "n_null": spread.n_null, "low": spread.low, "high": spread.high, **quantiles})


def _plain(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has neither NaN nor infinity."""
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in numbers.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One column in the table of columns."""

    name: str
    unit: str
    description: str
    svg: str
    now: Distribution
    before: Distribution | None
    drift: Drift | None

    @property
    def tone(self) -> str:
        """How the verdict is marked."""
        if self.drift is None or self.drift.verdict in (DriftVerdict.UNKNOWN, DriftVerdict.EMPTY):
            return ""
        return "good" if self.drift.verdict is DriftVerdict.NONE else "warn"


def _lines(quality: Quality) -> list[_Line]:
    if isinstance(quality.comparison, str):
        spreads = quality.whole.columns
        return [_line(name, spread, None, None) for name, spread in spreads.items() if spread.n + spread.n_null]
    before, now = quality.comparison.before.columns, quality.comparison.now.columns
    return [_line(one.column, now[one.column], before[one.column], one) for one in quality.comparison.drifts]


def _line(name: str, now: Distribution, before: Distribution | None, drift: Drift | None) -> _Line:
    described = COLUMN.get(name) or _STATE[name]
    return _Line(
        name=name, unit=described.unit, description=described.description, svg=draw_spread(now, before), now=now,
        before=before, drift=drift,
    )  # fmt: skip


def _image_lines(quality: Quality) -> list[_Line]:
    comparison = quality.comparison
    lines = []
    for proxy in PROXIES:
        before, drift = None, None
        now = quality.sharpness.get(proxy.name, Distribution())
        if not isinstance(comparison, str) and comparison.sharpness_now:
            before, now = comparison.sharpness_before[proxy.name], comparison.sharpness_now[proxy.name]
            (drift,) = [one for one in comparison.image_drifts if one.column == proxy.name]
        lines.append(
            _Line(
                name=proxy.title,
                unit="",
                description=proxy.description,
                svg=draw_spread(now, before),
                now=now,
                before=before,
                drift=drift,
            )
        )
    return [line for line in lines if line.now.n or (line.before is not None and line.before.n)]


def _by_reason(quarantined: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    return {
        str(reason): [{str(name): value for name, value in line.items()} for line in some.to_dict("records")]
        for reason, some in quarantined.groupby("reason", sort=False)
    }


def _images(quality: Quality) -> dict[str, Picture | str]:
    return {"columns": _draw_columns(quality), "sky": _draw_sky(quality)}


def _draw_columns(quality: Quality) -> Picture | str:
    comparison = quality.comparison
    if isinstance(comparison, str):
        panels = [
            Panel(title=_title(name), now=quality.whole.columns[name])
            for name in USUAL
            if quality.whole.columns[name].n
        ]
        caption = "Distributions of all objects, as shares."
    else:
        drawn = [one for one in comparison.drifts if one.n_before and one.n_now][:N_DRAWN]
        panels = [
            Panel(
                title=_title(one.column),
                now=comparison.now.columns[one.column],
                before=comparison.before.columns[one.column],
            )
            for one in drawn
        ]
        caption = "The columns that moved most: grey before, blue now, each as shares of its objects."
    if not panels:
        return "No column has values to draw."
    alt = "Distributions of " + ", ".join(
        f"{one.title} (median {one.now.quantile(0.5):.4g}"
        + (f", before {one.before.quantile(0.5):.4g})" if one.before is not None else ")")
        for one in panels
    )
    return picture(draw_columns(panels), alt=f"{alt}.", caption=caption)


def _title(name: str) -> str:
    described = COLUMN.get(name) or _STATE[name]
    return f"{name} [{described.unit}]" if described.unit else name


def _draw_sky(quality: Quality) -> Picture | str:
    sky = quality.whole.sky
    n_cells = int(np.count_nonzero(sky.registered))
    if not n_cells:
        return "No object is registered yet, so there is no sky to show."
    settled = int(sky.stored.sum() + sky.quarantined.sum())
    return picture(
        draw_sky(sky),
        alt=f"Map of the sky: {int(sky.registered.sum())} objects in {n_cells} cells of 0.46 degrees; "
        f"{int(sky.quarantined.sum())} of {settled} settled cutouts are quarantined.",
        caption="Where the objects are (left) and where cutouts are refused (right), in HEALPix cells; ICRS, east to "
        "the left. A hole in the survey's images shows as a bright patch on the right.",
    )

"""Data quality page of the report: counts, drift of the catalog's columns and images, quarantine and runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galstore.cube.history import RunSummary
from galstore.profile.catalog import Profile
from galstore.profile.distribution import Distribution
from galstore.profile.drift import Drift, DriftVerdict, rank_drift
from galstore.profile.images import MAX_IMAGES, PROXIES
from modeling.figures.quality import Panel, draw_columns
from modeling.figures.sky import draw_sky
from modeling.report.pages import Heading, IngestCounts, Picture, picture, thumbnails, write_page
from modeling.report.refused_responses import show_refused
from modeling.report.spreads import draw_spread, finite_or_none, summarise_spread
from schemas.catalog import COLUMN
from schemas.cube import STATE_COLUMNS

N_DRAWN = 6
"""Number of columns in the large figure: those with the largest drift."""

USUAL = ("petroMag_r", "z", "petroR90_r", "oh_p50", "lgm_tot_p50", "pixel_scale")
"""Columns of the large figure without a comparison."""

_STATE = {column.name: column for column in STATE_COLUMNS}


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogComparison:
    """Profiles of earlier objects and of those registered since."""

    description: str  # sentence that names the two groups
    snapshot: str
    n_before: int
    before: Profile
    now: Profile
    sharpness_before: Mapping[str, Distribution] = field(default_factory=dict)
    sharpness_now: Mapping[str, Distribution] = field(default_factory=dict)

    @property
    def drifts(self) -> tuple[Drift, ...]:
        """Drift of every column, most striking first."""
        return tuple(rank_drift(self.before.columns, self.now.columns))

    @property
    def image_drifts(self) -> tuple[Drift, ...]:
        return tuple(rank_drift(self.sharpness_before, self.sharpness_now))


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityPage:
    """Content of the data quality page."""

    heading: Heading
    snapshot: str
    ingest: IngestCounts
    catalogs: Sequence[Mapping[str, str | int]]  # `name`, `n_registered`, `n_vanished` and `n_rejected` of each
    whole: Profile
    sharpness: Mapping[str, Distribution]  # of a sample of all stored images
    comparison: CatalogComparison | str  # a text is the reason for a missing comparison
    quarantined: pd.DataFrame  # examples of each reason, with `galstore.ingest.quarantine.QUARANTINE_COLUMNS`
    refused: pd.DataFrame  # responses of quarantined objects: `object_id`, `reason`, `body`
    stored_ids: NDArray[np.int64]  # of the first stored objects
    read_stored: Callable[[], NDArray[np.uint8]]  # cutouts of `stored_ids`, (object, y, x, band)
    runs: Sequence[RunSummary]  # newest first


def write_quality_page(path: Path, page: QualityPage) -> None:
    comparison = page.comparison
    rows = [row for row in _column_rows(page) if row.drift is None or row.drift.n_before or row.drift.n_now]
    missing = [row.name for row in rows if row.drift is not None and row.drift.verdict is DriftVerdict.EMPTY]
    write_page(
        path,
        "quality.html.j2",
        page.heading,
        quality=page,
        compared=None if isinstance(comparison, str) else comparison,
        not_compared=comparison if isinstance(comparison, str) else "",
        rows=[row for row in rows if row.name not in missing],
        missing=missing,
        images={"columns": _draw_columns(page), "sky": _draw_sky(page)},
        stored=thumbnails(page.read_stored(), [str(object_id) for object_id in page.stored_ids]),
        most_images=MAX_IMAGES,
        image_rows=_image_rows(page),
        quarantined=_by_reason(page.quarantined),
        refused=show_refused(page.refused),
    )


def summarise_quality(page: QualityPage) -> dict[str, object]:
    """Return the numbers of the page, ready for JSON."""
    comparison, counts = page.comparison, page.ingest
    summary = {
        **asdict(counts),
        "add_up": counts.stored + counts.quarantined + counts.pending == counts.registered,
        "catalogs": [dict(catalog) for catalog in page.catalogs],
        "n_objects": page.whole.n_objects,
        "columns": {name: _summarise(spread) for name, spread in page.whole.columns.items()},
        "sharpness": {name: _summarise(spread) for name, spread in page.sharpness.items()},
        "runs": [run.to_dict() for run in page.runs],
    }
    if isinstance(comparison, str):
        return {**summary, "compared_with": None, "not_compared": comparison, "drift": []}
    return {
        **summary,
        "compared_with": {"snapshot": comparison.snapshot, "n_objects": comparison.n_before},
        "drift": [_summarise_drift(drift) for drift in comparison.drifts],
        "image_drift": [_summarise_drift(drift) for drift in comparison.image_drifts],
    }


def _summarise(spread: Distribution) -> dict[str, float | None]:
    return {**summarise_spread(spread), "low": finite_or_none(spread.low), "high": finite_or_none(spread.high)}


def _summarise_drift(drift: Drift) -> dict[str, object]:
    values = asdict(drift).items()
    numbers = {name: finite_or_none(value) if isinstance(value, float) else value for name, value in values}
    return {**numbers, "verdict": drift.verdict.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class _ColumnRow:
    name: str
    unit: str = ""
    description: str
    now: Distribution
    before: Distribution | None
    drift: Drift | None

    @property
    def svg(self) -> str:
        return draw_spread(self.now, self.before)

    @property
    def tone(self) -> str:
        """CSS class that marks the verdict."""
        if self.drift is None or self.drift.verdict in (DriftVerdict.UNKNOWN, DriftVerdict.EMPTY):
            return ""
        return "good" if self.drift.verdict is DriftVerdict.NONE else "warn"


def _column_rows(page: QualityPage) -> list[_ColumnRow]:
    if isinstance(page.comparison, str):
        spreads = page.whole.columns
        return [_column_row(name, spread) for name, spread in spreads.items() if spread.n + spread.n_null]
    before, now = page.comparison.before.columns, page.comparison.now.columns
    drifts = {drift.column: drift for drift in page.comparison.drifts}
    return [_column_row(name, now[name], before[name], drift) for name, drift in drifts.items()]


def _column_row(
    name: str, now: Distribution, before: Distribution | None = None, drift: Drift | None = None
) -> _ColumnRow:
    column = COLUMN.get(name) or _STATE[name]
    unit, description = column.unit, column.description
    return _ColumnRow(name=name, unit=unit, description=description, now=now, before=before, drift=drift)


def _image_rows(page: QualityPage) -> list[_ColumnRow]:
    comparison = page.comparison
    rows = []
    for proxy in PROXIES:
        before, drift = None, None
        now = page.sharpness.get(proxy.name, Distribution())
        if not isinstance(comparison, str) and comparison.sharpness_now:
            before, now = comparison.sharpness_before[proxy.name], comparison.sharpness_now[proxy.name]
            (drift,) = [drift for drift in comparison.image_drifts if drift.column == proxy.name]
        if now.n or (before is not None and before.n):
            row = _ColumnRow(name=proxy.title, description=proxy.description, now=now, before=before, drift=drift)
            rows.append(row)
    return rows


def _by_reason(quarantined: pd.DataFrame) -> dict[str, list[dict[str, object]]]:
    return {
        str(reason): [{str(name): value for name, value in row.items()} for row in group.to_dict("records")]
        for reason, group in quarantined.groupby("reason", sort=False)
    }


def _draw_columns(page: QualityPage) -> Picture | str:
    comparison = page.comparison
    if isinstance(comparison, str):
        columns = page.whole.columns
        panels = [Panel(title=_title(name), now=columns[name]) for name in USUAL if columns[name].n]
        caption = "Distributions of all objects, as shares."
    else:
        before, now = comparison.before.columns, comparison.now.columns
        names = [drift.column for drift in comparison.drifts if drift.n_before and drift.n_now][:N_DRAWN]
        panels = [Panel(title=_title(name), now=now[name], before=before[name]) for name in names]
        caption = "Columns with the largest drift: grey before, blue now, each as shares of its objects."
    if not panels:
        return "No column has values to draw."
    medians = []
    for panel in panels:
        before_text = "" if panel.before is None else f", before {panel.before.quantile(0.5):.4g}"
        medians.append(f"{panel.title} (median {panel.now.quantile(0.5):.4g}{before_text})")
    alt = f"Distributions of {', '.join(medians)}"
    return picture(draw_columns(panels), alt=f"{alt}.", caption=caption)


def _title(name: str) -> str:
    column = COLUMN.get(name) or _STATE[name]
    return f"{name} [{column.unit}]" if column.unit else name


def _draw_sky(page: QualityPage) -> Picture | str:
    sky = page.whole.sky
    n_cells = int(np.count_nonzero(sky.registered))
    if not n_cells:
        return "No object is registered yet, so no map of the sky can be drawn."
    n_quarantined = int(sky.quarantined.sum())
    return picture(
        draw_sky(sky),
        alt=f"Map of the sky: {int(sky.registered.sum())} objects in {n_cells} cells of 0.46 degrees; {n_quarantined} "
        f"of {int(sky.stored.sum()) + n_quarantined} processed cutouts are quarantined.",
        caption="Number of objects (left) and share of quarantined cutouts (right) in HEALPix cells; ICRS, east to the "
        "left. Gaps in the survey's imaging appear as bright patches on the right.",
    )

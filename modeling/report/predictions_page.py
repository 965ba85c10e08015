"""Predictions page of the report: predictions for a new catalog, their flags, calibration and spreads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galstore.profile.distribution import Distribution
from galstore.profile.drift import Drift, measure_drift
from modeling.evaluation.prediction_summary import CalibrationTally, PredictionSummary, relation_percentiles
from modeling.figures.prediction_summary import draw_pit, draw_relation, draw_scored
from modeling.figures.quality import Panel, draw_columns
from modeling.report.pages import Heading, Picture, Thumbnail, picture, share_text, thumbnails, write_page
from modeling.report.spreads import finite_or_none, summarise_spread
from schemas.predictions import flag_names

N_ROWS = 12
"""Number of rows of the new catalog on the page."""

PRINTED = ("object_id", "ra", "dec", "prediction", "mean", "sigma", "p16", "p84", "view_spread", "flags", "status")
"""Columns of these rows, if present."""

SPREAD_TITLES = {
    "sigma": "sigma",
    "view_spread": "spread over the views",
    "ensemble_spread": "spread over the ensemble",
    "width_68": "width of the 68 % interval",
    "width_95": "width of the 95 % interval",
}

FLAG_MEANINGS = {
    "outside_training_support": "the image is unlike the training images",
    "photometry_outside_training": "magnitudes or colours are unlike those of the training objects",
    "cutout_unlike_catalog": "brightness, colours or size disagree with the catalog: another object or scale",
    "cutout_saturated": "a large part of the image is saturated (255 counts)",
    "cutout_mostly_empty": "most of the image is dark: the edge of the survey, or a failed cutout",
    "cutout_artefact_colours": "the sky changes colour across the image, or one band has most of the light",
    "extrapolated_range": "the prediction is in a range with few labels, or one that the paper distrusts",
    "support_unknown": "the model has no information on its training images",
}

_FORMATS = {"ra": "{:.5f}", "dec": "{:.5f}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlaggedObjects:
    """Some objects with one flag, and their cutouts."""

    flag: str
    object_id: NDArray[np.int64]
    predicted: NDArray[np.float64]
    read_cutouts: Callable[[], NDArray[np.uint8]]  # (object, y, x, band)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPredictions:
    """Predictions for the new catalog."""

    name: str
    scored: PredictionSummary
    first_rows: pd.DataFrame  # object_id, ra, dec, prediction, ...
    flagged: Sequence[FlaggedObjects] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionsPage:
    """Content of the predictions page."""

    heading: Heading
    target: str  # name of the quantity
    is_metallicity: bool
    labels: Distribution  # of the training set
    held_out: PredictionSummary  # labelled galaxies that were held out of training
    new: NewPredictions | None
    mass_source: str  # source of the new catalog's masses, for a sentence; empty without masses

    @property
    def drift(self) -> Drift | None:
        """Drift of the new predictions from those of held-out galaxies."""
        if self.new is None:
            return None
        return measure_drift("prediction", self.held_out.columns["prediction"], self.new.scored.columns["prediction"])


def write_predictions_page(path: Path, page: PredictionsPage) -> None:
    write_page(
        path,
        "predictions.html.j2",
        page.heading,
        shown=page,
        new=page.new,
        drift=page.drift,
        images=_images(page),
        calibrations=_calibrations(page),
        galleries=_galleries(page),
        flag_meanings=FLAG_MEANINGS,
        first_rows=[] if page.new is None else _printed(page.new.first_rows),
    )


def summarise_predictions(page: PredictionsPage) -> dict[str, object]:
    """Return the numbers of the page, ready for JSON."""
    summary = {"held_out": _summary(page.held_out), "training_labels": summarise_spread(page.labels)}
    if page.new is None or page.drift is None:
        return {**summary, "new": None}
    drift = page.drift
    distances = {"psi": finite_or_none(drift.psi), "ks": finite_or_none(drift.ks)}
    centres, percentiles = relation_percentiles(page.new.scored.relation)
    return {
        **summary,
        "new": {
            "catalog": page.new.name,
            **_summary(page.new.scored),
            "against_held_out": {**distances, "verdict": drift.verdict.value},
            "masses": page.mass_source or None,
            "mass_metallicity": [
                {"log_mass": round(float(mass), 3), "p16": low, "p50": median, "p84": high}
                for mass, (low, median, high) in zip(centres, percentiles.tolist(), strict=True)
            ],
        },
    }


def _summary(scored: PredictionSummary) -> dict[str, object]:
    tally = scored.calibration
    errors = {"rmse": finite_or_none(tally.rmse), "bias": finite_or_none(tally.bias)}
    return {
        "n": scored.n,
        "n_scored": scored.n_scored,
        "by_status": dict(scored.by_status),
        "n_flagged": scored.n_flagged if scored.has_flags else None,
        "flags": dict(scored.flags),
        "columns": {name: summarise_spread(spread) for name, spread in scored.columns.items()},
        "calibration": {
            "n": tally.n,
            **errors,
            "n_with_bars": tally.n_with_bars,
            "coverage_68": finite_or_none(tally.coverage_68),
            "coverage_95": finite_or_none(tally.coverage_95),
            "crps": finite_or_none(tally.mean_crps),
            "pit_counts": tally.pit_counts.tolist(),
        },
    }


def _calibrations(page: PredictionsPage) -> dict[str, CalibrationTally]:
    tallies = {"held-out galaxies": page.held_out.calibration}
    if page.new is not None:
        tallies["new catalog, objects with spectra"] = page.new.scored.calibration
    return {name: tally for name, tally in tallies.items() if tally.n}


def _images(page: PredictionsPage) -> dict[str, Picture | str]:
    images: dict[str, Picture | str] = {"pit": _draw_calibration(page), "spreads": _draw_spreads(page)}
    if page.new is None:
        return images
    new, held_out = page.new.scored.columns["prediction"], page.held_out.columns["prediction"]
    images["distribution"] = "No object of the new catalog has a prediction yet: run galstore score."
    if new.n:
        images["distribution"] = picture(
            draw_scored(new, labels=page.labels, held_out=held_out, label=page.target),
            alt=f"Predictions of {new.n} new objects: median {new.quantile(0.5):.3f}, 16th to 84th percentile "
            f"{new.quantile(0.16):.3f} to {new.quantile(0.84):.3f}; held-out galaxies have "
            f"{held_out.quantile(0.5):.3f}, training labels {page.labels.quantile(0.5):.3f}.",
            caption="Predictions of the new catalog (blue) and of held-out galaxies (green), which can be compared "
            "directly; labels have a larger spread than predictions. A shift means a different population of galaxies "
            "or different images.",
        )
    images["relation"] = _draw_relation(page, page.new)
    return images


def _draw_relation(page: PredictionsPage, new: NewPredictions) -> Picture | str:
    n = int(new.scored.relation.sum())
    if not page.is_metallicity:
        return f"The model predicts {page.target}, so a mass-metallicity relation does not apply."
    if not n:
        without = "neither the cube's labels (lgm_tot_p50) nor the predictions of another model provide one"
        return f"No object of the new catalog has a stellar mass: {without}."
    centres, percentiles = relation_percentiles(new.scored.relation)
    medians = ", ".join(f"{mass:.1f}: {median:.2f}" for mass, median in zip(centres, percentiles[:, 1], strict=True))
    return picture(
        draw_relation(new.scored.relation, label=page.target),
        alt=f"Predicted {page.target} of {n} objects against stellar mass; medians by mass {medians}.",
        caption=f"Mass-metallicity relation of {n:,} objects of the new catalog; masses: {page.mass_source}.",
    )


def _draw_calibration(page: PredictionsPage) -> Picture | str:
    tallies = {name: tally for name, tally in _calibrations(page).items() if tally.n_with_bars}
    if not tallies:
        return "The predictions have neither percentiles nor a sigma, so no calibration can be shown."
    coverages = "; ".join(
        f"{name}: {share_text(tally.coverage_68)} within the 68 % interval, {share_text(tally.coverage_95)} within 95 %"
        for name, tally in tallies.items()
    )
    return picture(
        draw_pit(tallies),
        alt=f"Probability integral transform. {coverages}.",
        caption="Position of the true values in the predicted distributions (PIT). A flat histogram means calibrated "
        "intervals, a U shape intervals that are too narrow, a hump intervals that are too wide.",
    )


def _draw_spreads(page: PredictionsPage) -> Picture | str:
    columns = {} if page.new is None else page.new.scored.columns
    panels, medians = [], []
    for name, title in SPREAD_TITLES.items():
        now, before = columns.get(name, Distribution()), page.held_out.columns.get(name)
        if now.n or (before is not None and before.n):
            panels.append(Panel(title=f"{title} [dex]", now=now, before=before))
            held_out = f", {before.quantile(0.5):.3g} of held-out galaxies" if before is not None and before.n else ""
            medians.append(f"{title} [dex]: median {now.quantile(0.5):.3g} of the new catalog{held_out}")
    if not panels:
        return "The predictions have no spread, sigma or interval to show."
    return picture(
        draw_columns(panels),
        alt=f"{'; '.join(medians)}.",
        caption="Spreads and intervals as shares of objects: held-out galaxies in grey, the new catalog in blue.",
    )


def _galleries(page: PredictionsPage) -> dict[str, list[Thumbnail]]:
    galleries = {}
    for group in () if page.new is None else page.new.flagged:
        if group.object_id.size:
            values = zip(group.object_id, group.predicted, strict=True)
            labels = [f"{object_id} → {value:.2f}" for object_id, value in values]
            galleries[group.flag] = thumbnails(group.read_cutouts(), labels)
    return galleries


def _printed(table: pd.DataFrame) -> list[dict[str, str]]:
    columns = [name for name in PRINTED if name in table]
    rows = table[columns].head(N_ROWS).itertuples(index=False, name=None)
    return [
        {name: "n/a" if pd.isna(value) else _text(name, value) for name, value in zip(columns, row, strict=True)}
        for row in rows
    ]


def _text(name: str, value: object) -> str:
    if isinstance(value, float | np.floating):
        return _FORMATS.get(name, "{:.3f}").format(value)
    if name == "flags" and isinstance(value, int | np.integer):
        return flag_names(int(value)).replace("|", ", ").replace("_", " ") or "none"
    return str(value).replace("_", " ") if name == "status" else str(value)

"""The page of predictions: what a model says about a new catalog, and how far that can be believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from galstore.profile.distribution import Distribution
from galstore.profile.drift import Drift, measure_drift
from modeling.evaluation.scored_catalog import CalibrationTally, Scored, relation_percentiles
from modeling.figures.quality import Panel, draw_columns
from modeling.figures.scored_catalog import draw_pit, draw_relation, draw_scored
from modeling.report.pages import Heading, Picture, Thumbnail, picture, share_text, thumbnails, write_page
from schemas.predictions import flag_names

N_ROWS = 12
"""Rows of the new catalog that are printed; the whole of it is in the file beside the report."""

PRINTED = (
    "object_id", "ra", "dec", "prediction", "mean", "sigma", "p16", "p84", "view_spread", "flags", "status",
)  # fmt: skip
"""Columns of them, as far as they are there."""

SPREAD_TITLES = {
    "sigma": "sigma",
    "view_spread": "spread over the views",
    "ensemble_spread": "spread over the ensemble",
    "width_68": "width of the 68 % interval",
    "width_95": "width of the 95 % interval",
}

FLAG_MEANINGS = {
    "outside_training_support": "the image is unlike all that the network was trained on",
    "photometry_outside_training": "magnitudes or colours are unlike those of the training objects",
    "cutout_unlike_catalog": "brightness, colours or size are not what the catalog says: another object or scale",
    "cutout_saturated": "a large part of the image is as bright as 8 bits can say",
    "cutout_mostly_empty": "most of the image holds no light: the edge of the survey, or a failed cutout",
    "cutout_artefact_colours": "the sky changes colour across the image, or much light is in one band alone",
    "extrapolated_range": "the prediction is where labels are few, or where the paper distrusts them",
    "support_unknown": "the model does not know its training support",
}

_FORMATS = {"ra": "{:.5f}", "dec": "{:.5f}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flagged:
    """Some objects with one flag, and their cutouts."""

    flag: str
    object_id: NDArray[np.int64]
    predicted: NDArray[np.float64]
    read_cutouts: Callable[[], NDArray[np.uint8]]
    """(object, y, x, band)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPredictions:
    """The new catalog."""

    name: str
    scored: Scored
    first_rows: pd.DataFrame
    """object_id, ra, dec, prediction, ...: the first ones of the file."""
    flagged: Sequence[Flagged] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Everything that the page shows."""

    heading: Heading
    target: str
    """Name of the quantity."""
    is_metallicity: bool
    labels: Distribution
    """Of the training set."""
    held_out: Scored
    """Galaxies with a known value that the network was not trained on."""
    new: NewPredictions | None
    mass_source: str
    """Where the masses of the new catalog come from, for a sentence; empty where there are none."""

    @property
    def drift(self) -> Drift | None:
        """Of the new predictions against those of held-out galaxies; None where there are no new ones."""
        if self.new is None:
            return None
        return measure_drift("prediction", self.held_out.columns["prediction"], self.new.scored.columns["prediction"])


def write_predictions_page(path: Path, shown: Predictions) -> None:
    """Write the page."""
    write_page(
        path,
        "predictions.html.j2",
        shown.heading,
        shown=shown,
        new=shown.new,
        drift=shown.drift,
        images=_images(shown),
        calibrations=_calibrations(shown),
        galleries=_galleries(shown),
        flag_meanings=FLAG_MEANINGS,
        first_rows=[] if shown.new is None else _printed(shown.new.first_rows),
    )


def summarise_predictions(shown: Predictions) -> dict[str, Any]:
    """The page's numbers as plain data."""
    summary: dict[str, Any] = {"held_out": _summary(shown.held_out), "training_labels": _spread(shown.labels)}
    if shown.new is None or shown.drift is None:
        return {**summary, "new": None}
    drift = shown.drift
    centres, percentiles = relation_percentiles(shown.new.scored.relation)
    return {
        **summary,
        "new": {
            "catalog": shown.new.name,
            **_summary(shown.new.scored),
            "against_held_out": {"psi": _number(drift.psi), "ks": _number(drift.ks), "verdict": drift.verdict.value},
            "masses": shown.mass_source or None,
            "mass_metallicity": [
                {"log_mass": round(float(mass), 3), "p16": low, "p50": middle, "p84": high}
                for mass, (low, middle, high) in zip(centres, percentiles.tolist(), strict=True)
            ],
        },
    }


def _summary(scored: Scored) -> dict[str, Any]:
    tally = scored.calibration
    return {
        "n": scored.n,
        "n_scored": scored.n_scored,
        "by_status": dict(scored.by_status),
        "n_flagged": scored.n_flagged if scored.has_flags else None,
        "flags": dict(scored.flags),
        "columns": {name: _spread(one) for name, one in scored.columns.items()},
        "calibration": {
            "n": tally.n,
            "rmse": _number(tally.rmse),
            "bias": _number(tally.bias),
            "n_with_bars": tally.n_with_bars,
            "coverage_68": _number(tally.coverage_68),
            "coverage_95": _number(tally.coverage_95),
            "crps": _number(tally.mean_crps),
            "pit_counts": tally.pit_counts.tolist(),
        },
    }


def _spread(one: Distribution) -> dict[str, Any]:
    shares = {"p2_5": 0.025, "p16": 0.16, "p50": 0.5, "p84": 0.84, "p97_5": 0.975}
    return {"n": one.n, "n_null": one.n_null, **{name: _number(one.quantile(share)) for name, share in shares.items()}}


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _calibrations(shown: Predictions) -> dict[str, CalibrationTally]:
    """By name, those that have objects."""
    tallies = {"held-out galaxies": shown.held_out.calibration}
    if shown.new is not None:
        tallies["new catalog, those with spectra"] = shown.new.scored.calibration
    return {name: one for name, one in tallies.items() if one.n}


def _images(shown: Predictions) -> dict[str, Picture | str]:
    images: dict[str, Picture | str] = {"pit": _draw_calibration(shown), "spreads": _draw_spreads(shown)}
    if shown.new is None:
        return images
    new, held_out = shown.new.scored.columns["prediction"], shown.held_out.columns["prediction"]
    images["distribution"] = (
        picture(
            draw_scored(new, labels=shown.labels, held_out=held_out, label=shown.target),
            alt=f"Predictions of {new.n} new objects: median {new.quantile(0.5):.3f}, 16th to 84th percentile "
            f"{new.quantile(0.16):.3f} to {new.quantile(0.84):.3f}; held-out galaxies have "
            f"{held_out.quantile(0.5):.3f}, training labels {shown.labels.quantile(0.5):.3f}.",
            caption="Compare like with like: predictions of the new catalog (blue) with those of held-out galaxies "
            "(green). Labels spread more than any prediction. A shift says that these are other galaxies, or other "
            "images.",
        )
        if new.n
        else "No object of the new catalog has a prediction yet: run galstore score."
    )
    images["relation"] = _draw_relation(shown, shown.new)
    return images


def _draw_relation(shown: Predictions, new: NewPredictions) -> Picture | str:
    n = int(new.scored.relation.sum())
    if not shown.is_metallicity:
        return f"The model predicts {shown.target}, so there is no mass-metallicity relation."
    if not n:
        return (
            "No object of the new catalog has a stellar mass: neither the cube's labels (lgm_tot_p50) nor a model that "
            "predicts it gives one."
        )
    centres, percentiles = relation_percentiles(new.scored.relation)
    medians = ", ".join(f"{mass:.1f}: {one:.2f}" for mass, one in zip(centres, percentiles[:, 1], strict=True))
    return picture(
        draw_relation(new.scored.relation, label=shown.target),
        alt=f"Predicted {shown.target} of {n} objects against stellar mass; medians by mass {medians}.",
        caption=f"Mass-metallicity relation of {n:,} objects of the new catalog; masses: {shown.mass_source}.",
    )


def _draw_calibration(shown: Predictions) -> Picture | str:
    tallies = {name: one for name, one in _calibrations(shown).items() if one.n_with_bars}
    if not tallies:
        return "The predictions have neither percentiles nor a sigma, so there are no error bars to check."
    told = "; ".join(
        f"{name}: {share_text(one.coverage_68)} within their 68 % interval, {share_text(one.coverage_95)} within 95 %"
        for name, one in tallies.items()
    )
    return picture(
        draw_pit(tallies),
        alt=f"Probability integral transform. {told}.",
        caption="Where true values fall in the predicted distributions (PIT): flat is right, a U says that error bars "
        "are too small, a hump that they are too large.",
    )


def _draw_spreads(shown: Predictions) -> Picture | str:
    new = {} if shown.new is None else shown.new.scored.columns
    panels = [
        Panel(title=f"{title} [dex]", now=new.get(name, Distribution()), before=shown.held_out.columns.get(name))
        for name, title in SPREAD_TITLES.items()
        if new.get(name, Distribution()).n or shown.held_out.columns.get(name, Distribution()).n
    ]
    if not panels:
        return "The predictions have no spread, sigma or interval to show."
    told = "; ".join(
        f"{one.title}: median {one.now.quantile(0.5):.3g} of the new catalog"
        + (f", {one.before.quantile(0.5):.3g} of held-out galaxies" if one.before is not None and one.before.n else "")
        for one in panels
    )
    return picture(
        draw_columns(panels),
        alt=f"{told}.",
        caption="Spreads and intervals as shares of objects: held-out galaxies in grey, the new catalog in blue.",
    )


def _galleries(shown: Predictions) -> dict[str, list[Thumbnail]]:
    """By flag, the first objects that have it."""
    return {
        one.flag: thumbnails(
            one.read_cutouts(),
            [f"{number} → {value:.2f}" for number, value in zip(one.object_id, one.predicted, strict=True)],
        )
        for one in (() if shown.new is None else shown.new.flagged)
        if one.object_id.size
    }


def _printed(rows: pd.DataFrame) -> list[dict[str, str]]:
    shown = rows[[name for name in PRINTED if name in rows]].head(N_ROWS)
    return [
        {
            str(name): "n/a" if pd.isna(value) else _text(str(name), value)
            for name, value in zip(shown.columns, line, strict=True)
        }
        for line in shown.itertuples(index=False, name=None)
    ]


def _text(name: str, value: Any) -> str:
    if isinstance(value, float | np.floating):
        return _FORMATS.get(name, "{:.3f}").format(value)
    if name == "flags" and not isinstance(value, str):
        return flag_names(int(value)).replace("|", ", ").replace("_", " ") or "none"
    return str(value).replace("_", " ") if name == "status" else str(value)

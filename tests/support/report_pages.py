"""Report pages with simulated numbers, with every element of a page present."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from galstore.cube.history import RunSummary
from galstore.profile.catalog import PROFILED, Profile, SkyCounts
from galstore.profile.distribution import Distribution
from galstore.profile.images import PROXIES
from modeling.evaluation.metrics import Regression
from modeling.evaluation.prediction_summary import PredictionSummary
from modeling.models.training_log import EpochRecord
from modeling.report.model_page import (
    FOREST,
    MEAN,
    NETWORK,
    Evaluation,
    ModelPage,
    ModelProvenance,
    NewCatalog,
    write_model_page,
)
from modeling.report.pages import Heading, IngestCounts
from modeling.report.predictions_page import FlaggedObjects, NewPredictions, PredictionsPage, write_predictions_page
from modeling.report.quality_page import CatalogComparison, QualityPage, write_quality_page
from schemas.cutouts import Status
from schemas.predictions import Flag

HEADING = Heading(
    title="12 + log(O/H) of <simulated>", survey="simulated & small", simulated=True, model_id="0123456789ab"
)
BITS = {str(flag.name).lower(): int(flag) for flag in Flag}
COUNTS = IngestCounts(
    registered=1240,
    stored=1228,
    quarantined=12,
    pending=0,
    quarantined_by_reason={"out_of_footprint": 9, "truncated": 3},
    rejected_by_reason={"object_id repeated id": 4},
)


def cutouts(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 255, (n, 128, 128, 3), dtype=np.uint8)


def profile(n: int, *, seed: int, shift: float = 0.0, without: tuple[str, ...] = ()) -> Profile:
    rng = np.random.default_rng(seed)
    columns = {name: rng.normal(9 + shift * (name == "petroMag_r"), 0.5, n) for name in PROFILED}
    for name in without:
        columns[name] = np.full(n, np.nan)
    status = np.where(np.arange(n) % 100 == 0, Status.QUARANTINED, Status.STORED).astype(np.uint8)
    sky = SkyCounts.of(rng.uniform(120, 240, n), rng.uniform(0, 60, n), status)
    return Profile(n_objects=n, columns={name: Distribution.of(values) for name, values in columns.items()}, sky=sky)


def sharpness(seed: int) -> dict[str, Distribution]:
    rng = np.random.default_rng(seed)
    return {proxy.name: Distribution.of(rng.normal(5, 1, 300)) for proxy in PROXIES}


def quarantined(**changes: list) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row": [3, 9],
            "object_id": [1237648702973411443, 1237648702973411999],
            "ra": [180.1, 180.2],
            "dec": [0.5, -0.5],
            "catalog": ["simulated", "simulated"],
            "reason": ["out_of_footprint", "truncated"],
            "attempts": [1, 5],
            "http_status": [404, 0],
            **changes,
        }
    )


def quality(**changes: object) -> QualityPage:
    before, now = profile(1000, seed=0), profile(240, seed=1, shift=1.0, without=("z", "oh_p50"))
    then = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
    settings: dict = {
        "heading": HEADING,
        "snapshot": "SNAP2",
        "ingest": COUNTS,
        "catalogs": [{"name": "simulated", "n_registered": 1240, "n_vanished": 2, "n_rejected": 4}],
        "whole": before + now,
        "sharpness": sharpness(2),
        "comparison": CatalogComparison(
            description="The 240 new objects are compared with the 1,000 earlier ones.",
            snapshot="SNAP1",
            n_before=1000,
            before=before,
            now=now,
            sharpness_before=sharpness(3),
            sharpness_now=sharpness(4),
        ),
        "quarantined": quarantined(),
        "refused": pd.DataFrame(
            {"object_id": [1237648702973411999], "reason": ["truncated"], "body": [b"<b>half</b> a page"]}
        ),
        "stored_ids": np.arange(5) + 1237648702973411443,
        "read_stored": lambda: cutouts(5),
        "runs": [
            RunSummary(
                run="76ce613d-e045",
                operations={"register": 1, "fill": 3},
                first=then,
                last=then + timedelta(seconds=60),
                n_registered=240,
                n_settled=240,
                n_predicted=0,
            )
        ],
    }
    return QualityPage(**(settings | changes))


def predictions_table(n: int, *, seed: int, flagged: bool = True) -> tuple[pd.DataFrame, np.ndarray]:
    """Return predictions with calibrated intervals, and the true values."""
    rng = np.random.default_rng(seed)
    true = rng.normal(8.9, 0.2, n)
    predicted = true + rng.normal(0, 0.08, n)
    bars = {
        name: predicted + z * 0.08
        for name, z in {"p2_5": -1.96, "p16": -0.9945, "p50": 0, "p84": 0.9945, "p97_5": 1.96}.items()
    }
    flags = np.where(np.arange(n) % 10 == 0, int(Flag.CUTOUT_SATURATED | Flag.EXTRAPOLATED_RANGE), 0)
    table = pd.DataFrame(
        {
            "prediction": predicted,
            "sigma": 0.08,
            **bars,
            "view_spread": rng.uniform(0.01, 0.02, n),
            "ensemble_spread": np.nan,
            "flags": flags if flagged else -1,
        }
    )
    return table, true


def predictions(**changes: object) -> PredictionsPage:
    held_out, true = predictions_table(400, seed=5)
    new, _ = predictions_table(300, seed=6)
    new["status"] = np.where(np.arange(300) < 290, "scored", "out_of_footprint")
    new.loc[
        290:,
        ["prediction", "sigma", "view_spread", *[name for name in new if name.startswith("p") and name[1].isdigit()]],
    ] = np.nan
    rng = np.random.default_rng(7)
    known = np.where(np.arange(300) < 40, new["prediction"] + rng.normal(0, 0.08, 300), np.nan)
    first = new.head(20).assign(object_id=np.arange(20) + 1237648702973411443, ra=180.0, dec=0.5)
    settings: dict = {
        "heading": HEADING,
        "target": "12 + log(O/H)",
        "is_metallicity": True,
        "labels": Distribution.of(rng.normal(8.9, 0.2, 900)),
        "held_out": PredictionSummary.of(held_out, flag_bits=BITS, true=true),
        "new": NewPredictions(
            name="tonight.csv",
            scored=PredictionSummary.of(new, flag_bits=BITS, log_mass=rng.normal(10, 0.4, 300), true=known),
            first_rows=first[["object_id", "ra", "dec", "prediction", "sigma", "flags", "status"]],
            flagged=[
                FlaggedObjects(
                    flag="cutout_saturated",
                    object_id=np.arange(3) + 1237648702973411443,
                    predicted=np.array([8.7, 8.8, 8.9]),
                    read_cutouts=lambda: cutouts(3),
                )
            ],
        ),
        "mass_source": "lgm_tot_p50 of the catalog",
    }
    return PredictionsPage(**(settings | changes))


def model_report() -> ModelPage:
    table, true = predictions_table(80, seed=8)
    predicted = table["prediction"].to_numpy()
    return ModelPage(
        heading=HEADING,
        ingest=COUNTS,
        splits={"train": 900, "validation": 80, "test": 80},
        target="12 + log(O/H)",
        evaluation=Evaluation(
            split="test",
            object_id=np.arange(80),
            true=true,
            predicted=predicted,
            read_cutouts=lambda rows: cutouts(len(rows)),
        ),
        predictors={
            NETWORK: Regression.of(true, predicted),
            MEAN: Regression.of(true, np.full(80, true.mean())),
            FOREST: "not fitted: the training rows have no values of modelMag_g",
        },
        training_log=(
            EpochRecord(epoch=1, seconds=1, images_per_s=9, train_loss=1, rmse=0.1, nmad=0.08, learning_rate=0.01),
        ),
        best_epoch=1,
        provenance=ModelProvenance(
            model_id=HEADING.model_id,
            training_set="a1b2",
            snapshot="SNAP2",
            versions={"torch": "2"},
            recipe="name = 'x'",
        ),
        new_catalog=NewCatalog(n=300, n_scored=290),
    )


def write_all(folder: Path) -> Path:
    """Write report.html, quality.html and predictions.html into a folder."""
    write_model_page(folder / "report.html", model_report())
    write_quality_page(folder / "quality.html", quality())
    write_predictions_page(folder / "predictions.html", predictions())
    return folder

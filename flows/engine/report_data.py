"""Content of the report's pages on data quality and predictions, read from the cube and the new catalog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet

from flows.runtime import Summary
from galstore.cube.history import read_history, summarise_runs
from galstore.cube.inventory import Inventory, take_inventory
from galstore.cube.predictions import read_predictions
from galstore.cube.reader import Cube, open_cube
from galstore.features.training_set import TrainingSet
from galstore.ingest.catalog_update import Registration
from galstore.ingest.quarantine import sample_quarantine
from galstore.ingest.refused_responses import read_refused
from galstore.profile.catalog import profile_catalog
from galstore.profile.images import measure_sharpness
from schemas.cube import CATALOG_CHUNK_ROWS, LABEL_VIEW
from schemas.cutouts import SIDE_PX, Reason, Status
from schemas.features import Split
from schemas.predictions import Flag
from schemas.recipes import Recipe

if TYPE_CHECKING:
    from modeling.evaluation.prediction_summary import PredictionSummary
    from modeling.report.pages import Heading, IngestCounts
    from modeling.report.predictions_page import FlaggedObjects, PredictionsPage
    from modeling.report.quality_page import CatalogComparison, QualityPage

N_STORED_SHOWN = 16
N_QUARANTINED_SHOWN = 6
"""Number for each reason."""
N_FLAGGED_SHOWN = 8
"""Number for each flag."""

MASS = "lgm_tot_p50"

FLAG_BITS = {str(flag.name).lower(): int(flag) for flag in Flag}


def gather_quality(cube: Cube, heading: Heading, *, training_snapshot: str, earlier: Summary | None) -> QualityPage:
    """Read the content of the data quality page.

    Parameters
    ----------
    cube
        Snapshot of the report.
    training_snapshot
        Snapshot on which the model was trained.
    earlier
        Summary of the previous report, or None.
    """
    from modeling.report.quality_page import QualityPage

    inventory = take_inventory(cube)
    comparison = _compare(cube, training_snapshot, earlier)
    if isinstance(comparison, str):
        whole, sharpness = profile_catalog(cube), measure_sharpness(cube, 0, cube.n_objects)
    else:
        whole = comparison.before + comparison.now
        sharpness = {
            name: spread + comparison.sharpness_now[name] for name, spread in comparison.sharpness_before.items()
        }
    stored = np.flatnonzero(cube.read_state("status") == Status.STORED)[:N_STORED_SHOWN]
    return QualityPage(
        heading=heading,
        snapshot=cube.snapshot_id,
        ingest=_ingest_counts(cube, inventory),
        catalogs=[
            {
                "name": str(catalog["name"]),
                "n_registered": int(catalog["n_registered"]),
                "n_vanished": int(catalog["n_vanished"]),
                "n_rejected": inventory.rejected_by_catalog.get(str(catalog["name"]), 0),
            }
            for catalog in inventory.catalogs
        ],
        whole=whole,
        sharpness=sharpness,
        comparison=comparison,
        quarantined=sample_quarantine(cube, N_QUARANTINED_SHOWN),
        refused=_refused(cube),
        stored_ids=_object_ids(cube, stored),
        read_stored=lambda: cube.read_pixels(SIDE_PX, stored),
        runs=summarise_runs(cube.path),
    )


def _ingest_counts(cube: Cube, inventory: Inventory) -> IngestCounts:
    from modeling.report.pages import IngestCounts

    return IngestCounts(
        **asdict(inventory.counts),
        quarantined_by_reason=inventory.quarantined_by_reason,
        rejected_by_reason=Registration(rejected=cube.read_rejected()).rejected_by_reason,
    )


def _refused(cube: Cube) -> pd.DataFrame:
    refused = read_refused(cube)
    ids = _object_ids(cube, refused["row"].to_numpy(dtype=np.int64))
    return refused.assign(object_id=ids, reason=[Reason(code).name.lower() for code in refused["reason"]])


def _compare(cube: Cube, training_snapshot: str, earlier: Summary | None) -> CatalogComparison | str:
    """Compare the objects since the last report, or since the training, with earlier ones; or return why not."""
    from modeling.report.quality_page import CatalogComparison

    known = _known_before(cube, training_snapshot, earlier)
    if known is None:
        return (
            "Nothing to compare with: no object was registered since the model was trained, and no earlier report "
            "covers a smaller catalog. The columns are shown without a comparison."
        )
    snapshot, n_before, since = known
    return CatalogComparison(
        description=f"The {cube.n_objects - n_before:,} objects that were registered since {since} (“now”) are "
        f"compared with the {n_before:,} registered before.",
        snapshot=snapshot,
        n_before=n_before,
        before=profile_catalog(cube, 0, n_before),
        now=profile_catalog(cube, n_before),
        sharpness_before=measure_sharpness(cube, 0, n_before),
        sharpness_now=measure_sharpness(cube, n_before, cube.n_objects),
    )


def _known_before(cube: Cube, training_snapshot: str, earlier: Summary | None) -> tuple[str, int, str] | None:
    """Return the id, number of objects and description of an earlier snapshot with fewer objects.

    Rows never move: the objects of the snapshot are the first ones of the cube.
    """
    if earlier is not None and earlier.get("paths", {}).get("cube") == cube.path:
        last = earlier.get("quality") or {}
        # a report without new objects continues the comparison of the previous one
        for known in (last, last.get("compared_with") or {}):
            if 0 < known.get("n_objects", 0) < cube.n_objects:
                snapshot = str(known["snapshot"])
                return snapshot, int(known["n_objects"]), f"the last report, of snapshot {snapshot}"
    if training_snapshot in {commit.snapshot for commit in read_history(cube.path)}:
        n_trained = open_cube(cube.path, snapshot_id=training_snapshot).n_objects
        if 0 < n_trained < cube.n_objects:
            return training_snapshot, n_trained, f"the model was trained, on snapshot {training_snapshot}"
    return None


def gather_predictions(
    recipe: Recipe, heading: Heading, target: str, training_set: TrainingSet, catalog_path: Path
) -> PredictionsPage:
    """Read the content of the predictions page.

    Parameters
    ----------
    target
        Name of the predicted quantity, such as '12 + log(O/H)'.
    catalog_path
        Parquet file with the new catalog's predictions; it may be missing.
    """
    from galstore.profile.distribution import Distribution
    from modeling.report.predictions_page import NewPredictions, PredictionsPage

    cube, labelled = training_set.cube, training_set.labelled(training_set.evaluation_split)
    held_out = _summarise_rows(cube, heading.model_id, training_set.rows[labelled], training_set.labels[labelled])
    masses, mass_source = _mass_array(cube)
    new = None
    if recipe.score.catalog is not None and catalog_path.exists():
        scored, first_rows, flagged = _summarise_catalog(recipe, cube, heading.model_id, catalog_path, masses)
        new = NewPredictions(name=recipe.score.catalog.name, scored=scored, first_rows=first_rows, flagged=flagged)
    return PredictionsPage(
        heading=heading,
        target=target,
        is_metallicity=recipe.train.target == "oh_p50",
        labels=Distribution.of(training_set.labels[training_set.labelled(Split.TRAIN)]),
        held_out=held_out,
        new=new,
        mass_source=mass_source if new is not None and new.scored.relation.any() else "",
    )


def _mass_array(cube: Cube) -> tuple[str, str]:
    """Return the path of the array with log10(M / solar mass), of a model or of the catalog, and its description."""
    for model_id in cube.group_names("predictions"):
        if cube.group_attributes(f"predictions/{model_id}").get("target") == MASS:
            return f"predictions/{model_id}/mean", f"predicted by model {model_id} if the catalog has none"
    return f"labels/{LABEL_VIEW}/{MASS}", f"{MASS} of the catalog"


def _summarise_rows(
    cube: Cube, model_id: str, rows: npt.NDArray[np.int64], true: npt.NDArray[np.float64]
) -> PredictionSummary:
    from modeling.evaluation.prediction_summary import PredictionSummary

    total = PredictionSummary()
    for start in range(0, rows.size, CATALOG_CHUNK_ROWS):
        here = slice(start, start + CATALOG_CHUNK_ROWS)
        total += PredictionSummary.of(_predictions(cube, model_id, rows[here]), flag_bits=FLAG_BITS, true=true[here])
    return total


def _summarise_catalog(
    recipe: Recipe, cube: Cube, model_id: str, catalog_path: Path, masses: str
) -> tuple[PredictionSummary, pd.DataFrame, list[FlaggedObjects]]:
    """Summarise the new catalog's predictions; return also its first rows and examples of each flag."""
    from modeling.evaluation.prediction_summary import PredictionSummary, flagged_positions

    total, first_rows = PredictionSummary(), pd.DataFrame()
    examples: dict[str, list[tuple[int, float]]] = {}
    target, mass = f"labels/{LABEL_VIEW}/{recipe.train.target}", f"labels/{LABEL_VIEW}/{MASS}"
    paths = list(dict.fromkeys([target, mass, masses, "state/status"]))
    for batch in _batches(catalog_path):
        if not len(first_rows):
            first_rows = batch
        rows = cube.rows_of(batch["object_id"].to_numpy())
        values = cube.read_values(paths, rows)
        table = _predictions(cube, model_id, rows)
        if "status" in batch:
            table["status"] = batch["status"].to_numpy()
        log_mass = np.where(np.isfinite(values[mass]), values[mass], values[masses]).astype(np.float64)
        true = values[target].astype(np.float64)
        total += PredictionSummary.of(table, flag_bits=FLAG_BITS, log_mass=log_mass, true=true)
        stored = table[values["state/status"] == Status.STORED]
        for flag, positions in flagged_positions(stored, FLAG_BITS, N_FLAGGED_SHOWN).items():
            of_flag = examples.setdefault(flag, [])
            chosen = stored.iloc[positions[: N_FLAGGED_SHOWN - len(of_flag)]]
            of_flag += zip(rows[chosen.index], chosen["prediction"], strict=True)
    return total, first_rows, [_flagged(cube, flag, of_flag) for flag, of_flag in examples.items() if of_flag]


def _flagged(cube: Cube, flag: str, examples: list[tuple[int, float]]) -> FlaggedObjects:
    from modeling.report.predictions_page import FlaggedObjects

    rows = np.array([row for row, _ in examples], dtype=np.int64)
    return FlaggedObjects(
        flag=flag,
        object_id=_object_ids(cube, rows),
        predicted=np.array([value for _, value in examples]),
        read_cutouts=lambda: cube.read_pixels(SIDE_PX, rows),
    )


def _object_ids(cube: Cube, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return cube.read_values(["catalog/object_id"], rows)["catalog/object_id"]


def _predictions(cube: Cube, model_id: str, rows: npt.NDArray[np.int64]) -> pd.DataFrame:
    return read_predictions(cube, model_id, rows).rename(columns={"mean": "prediction"})


def _batches(catalog_path: Path) -> Iterator[pd.DataFrame]:
    with pyarrow.parquet.ParquetFile(catalog_path) as file:
        for batch in file.iter_batches(CATALOG_CHUNK_ROWS):
            yield batch.to_pandas()

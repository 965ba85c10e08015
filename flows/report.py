"""Flow `report`: three HTML pages on the model, its data and its predictions, and a JSON summary."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.engine.report_data import gather_predictions, gather_quality
from flows.engine.simulated_limits import simulated_limits
from flows.outputs import (
    earlier_summary,
    known_report,
    model_folder,
    predictions_path,
    report_fingerprint,
    report_paths,
    scoring_member_ids,
    scoring_model_id,
    training_set_of,
)
from flows.prefect_artifacts import publish_report
from flows.runtime import Summary, recipe_toml
from flows.terminal import console
from galstore.cube.predictions import read_predictions
from galstore.cube.reader import Cube, open_cube
from galstore.features.training_set import TrainingSet
from galstore.features.views import read_features
from schemas.catalog import COLUMN
from schemas.cutouts import SIDE_PX
from schemas.errors import TrainingError
from schemas.features import Split, feature_view
from schemas.recipes import Recipe

if TYPE_CHECKING:
    from modeling.evaluation.metrics import Regression
    from modeling.models.model import ModelConfig
    from modeling.report.model_page import Evaluation, ModelPage
    from modeling.report.predictions_page import PredictionsPage
    from modeling.report.quality_page import QualityPage

logger = logging.getLogger(__name__)


@flow(name="report")
def report(recipe: Recipe) -> Summary:
    """Write the report of a recipe's model and predictions, unless it is up to date.

    Parameters
    ----------
    recipe
        Recipe of the run.

    Returns
    -------
    dict
        Content of `report.json`: counts, every predictor's metrics, the verdict, and paths of all outputs.
    """
    cube = open_cube(recipe.store.path)
    training_set = training_set_of(recipe, cube)
    model_id = scoring_model_id(recipe, training_set)
    summary = known_report(recipe, cube, model_id)
    if summary is not None:
        logger.info("report: up to date")
        publish_report(summary)
        return summary
    with console.status("report: baselines and figures"):
        composed = compose_report(recipe, training_set, model_id)
    summary = {"fingerprint": report_fingerprint(recipe, cube, model_id), **composed}
    _, summary_path = report_paths(recipe)
    summary_path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    publish_report(summary)
    return summary


@task(cache_policy=NO_CACHE)
def compose_report(recipe: Recipe, training_set: TrainingSet, model_id: str) -> Summary:
    """Evaluate every predictor on the held-out galaxies, write the pages, and return the summary."""
    from modeling.models.checkpoint import load_model
    from modeling.report.model_page import verdict, write_model_page
    from modeling.report.pages import PREDICTIONS_PAGE, QUALITY_PAGE, Heading
    from modeling.report.predictions_page import summarise_predictions, write_predictions_page
    from modeling.report.quality_page import summarise_quality, write_quality_page

    cube, (path, _) = training_set.cube, report_paths(recipe)
    target = COLUMN[recipe.train.target].symbol or recipe.train.target
    heading = Heading(
        title=f"{target} of {cube.attributes['survey']}",
        survey=str(cube.attributes["survey"]),
        simulated=bool(cube.attributes["simulated"]),
        model_id=model_id,
    )
    # the first member of an ensemble provides the training log
    folder = model_folder(recipe, scoring_member_ids(recipe, training_set)[0])
    config = load_model(folder).config
    evaluation = evaluate_held_out(cube, training_set, model_id)
    quality = gather_quality(cube, heading, training_snapshot=config.snapshot, earlier=earlier_summary(recipe))
    predictions = gather_predictions(recipe, heading, target, training_set, predictions_path(recipe))
    model_page = gather_model_page(recipe, training_set, config, evaluation, quality, predictions)
    predictors = model_page.predictors.items()
    write_model_page(path, model_page)
    write_quality_page(path.with_name(QUALITY_PAGE), quality)
    write_predictions_page(path.with_name(PREDICTIONS_PAGE), predictions)
    return {
        "verdict": verdict(model_page),
        "ingest": asdict(cube.counts()),
        "evaluated": evaluation.split,
        "predictors": {name: result if isinstance(result, str) else asdict(result) for name, result in predictors},
        "quality": {"snapshot": cube.snapshot_id, **summarise_quality(quality)},
        "predictions": summarise_predictions(predictions),
        "paths": {
            "report": str(path),
            "quality": str(path.with_name(QUALITY_PAGE)),
            "predictions_page": str(path.with_name(PREDICTIONS_PAGE)),
            "predictions": str(predictions_path(recipe)) if predictions_path(recipe).exists() else None,
            "cube": recipe.store.path,
            "model": str(folder),
        },
    }


def gather_model_page(
    recipe: Recipe,
    training_set: TrainingSet,
    config: ModelConfig,
    evaluation: Evaluation,
    quality: QualityPage,
    predictions: PredictionsPage,
) -> ModelPage:
    """Evaluate the baselines and read the training log of the model."""
    from modeling.models.training_log import read_training_log
    from modeling.report.model_page import ModelPage, ModelProvenance, NewCatalog

    cube, new = training_set.cube, predictions.new
    return ModelPage(
        heading=quality.heading,
        ingest=quality.ingest,
        splits={split.name.lower(): int(training_set.indices(split).size) for split in Split},
        target=predictions.target,
        evaluation=evaluation,
        predictors=evaluate_predictors(recipe, cube, training_set, evaluation),
        training_log=read_training_log(model_folder(recipe, config.model_id)),
        best_epoch=config.best_epoch,
        provenance=ModelProvenance(
            model_id=quality.heading.model_id,
            training_set=config.training_set,
            snapshot=cube.snapshot_id,
            versions=config.versions,
            recipe=recipe_toml(recipe),
        ),
        new_catalog=None if new is None else NewCatalog(n=new.scored.n, n_scored=new.scored.n_scored),
    )


def evaluate_held_out(cube: Cube, training_set: TrainingSet, model_id: str) -> Evaluation:
    """Read the held-out galaxies and the model's predictions of them.

    Raises
    ------
    TrainingError
        Some held-out galaxies have no prediction.
    """
    from modeling.report.model_page import Evaluation

    split = training_set.evaluation_split
    indices = training_set.labelled(split)
    rows = training_set.rows[indices]
    predictions = read_predictions(cube, model_id, rows)
    if predictions["mean"].isna().any():
        raise TrainingError(
            f"{int(predictions['mean'].isna().sum())} of {rows.size} held-out galaxies have no prediction of model "
            f"{model_id}: run `galstore score` with this recipe first"
        )
    return Evaluation(
        split=split.name.lower(),
        object_id=training_set.object_ids[indices],
        true=training_set.labels[indices],
        predicted=predictions["mean"].to_numpy(dtype=np.float64),
        read_cutouts=lambda positions: cube.read_pixels(SIDE_PX, rows[positions]),
    )


def evaluate_predictors(
    recipe: Recipe, cube: Cube, training_set: TrainingSet, evaluation: Evaluation
) -> dict[str, Regression | str]:
    """Compute the metrics of the network, the baselines and, on a simulated sky, the oracle on the same galaxies."""
    from modeling.evaluation.baselines import FOREST_COLUMNS, known_magnitudes, predict_forest, predict_mean
    from modeling.evaluation.metrics import Regression
    from modeling.report.model_page import COLOURS, FOREST, FULL_FOREST, MEAN, NETWORK, ORACLE

    fit = training_set.labelled(Split.TRAIN)
    held_out = training_set.labelled(training_set.evaluation_split)
    magnitudes = read_features(cube, training_set.rows, feature_view("photometry"))
    fitted, labels = magnitudes.iloc[fit], training_set.labels[fit]
    all_magnitudes = known_magnitudes(fitted, [name for name in magnitudes.columns if "Err" not in name])
    metrics: dict[str, Regression | str] = {NETWORK: Regression.of(evaluation.true, evaluation.predicted)}
    baselines = {
        key: predict_forest(fitted, labels, magnitudes.iloc[held_out], columns=columns, seed=recipe.train.seed)
        for key, columns in {FOREST: FOREST_COLUMNS, FULL_FOREST: all_magnitudes}.items()
    }
    baselines[MEAN] = predict_mean(labels, held_out.size)
    metrics |= {key: baseline.against(evaluation.true) for key, baseline in baselines.items()}
    limits = simulated_limits(recipe, evaluation.object_id)
    if limits is not None:
        metrics[ORACLE] = Regression.of(evaluation.true, limits["oracle"])
        metrics[COLOURS] = Regression.of(evaluation.true, limits["total_colours"])
    return metrics

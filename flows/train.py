"""Flow `train`: draw the training set from the cube and fit the network, unless this model exists."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.outputs import freeze_training_set, model_folder, trained_model_id, training_set_of
from flows.prefect_artifacts import publish_training
from flows.runtime import Summary, progress_bar
from flows.terminal import console
from galstore.cube.predictions import read_object_columns
from galstore.cube.reader import Cube, open_cube
from galstore.features.training_set import TrainingSet
from schemas.cube import LEVEL
from schemas.cutouts import BANDS
from schemas.features import Split
from schemas.recipes import Recipe

if TYPE_CHECKING:
    from modeling.loading.pixels import Pixels
    from modeling.models.model import Model
    from modeling.models.training_log import EpochRecord
    from modeling.outliers.ood_score import DetectorExamples
    from modeling.training.train import TrainedNetwork

logger = logging.getLogger(__name__)


@flow(name="train")
def train(recipe: Recipe) -> Summary:
    """Train the recipe's network on the cube's labelled objects.

    Parameters
    ----------
    recipe
        Recipe of the run.

    Returns
    -------
    dict
        Id and folder of the model, and True under `trained` if it was trained in this run.
    """
    cube = open_cube(recipe.store.path)
    training_set = training_set_of(recipe, cube)
    model_id = trained_model_id(recipe, training_set)
    folder = model_folder(recipe, model_id)
    known = folder.is_dir()
    if known:
        logger.info("model %s: already trained on this training set", model_id)
    else:
        fit_network(recipe, cube, training_set, model_id)
    publish_training(model_id, folder, trained=not known)
    return {"model_id": model_id, "folder": str(folder), "trained": not known}


@task(cache_policy=NO_CACHE)
def fit_network(recipe: Recipe, cube: Cube, training_set: TrainingSet, model_id: str) -> None:
    """Freeze the training set, read its images, fit the network, and store its best epoch."""
    from modeling.loading.ranks import current_ranks

    is_first = current_ranks().is_first
    if is_first:
        freeze_training_set(recipe, cube, training_set)
    parts = training_set.indices(Split.TRAIN), training_set.indices(Split.VALIDATION)
    pixels, validation_pixels = (pixels_of(recipe, cube, training_set.rows[part]) for part in parts)
    trained = train_with_progress(recipe, training_set, model_id, pixels, validation_pixels)
    if is_first:
        finish_model(recipe, cube, training_set, model_id, trained, validation_pixels)


def train_with_progress(
    recipe: Recipe, training_set: TrainingSet, model_id: str, pixels: Pixels, validation_pixels: Pixels
) -> TrainedNetwork:
    """Train the network, or resume its training, and show the metrics of each epoch."""
    from modeling.training.train import train_network

    fit, validate = training_set.indices(Split.TRAIN), training_set.indices(Split.VALIDATION)
    labels = np.stack(list(training_set.values.values()), axis=1)
    folder = model_folder(recipe, model_id)
    folder.parent.mkdir(parents=True, exist_ok=True)
    title = f"training {recipe.network.arch} on {fit.size} galaxies at {recipe.network.level} px"
    with progress_bar(title, recipe.train.epochs) as progress:

        def show(record: EpochRecord) -> None:
            progress.advance(1)
            progress.note(record.summary)

        return train_network(
            pixels=pixels,
            labels=labels[fit],
            validation_pixels=validation_pixels,
            validation_labels=labels[validate],
            network=recipe.network,
            train=recipe.train,
            on_epoch=show,
            resume_path=folder.with_name(f".{model_id}.progress"),
        )


def finish_model(
    recipe: Recipe,
    cube: Cube,
    training_set: TrainingSet,
    model_id: str,
    trained: TrainedNetwork,
    validation_pixels: Pixels,
) -> None:
    """Evaluate a trained network, fit its intervals and its out-of-distribution detector, and store the model."""
    from modeling.evaluation.metrics import Regression
    from modeling.models.checkpoint import save_model
    from modeling.scoring.predict import predict_pixels
    from modeling.training.finish import build_model, fit_intervals, fit_ood_detector

    fit, validate = training_set.indices(Split.TRAIN), training_set.indices(Split.VALIDATION)
    model = build_model(
        trained,
        model_id=model_id,
        network=recipe.network,
        train=recipe.train,
        scale=cube.scale,
        training_set=training_set.content_hash,
        snapshot=cube.snapshot_id,
    )
    labels = training_set.labels[validate]
    known = np.isfinite(labels)
    predicted = predict_pixels(model, validation_pixels, views=recipe.score.views, batch_size=recipe.score.batch_size)
    result = Regression.of(labels[known], predicted.mean[known])
    model = fit_intervals(model, labels, predicted)
    with console.status("fitting the out-of-distribution detector"):
        examples, validation = (
            detector_examples(recipe, cube, model, training_set.rows[part]) for part in (fit, validate)
        )
        model = fit_ood_detector(model, examples, validation, training_set.labels[fit])
    save_model(model_folder(recipe, model_id), model, metrics={"validation": result}, log=trained.log)
    logger.info(
        "model %s: best epoch %d, validation RMSE %.4f, NMAD %.4f (mean over %d views)",
        model_id,
        trained.best_epoch,
        result.rmse,
        result.nmad,
        recipe.score.views,
    )


def detector_examples(recipe: Recipe, cube: Cube, model: Model, rows: npt.NDArray[np.int64]) -> DetectorExamples:
    """Read and embed objects for the out-of-distribution detector; large sets are thinned evenly."""
    from modeling.outliers.catalog_consistency import COMPARED_COLUMNS
    from modeling.outliers.ood_score import MAX_ROWS, DetectorExamples
    from modeling.scoring.predict import predict

    rows = rows[:: max(1, -(-rows.size // MAX_ROWS))]
    pixels = cube.read_pixels(recipe.network.level, rows)
    predicted = predict(model, pixels, views=recipe.score.views, batch_size=recipe.score.batch_size)
    finer = 2 * recipe.network.level
    return DetectorExamples(
        embedding=predicted.embedding,
        pixels=pixels,
        catalog=read_object_columns(cube, rows, COMPARED_COLUMNS),
        finer=cube.read_pixels(finer, rows) if finer in LEVEL else None,
    )


def pixels_of(recipe: Recipe, cube: Cube, rows: npt.NDArray[np.int64]) -> Pixels:
    """Return images at the recipe's level: in memory if they fit, else streamed from the cube."""
    import torch

    from modeling.loading.pixels import StreamedPixels, choose_residence, place_pixels
    from modeling.models.networks import choose_device

    level = recipe.network.level
    dtype = torch.uint8 if LEVEL[level].scale_factor == 1 else torch.float32
    n_bytes = rows.size * level * level * len(BANDS) * dtype.itemsize
    if choose_residence(n_bytes, recipe.train.pixels) == "streamed":
        logger.info("%.1f GB of images are streamed from the cube", n_bytes / 1e9)
        return StreamedPixels(
            lambda chosen, out: cube.read_pixels(level, chosen, out),
            rows,
            side_px=level,
            dtype=dtype,
            n_bands=len(BANDS),
        )
    with console.status(f"reading {rows.size} images at {level} px"):
        pixels = cube.read_pixels(level, rows)
    return place_pixels(pixels, choose_device(recipe.train.device), rows)

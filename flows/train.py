"""Train: a training set is taken from the cube and a network is fitted to it, unless that was done before."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.artefacts import freeze_training_set, model_folder, trained_model_id, training_set_of
from flows.runtime import console, load_recipe, progress_bar
from galstore.reader import Cube, open_cube
from galstore.splits import Split
from galstore.training_set import TrainingSet
from schemas.recipes import Recipe


@flow(name="train")
def train(recipe: str = "demo", overrides: list[str] | None = None) -> dict[str, Any]:
    """Train the recipe's network on the cube's labelled objects.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file.
    overrides
        `section.key=value`.

    Returns
    -------
    dict
        The model's id and folder, and whether it was trained now.
    """
    loaded = load_recipe(recipe, overrides)
    cube = open_cube(loaded.store.path)
    training_set = training_set_of(loaded, cube)
    model_id = trained_model_id(loaded, training_set)
    folder = model_folder(loaded, model_id)
    known = folder.is_dir()
    if known:
        console.print(f"model {model_id}: trained before on this very training set, not trained again")
    else:
        fit_network(loaded, cube, training_set, model_id)
    return {"model_id": model_id, "folder": str(folder), "trained": not known}


@task(cache_policy=NO_CACHE)
def fit_network(recipe: Recipe, cube: Cube, training_set: TrainingSet, model_id: str) -> None:
    """Freeze the training set, read its images, fit the network, and keep its best epoch."""
    freeze_training_set(recipe, cube, training_set)
    from modeling.checkpoint import build_model, save_model
    from modeling.metrics import Regression
    from modeling.predict import predict
    from modeling.train import EpochRecord, train_network

    fit, validate = training_set.indices(Split.TRAIN), training_set.indices(Split.VALIDATION)
    with console.status(f"reading {fit.size + validate.size} images at {recipe.network.level} px"):
        pixels = cube.read_pixels(recipe.network.level, training_set.rows[fit])
        validation_pixels = cube.read_pixels(recipe.network.level, training_set.rows[validate])
    title = f"training {recipe.network.arch} on {fit.size} galaxies at {recipe.network.level} px"
    with progress_bar(title, recipe.train.epochs) as progress:

        def show(record: EpochRecord) -> None:
            progress.advance(1)
            progress.note(
                f"validation RMSE {record.rmse:.4f}, NMAD {record.nmad:.4f}, {record.images_per_s:.0f} images/s"
            )

        trained = train_network(
            pixels=pixels,
            labels=training_set.labels[fit],
            validation_pixels=validation_pixels,
            validation_labels=training_set.labels[validate],
            network=recipe.network,
            train=recipe.train,
            on_epoch=show,
        )
    model = build_model(
        trained,
        model_id=model_id,
        network=recipe.network,
        train=recipe.train,
        scale=cube.scale,
        training_set=training_set.content_hash,
        snapshot=cube.snapshot_id,
    )
    predicted = predict(model, validation_pixels, views=recipe.score.views, batch_size=recipe.score.batch_size)
    result = Regression.of(training_set.labels[validate], predicted.mean)
    save_model(model_folder(recipe, model_id), model, metrics={"validation": result}, log=trained.log)
    console.print(
        f"model {model_id}: best epoch {trained.best_epoch}, validation RMSE {result.rmse:.4f}, NMAD {result.nmad:.4f} "
        f"(mean over {recipe.score.views} views)"
    )

"""Flow `cross-validate`: predict every labelled galaxy by networks trained on the other folds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.engine.folds import FoldJob, FoldPlan, fit_all, fit_fold, plan_folds
from flows.outputs import freeze_training_set, write_csv
from flows.runtime import Summary, dask_client, output_path, progress_bar
from schemas.recipes import Recipe

if TYPE_CHECKING:
    import distributed

    from modeling.training.cross_validation import CrossValidation

logger = logging.getLogger(__name__)


@flow(name="cross-validate")
def cross_validate(recipe: Recipe, n_folds: int = 5, n_seeds: int = 1, final: bool = False) -> Summary:
    """Evaluate the recipe's training on every labelled galaxy of the cube; the recipe's split is ignored.

    Finished folds are reused, so that a killed run resumes.

    Parameters
    ----------
    recipe
        Recipe of the run.
    n_folds
        Number of folds, at least 2.
    n_seeds
        Number of networks for each fold, with seeds from `train.seed` on; their mean is the prediction.
    final
        Also train networks on all galaxies, and store them among the recipe's models.

    Returns
    -------
    dict
        RMSE and NMAD of all galaxies and of each fold, with those of the mean of the training labels; path of the
        predictions; ids of the final models.
    """
    plan = plan_folds(recipe, n_folds=n_folds, n_seeds=n_seeds)
    jobs = list(plan.jobs())
    missing = [job for job in jobs if not plan.predictions_file(job).is_file()]
    if len(missing) < len(jobs):
        logger.info("%d of %d trainings are finished already", len(jobs) - len(missing), len(jobs))
    if missing:
        fit_folds(plan, missing)
    result = combine_folds(plan, jobs)
    path = output_path(plan.recipe, "cross_validation", "predictions.csv")
    columns = {"fold": plan.folds, "true": result.true, "predicted": result.predicted}
    write_csv(path, pd.DataFrame({"object_id": plan.galaxies.object_ids} | columns))
    finals = plan.final_jobs() if final else {}
    untrained = {model_id: job for model_id, job in finals.items() if not plan.model_folder(model_id).is_dir()}
    if untrained:
        fit_final_networks(plan, untrained, result)
    return {"target": plan.recipe.train.target, **result.to_dict(), "predictions": str(path), "final_models": [*finals]}


@task(cache_policy=NO_CACHE)
def fit_folds(plan: FoldPlan, jobs: Sequence[FoldJob]) -> None:
    """Train the networks of folds on Dask workers; store the predictions of each as it finishes."""
    import distributed

    with (
        training_workers(plan.recipe, len(jobs)) as client,
        progress_bar(f"{plan.n_folds} folds of {plan.folds.size} galaxies", len(jobs)) as progress,
    ):
        job_of = {client.submit(fit_fold, job, pure=False): job for job in jobs}
        for finished, table in distributed.as_completed(job_of, with_results=True):
            write_csv(plan.predictions_file(job_of[finished]), table)
            progress.advance(1)


@task(cache_policy=NO_CACHE)
def fit_final_networks(plan: FoldPlan, jobs: Mapping[str, FoldJob], result: CrossValidation) -> None:
    """Train on all galaxies and store the models with the metrics of the cross-validation."""
    from modeling.models.checkpoint import save_model
    from modeling.training.finish import build_model

    freeze_training_set(plan.recipe, plan.cube, plan.galaxies)
    with (
        training_workers(plan.recipe, len(jobs)) as client,
        progress_bar(f"training on all {plan.folds.size} galaxies", len(jobs)) as progress,
    ):
        trainings = {model_id: client.submit(fit_all, job, pure=False) for model_id, job in jobs.items()}
        for model_id, training in trainings.items():
            recipe, trained = jobs[model_id].recipe, training.result()
            model = build_model(
                trained,
                model_id=model_id,
                network=recipe.network,
                train=recipe.train,
                scale=plan.cube.scale,
                training_set=plan.galaxies.content_hash,
                snapshot=plan.cube.snapshot_id,
            )
            folder = plan.model_folder(model_id)
            save_model(folder, model, metrics={"cross_validation": result.overall}, log=trained.log)
            progress.advance(1)


@contextmanager
def training_workers(recipe: Recipe, n_tasks: int) -> Iterator[distributed.Client]:
    """Yield Dask workers of one thread each, or one worker for a GPU.

    On a busy machine, two threads of one network wait for each other: training takes up to 50 times as long.
    """
    from modeling.models.networks import choose_device

    on_cpu = choose_device(recipe.train.device).type == "cpu"
    section = recipe.dask if on_cpu else recipe.dask.model_copy(update={"workers": 1})
    with dask_client(section, n_tasks=n_tasks) as client:
        # a heartbeat during shutdown would log a traceback; errors of tasks arrive as results
        client.run(logging.getLogger("distributed").setLevel, logging.CRITICAL)
        yield client


def combine_folds(plan: FoldPlan, jobs: Sequence[FoldJob]) -> CrossValidation:
    """Compare each galaxy's label with its mean prediction over the seeds."""
    from modeling.training.cross_validation import CrossValidation

    predictions = pd.concat([pd.read_csv(plan.predictions_file(job)) for job in jobs])
    predicted = predictions.groupby("object_id")["predicted"].mean().reindex(plan.galaxies.object_ids)
    return CrossValidation.of(plan.folds, plan.galaxies.labels, predicted.to_numpy())

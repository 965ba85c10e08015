"""Cross-validate: every labelled galaxy is predicted by networks that were trained on the other folds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.csv_cache import read_csv, write_csv
from flows.engine.folds import FoldJob, FoldPlan, fit_all, fit_fold, plan_folds
from flows.outputs import freeze_training_set
from flows.runtime import console, dask_client, load_recipe, output_path, progress_bar
from schemas.recipes import Recipe

if TYPE_CHECKING:
    import distributed

    from modeling.training.cross_validation import CrossValidation


@flow(name="cross-validate")
def cross_validate(
    recipe: str = "sdss_demo",
    overrides: list[str] | None = None,
    n_folds: int = 5,
    n_seeds: int = 1,
    final: bool = False,
) -> dict[str, Any]:
    """Judge the recipe's training on every labelled galaxy of the cube; the split of the recipe does not count.

    A fold whose predictions are kept is not trained again, so that a run that was killed goes on where it was.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file.
    overrides
        `section.key=value`.
    n_folds
        At least 2.
    n_seeds
        Networks of each fold, from `train.seed` on; their mean predicts.
    final
        Train networks on all galaxies too, and keep them among the recipe's models.

    Returns
    -------
    dict
        RMSE and NMAD over all galaxies and of each fold, beside those of the mean of the training labels; the path of
        the predictions; ids of the final models.
    """
    plan = plan_folds(load_recipe(recipe, overrides), n_folds=n_folds, n_seeds=n_seeds)
    jobs = list(plan.jobs())
    missing = [job for job in jobs if not plan.kept(job).is_file()]
    if len(missing) < len(jobs):
        console.print(f"{len(jobs) - len(missing)} of {len(jobs)} trainings were done before")
    if missing:
        fit_folds(plan, missing)
    judged = judge_folds(plan, jobs)
    path = output_path(plan.recipe, "cross_validation", "predictions.csv")
    columns = {"fold": plan.folds, "true": judged.true, "predicted": judged.predicted}
    write_csv(path, pd.DataFrame({"object_id": plan.galaxies.object_ids} | columns))
    finals = plan.final_jobs() if final else {}
    untrained = {model_id: job for model_id, job in finals.items() if not plan.model_folder(model_id).is_dir()}
    if untrained:
        fit_final_networks(plan, untrained, judged)
    return {"target": plan.recipe.train.target, **judged.to_dict(), "predictions": str(path), "final_models": [*finals]}


@task(cache_policy=NO_CACHE)
def fit_folds(plan: FoldPlan, jobs: Sequence[FoldJob]) -> None:
    """Train networks of folds on Dask workers; what each predicts is kept as soon as it is there."""
    import distributed

    with (
        training_workers(plan.recipe, len(jobs)) as client,
        progress_bar(f"{plan.n_folds} folds of {plan.folds.size} galaxies", len(jobs)) as progress,
    ):
        job_of = {client.submit(fit_fold, job, pure=False): job for job in jobs}
        for finished, table in distributed.as_completed(job_of, with_results=True):
            write_csv(plan.kept(job_of[finished]), table)
            progress.advance(1)


@task(cache_policy=NO_CACHE)
def fit_final_networks(plan: FoldPlan, jobs: Mapping[str, FoldJob], judged: CrossValidation) -> None:
    """Train on all galaxies and keep the models, with the metrics that cross-validation found for their like."""
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
                trained, model_id=model_id, network=recipe.network, train=recipe.train, scale=plan.cube.scale,
                training_set=plan.galaxies.content_hash, snapshot=plan.cube.snapshot_id,
            )  # fmt: skip
            folder = plan.model_folder(model_id)
            save_model(folder, model, metrics={"cross_validation": judged.overall}, log=trained.log)
            progress.advance(1)


@contextmanager
def training_workers(recipe: Recipe, n_tasks: int) -> Iterator[distributed.Client]:
    """Dask workers of one thread each: on a busy machine two threads of one network wait for each other, 50 times over.

    A GPU has one worker.
    """
    from modeling.models.networks import choose_device

    on_cpu = choose_device(recipe.train.device).type == "cpu"
    section = recipe.dask if on_cpu else recipe.dask.model_copy(update={"workers": 1})
    with dask_client(section, n_tasks=n_tasks) as client:
        # a heartbeat that meets the end of the cluster would be told with a traceback; errors of tasks come as results
        client.run(logging.getLogger("distributed").setLevel, logging.CRITICAL)
        yield client


def judge_folds(plan: FoldPlan, jobs: Sequence[FoldJob]) -> CrossValidation:
    """Every galaxy's mean prediction over the seeds, beside its label."""
    from modeling.training.cross_validation import CrossValidation

    predictions = pd.concat([read_csv(plan.kept(job)) for job in jobs])
    predicted = predictions.groupby("object_id")["predicted"].mean().reindex(plan.galaxies.object_ids)
    return CrossValidation.of(plan.folds, plan.galaxies.labels, predicted.to_numpy())

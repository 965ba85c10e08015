"""Flow `ingest`: register a survey's catalog, then pull its cutouts into the cube."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.prefect_artifacts import current_run_id, publish_ingest
from flows.runtime import TRANSIENT_FAILURES, Summary, dask_client, progress_bar, survey_address
from flows.terminal import console
from galstore.cube.layout import ensure_cube
from galstore.cube.reader import Cube, open_cube
from galstore.executor import DaskExecutor
from galstore.ingest.catalog_update import Registration
from galstore.ingest.fetch import CutoutSource
from galstore.ingest.fill import count_open, fill_cube, plan_block_tasks
from galstore.ingest.quarantine import parse_reasons
from galstore.ingest.register import register_file, register_survey
from galstore.ingest.write import FillResult
from galstore.survey.cutout_service import CutoutService, catalog_service_of, cutout_service_of, request_limits_of
from galstore.survey.skyserver import SkyServer
from schemas.cutouts import Reason, Status
from schemas.recipes import Recipe

logger = logging.getLogger(__name__)


@flow(name="ingest")
def ingest(recipe: Recipe, retry_quarantined: list[str] | None = None, survey_url: str | None = None) -> Summary:
    """Register the survey's catalog and pull every pending cutout.

    Parameters
    ----------
    recipe
        Recipe of the run.
    retry_quarantined
        Reasons of quarantine, in lower case, whose objects are requested again; "all" for every reason.
    survey_url
        Address of the recipe's emulator if it runs already.

    Returns
    -------
    dict
        Numbers of new objects and of requests, and the cube's counts.
    """
    path, survey = recipe.store.path, recipe.survey
    ensure_cube(path, survey=survey.name, scale=recipe.cutout_scale, simulated=recipe.sky_is_simulated)
    with survey_address(recipe, survey_url) as base_url:
        registration = register_catalog(recipe, catalog_service_of(survey, base_url))
        cutouts = cutout_service_of(survey, base_url)
        filled = pull_cutouts(recipe, cutouts, retried=parse_reasons(retry_quarantined or []))
    counts = open_cube(path).counts()
    logger.info(
        "cube %s: %d registered = %d stored + %d quarantined + %d pending",
        path,
        counts.registered,
        counts.stored,
        counts.quarantined,
        counts.pending,
    )
    publish_ingest(path, n_new=registration.n_new, n_requests=filled.n_requests)
    return {"n_new": registration.n_new, "n_requests": filled.n_requests, **asdict(counts)}


@task(cache_policy=NO_CACHE)
def register_catalog(recipe: Recipe, service: SkyServer) -> Registration:
    """Register the new objects of the survey's catalog, or of the catalog file that the recipe names."""
    survey = recipe.survey
    if survey.catalog is not None:
        return register_catalog_file(recipe, survey.catalog)[0]
    with console.status(f"catalog: querying {service.base_url}"):
        registration = register_survey(
            recipe.store.path,
            service,
            survey.narrowed_selection,
            survey=survey.name,
            columns=survey.columns,
            limit=survey.limit,
            page_rows=survey.page_rows,
            whole=survey.is_whole,
            run_id=current_run_id(),
        )
    log_registration(recipe, survey.name, registration)
    return registration


@task(cache_policy=NO_CACHE)
def register_catalog_file(recipe: Recipe, catalog: Path) -> tuple[Registration, pd.DataFrame]:
    """Register a catalog file; return also its objects (object_id, ra, dec) in file order."""
    with console.status(f"catalog: reading {catalog}"):
        registration, objects = register_file(
            recipe.store.path, catalog, page_rows=recipe.survey.page_rows, run_id=current_run_id()
        )
    log_registration(recipe, catalog.stem, registration)
    return registration, objects


def log_registration(recipe: Recipe, catalog: str, registration: Registration) -> None:
    """Log the counts of a registration."""
    logger.info(
        "catalog %s: %d rows = %d new + %d known + %d rejected",
        catalog,
        registration.n_delivered,
        registration.n_new,
        registration.n_known,
        registration.n_rejected,
    )
    if registration.n_relabelled or registration.n_vanished:
        logger.info(
            "  %d with changed labels (new version of the label view), %d no longer in the catalog (flagged)",
            registration.n_relabelled,
            registration.n_vanished,
        )
    if registration.ignored_columns:
        logger.info("  unknown columns, not stored: %s", ", ".join(registration.ignored_columns))
    if registration.n_rejected:
        logger.info("  rejected rows and their reasons: galstore quarantine %s", recipe.store.path)


@task(cache_policy=NO_CACHE, **TRANSIENT_FAILURES)
def pull_cutouts(
    recipe: Recipe,
    service: CutoutService,
    rows: npt.NDArray[np.int64] | None = None,
    retried: frozenset[Reason] = frozenset(),
) -> FillResult:
    """Pull the cutouts of all pending objects, or of the blocks with some rows.

    A retry continues after the last commit.
    """
    cube = open_cube(recipe.store.path)
    tasks = plan_block_tasks(cube, rows, retried=retried)
    if not tasks:
        logger.info("cutouts: none pending")
        return FillResult()
    with (
        dask_client(recipe.dask, n_tasks=len(tasks)) as client,
        progress_bar("cutouts", count_open(cube, tasks)) as progress,
    ):
        total = FillResult()

        def show(finished: FillResult) -> None:
            nonlocal total
            total += finished
            progress.advance(finished.n_settled)
            progress.note(f"{total.n_stored} stored, {total.n_quarantined} quarantined")

        return fill_cube(
            recipe.store.path,
            tasks,
            cutout_source(recipe, service, cube, n_workers=len(client.scheduler_info(n_workers=-1)["workers"])),
            DaskExecutor(client),
            blocks_per_commit=recipe.dask.blocks_per_commit,
            run_id=current_run_id(),
            on_block=show,
        )


def cutout_source(recipe: Recipe, service: CutoutService, cube: Cube, *, n_workers: int) -> CutoutSource:
    """Build the client settings of block tasks; each worker gets an equal share of the connections."""
    request_limits = request_limits_of(recipe.survey, n_workers=n_workers)
    source = CutoutSource(service=service, scale=recipe.cutout_scale, request_limits=request_limits)
    stored = np.flatnonzero(cube.read_state("status") == Status.STORED)
    return source.with_known_good(cube, int(stored[0])) if stored.size else source

"""Ingest: a survey's catalog is registered, then its cutouts are pulled into the cube."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.prefect_artifacts import publish_ingest
from flows.runtime import (
    PASSING_FAILURES,
    console,
    current_run_id,
    dask_client,
    load_recipe,
    progress_bar,
    survey_address,
)
from galstore.cube.layout import ensure_cube
from galstore.cube.reader import Cube, open_cube
from galstore.ingest.fetch import CutoutSource
from galstore.ingest.fill import Filled, count_open, fill_cube, plan_jobs
from galstore.ingest.quarantine import reasons_named
from galstore.ingest.register import Registration, register_file, register_survey
from galstore.survey.cutout_service import CutoutService, catalog_service_of, cutout_service_of
from galstore.survey.retry import Politeness
from galstore.survey.skyserver import SkyServer
from schemas.cutouts import Reason, Status
from schemas.recipes import Recipe


@flow(name="ingest")
def ingest(
    recipe: str = "demo", overrides: list[str] | None = None, retry_quarantined: list[str] | None = None
) -> dict[str, Any]:
    """Register the survey's catalog and pull every cutout that is still pending.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file.
    overrides
        `section.key=value`.
    retry_quarantined
        Reasons of quarantine, in lower case, whose objects are asked for again; "all" for every reason.

    Returns
    -------
    dict
        What was new and what was asked for, and the cube's counts.
    """
    loaded = load_recipe(recipe, overrides)
    ensure_cube(
        loaded.store.path, survey=loaded.survey.name, scale=loaded.cutout_scale, simulated=loaded.sky_is_simulated
    )
    with survey_address(recipe, overrides) as base_url:
        registration = register_catalog(loaded, catalog_service_of(loaded.survey, base_url))
        cutouts = cutout_service_of(loaded.survey, base_url)
        filled = pull_cutouts(loaded, cutouts, retried=reasons_named(retry_quarantined or []))
    counts = open_cube(loaded.store.path).counts()
    console.print(
        f"cube {loaded.store.path}: {counts.registered} registered = {counts.stored} stored + "
        f"{counts.quarantined} quarantined + {counts.pending} pending"
    )
    publish_ingest(loaded.store.path, n_new=registration.n_new, n_requests=filled.n_requests)
    return {"n_new": registration.n_new, "n_requests": filled.n_requests, **asdict(counts)}


@task(cache_policy=NO_CACHE)
def register_catalog(recipe: Recipe, service: SkyServer) -> Registration:
    """Give every new object its row: those that the survey's own catalog lists, or those of a file."""
    survey = recipe.survey
    if survey.catalog is not None:
        return register_catalog_file(recipe, survey.catalog)[0]
    with console.status(f"catalog: asking {service.base_url}"):
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
    tell_registration(recipe, survey.name, registration)
    return registration


@task(cache_policy=NO_CACHE)
def register_catalog_file(recipe: Recipe, catalog: Path) -> tuple[Registration, pd.DataFrame]:
    """Register a user's catalog; its objects (object_id, ra, dec) come back in file order."""
    with console.status(f"catalog: reading {catalog}"):
        registration, objects = register_file(
            recipe.store.path, catalog, page_rows=recipe.survey.page_rows, run_id=current_run_id()
        )
    tell_registration(recipe, catalog.stem, registration)
    return registration, objects


def tell_registration(recipe: Recipe, catalog: str, registration: Registration) -> None:
    """Say what registering did."""
    console.print(
        f"catalog {catalog}: {registration.n_delivered} rows = {registration.n_new} new + {registration.n_known} known "
        f"+ {registration.n_rejected} rejected"
    )
    if registration.n_relabelled or registration.n_vanished:
        console.print(
            f"  {registration.n_relabelled} with changed labels (a new version of the label view), "
            f"{registration.n_vanished} no longer in the catalog (kept and flagged)"
        )
    if registration.ignored_columns:
        console.print(f"  columns without a contract, not kept: {', '.join(registration.ignored_columns)}")
    if registration.n_rejected:
        console.print(f"  rejected rows, each with its reason: galstore quarantine {recipe.store.path}")


@task(cache_policy=NO_CACHE, **PASSING_FAILURES)
def pull_cutouts(
    recipe: Recipe,
    service: CutoutService,
    rows: npt.NDArray[np.int64] | None = None,
    retried: frozenset[Reason] = frozenset(),
) -> Filled:
    """Pull the cutouts of all pending objects, or of the blocks that hold some rows.

    A try after a failure goes on where the last commit stands.
    """
    cube = open_cube(recipe.store.path)
    jobs = plan_jobs(cube, rows, retried=retried)
    if not jobs:
        console.print("cutouts: none pending, nothing fetched")
        return Filled()
    with (
        dask_client(recipe.dask, n_tasks=len(jobs)) as client,
        progress_bar("cutouts", count_open(cube, jobs)) as progress,
    ):
        total = Filled()

        def tell(filled: Filled) -> None:
            nonlocal total
            total += filled
            progress.advance(filled.n_settled)
            progress.note(f"{total.n_stored} stored, {total.n_quarantined} quarantined")

        return fill_cube(
            recipe.store.path,
            jobs,
            cutout_source(recipe, service, cube, n_workers=len(client.scheduler_info(n_workers=-1)["workers"])),
            client,
            blocks_per_commit=recipe.dask.blocks_per_commit,
            run_id=current_run_id(),
            on_commit=tell,
        )


def cutout_source(recipe: Recipe, service: CutoutService, cube: Cube, *, n_workers: int) -> CutoutSource:
    """Whom block tasks ask; the rate is of the whole run, and each worker gets its share of the connections."""
    survey = recipe.survey
    politeness = Politeness(
        requests_per_second=survey.requests_per_second,
        concurrency=max(1, survey.concurrency // n_workers),
        connect_timeout_s=survey.connect_timeout_s,
        read_timeout_s=survey.read_timeout_s,
        attempts=survey.attempts,
        retry_budget_s=survey.retry_budget_s,
        breaker_failures=survey.breaker_failures,
    )
    source = CutoutSource(service=service, scale=recipe.cutout_scale, politeness=politeness)
    stored = np.flatnonzero(cube.read_state("status") == Status.STORED)
    return source.with_known_good(cube, int(stored[0])) if stored.size else source

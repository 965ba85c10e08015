"""Ingest: a survey's catalog is registered, then its cutouts are pulled into the cube, wave by wave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import distributed
import numpy as np
import numpy.typing as npt
import pandas as pd
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.artefacts import rejected_path
from flows.runtime import (
    PASSING_FAILURES,
    console,
    dask_client,
    load_recipe,
    progress_bar,
    survey_address,
)
from galstore.blocks import Block, waves_of
from galstore.cube import ensure_cube
from galstore.ingest import CutoutSource, Filled, fill_wave, pending_blocks, pending_in
from galstore.reader import open_cube
from galstore.register import Registration, register_file, register_survey
from galstore.services.http import Politeness
from galstore.services.skyserver import SkyServer
from schemas.errors import RecipeError
from schemas.recipes import Recipe
from schemas.selection import selection_named


@flow(name="ingest")
def ingest(recipe: str = "demo", overrides: list[str] | None = None) -> dict[str, Any]:
    """Register the survey's catalog and pull every cutout that is still pending.

    Parameters
    ----------
    recipe
        Name of a recipe or path of a TOML file.
    overrides
        `section.key=value`.

    Returns
    -------
    dict
        What was new and what was asked for, and the cube's counts.
    """
    loaded = load_recipe(recipe, overrides)
    ensure_cube(
        loaded.store.path, survey=loaded.survey.name, scale=loaded.cutouts.scale, simulated=loaded.sky_is_simulated
    )
    with survey_address(recipe, overrides) as base_url:
        service = SkyServer(base_url=base_url, data_release=loaded.survey.data_release)
        registration = register_survey_catalog(loaded, service)
        filled = pull_cutouts(loaded, service)
    counts = open_cube(loaded.store.path).counts()
    console.print(
        f"cube {loaded.store.path}: {counts.registered} registered = {counts.stored} stored + "
        f"{counts.quarantined} quarantined + {counts.pending} pending"
    )
    return {"n_new": registration.n_new, "n_requests": filled.n_requests, **asdict(counts)}


@task(cache_policy=NO_CACHE)
def register_survey_catalog(recipe: Recipe, service: SkyServer) -> Registration:
    """Query the survey's catalog and give every new object its row."""
    with console.status(f"catalog: asking {service.base_url}"):
        registration = register_survey(
            recipe.store.path,
            service,
            selection_named(recipe.survey.selection),
            survey=recipe.survey.name,
            columns=recipe.survey.columns,
            limit=recipe.survey.limit,
            page_rows=recipe.survey.page_rows,
        )
    tell_registration(recipe, recipe.survey.name, registration)
    return registration


@task(cache_policy=NO_CACHE)
def register_new_catalog(recipe: Recipe) -> pd.DataFrame:
    """Register the catalog file that is to be scored; its objects (object_id, ra, dec) come back in file order."""
    if recipe.score.catalog is None:
        raise RecipeError("there is no catalog to score: set score.catalog to a CSV with object_id, ra, dec")
    registration, objects = register_file(recipe.store.path, recipe.score.catalog)
    tell_registration(recipe, recipe.score.catalog.stem, registration)
    return objects


def tell_registration(recipe: Recipe, catalog: str, registration: Registration) -> None:
    """Say what registering did, and keep the rejected rows where they can be looked at."""
    console.print(
        f"catalog {catalog}: {registration.n_delivered} rows = {registration.n_new} new + {registration.n_known} known "
        f"+ {registration.n_rejected} rejected"
    )
    if registration.ignored_columns:
        console.print(f"  columns without a contract, not kept: {', '.join(registration.ignored_columns)}")
    path = rejected_path(recipe, catalog)
    path.unlink(missing_ok=True)  # a list of an earlier delivery
    if registration.n_rejected:
        registration.rejected.to_csv(path, index=False)
        console.print(f"  rejected rows, each with its reason: {path}")


def pull_cutouts(recipe: Recipe, service: SkyServer, rows: npt.NDArray[np.int64] | None = None) -> Filled:
    """Pull the cutouts of all pending objects, or of the blocks that hold some rows; one task and one commit a wave."""
    cube = open_cube(recipe.store.path)
    blocks = pending_blocks(cube, rows)
    if not blocks:
        console.print("cutouts: none pending, nothing fetched")
        return Filled()
    total = Filled()
    with (
        dask_client(recipe.dask, n_tasks=len(blocks)) as client,
        progress_bar("cutouts", pending_in(cube, blocks)) as progress,
    ):
        source = cutout_source(recipe, service, n_workers=len(client.scheduler_info()["workers"]))
        for wave in waves_of(blocks, recipe.dask.blocks_per_wave):
            total += pull_wave(recipe.store.path, wave, source, progress.advance)
            progress.note(f"{total.n_stored} stored, {total.n_quarantined} quarantined")
    return total


@task(cache_policy=NO_CACHE, **PASSING_FAILURES)
def pull_wave(path: str, wave: Sequence[Block], source: CutoutSource, on_block: Callable[[int], None]) -> Filled:
    """Fetch, decode, average, write and commit some blocks."""
    return fill_wave(path, wave, source, distributed.get_client(), on_block=on_block)


def cutout_source(recipe: Recipe, service: SkyServer, *, n_workers: int) -> CutoutSource:
    """Whom block tasks ask; each worker gets its share of the run's one rate limit."""
    survey = recipe.survey
    politeness = Politeness(
        requests_per_second=survey.requests_per_second / n_workers,
        concurrency=max(1, survey.concurrency // n_workers),
        timeout_s=survey.timeout_s,
        attempts=survey.attempts,
    )
    return CutoutSource(service=service, scale=recipe.cutouts.scale, politeness=politeness)

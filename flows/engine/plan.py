"""Plan of a run: the work that is missing, found without a Prefect server."""

from __future__ import annotations

from pathlib import Path

from flows.outputs import (
    held_out_rows,
    known_report,
    model_folder,
    named_model_ids,
    predictions_id,
    predictions_path,
    trained_model_id,
    training_set_of,
)
from galstore.cube.commits import repository_exists
from galstore.cube.inventory import Inventory, take_inventory
from galstore.cube.predictions import unscored_rows
from galstore.cube.reader import Cube, open_cube
from galstore.ingest.register import file_digest
from galstore.survey.skyserver import SkyServer
from galstore.survey.skyserver_sql import count_catalog
from schemas.recipes import Recipe


def missing_work(recipe: Recipe, base_url: str) -> tuple[str, ...]:
    """List the missing work of ingest, train, score and report; empty if a run would change nothing.

    Only the number of rows is queried from the survey. Labels that change while the number stays are found by
    `galstore ingest`, which reads the whole catalog.

    Parameters
    ----------
    recipe
        Recipe of the run.
    base_url
        Address of its survey.
    """
    if not repository_exists(recipe.store.path):
        return ("the cube does not exist yet",)
    cube = open_cube(recipe.store.path)
    inventory = take_inventory(cube)
    if inventory.counts.pending:
        return (f"{inventory.counts.pending} cutouts are pending",)
    missing = (
        *_new_rows_of_survey(recipe, inventory, base_url),
        *_new_rows_of_catalog(recipe.score.catalog, inventory),
    )
    return missing or _missing_products(recipe, cube)


def _new_rows_of_survey(recipe: Recipe, inventory: Inventory, base_url: str) -> tuple[str, ...]:
    survey = recipe.survey
    if survey.catalog is not None:
        return _new_rows_of_catalog(survey.catalog, inventory)
    if survey.where.strip() or survey.since:
        # the cube does not know which of its rows belong to a part of the survey
        return (f"part of the survey: {survey.narrowed_selection.conditions[-1]}",)
    service = SkyServer(base_url=base_url, data_release=survey.data_release)
    n_rows = count_catalog(service, survey.narrowed_selection)
    (catalog,) = [catalog for catalog in inventory.catalogs if catalog["name"] == survey.name] or [{}]
    n_registered = catalog.get("n_registered", 0) - catalog.get("n_vanished", 0)
    n_rejected = inventory.rejected_by_catalog.get(survey.name, 0)
    n_known = n_registered + n_rejected
    if n_rows == n_known or (survey.limit and min(n_rows, survey.limit) <= n_known):
        return ()
    return (f"the survey has {n_rows} rows, {n_registered} are registered and {n_rejected} were rejected",)


def _new_rows_of_catalog(catalog: Path | None, inventory: Inventory) -> tuple[str, ...]:
    if catalog is None:
        return ()
    known = {registered.get("sha256") for registered in inventory.catalogs}
    return () if catalog.exists() and file_digest(catalog) in known else (f"catalog {catalog} is new",)


def _missing_products(recipe: Recipe, cube: Cube) -> tuple[str, ...]:
    training_set = training_set_of(recipe, cube)
    model_id = trained_model_id(recipe, training_set)
    members = (model_id,) if recipe.score.model in ("", model_id) else named_model_ids(recipe)
    scoring_id = predictions_id(members)
    needed = dict.fromkeys((model_id, *members))
    missing = [f"model {name} is not trained" for name in needed if not model_folder(recipe, name).is_dir()]
    if not missing and unscored_rows(cube, scoring_id, held_out_rows(training_set)).size:
        missing.append(f"model {scoring_id} has not scored the held-out galaxies")
    if not missing and recipe.score.catalog is not None and not predictions_path(recipe).exists():
        missing.append(f"predictions of {recipe.score.catalog} are not written")
    if not missing and known_report(recipe, cube, scoring_id) is None:
        missing.append("the report is not up to date")
    return tuple(missing)

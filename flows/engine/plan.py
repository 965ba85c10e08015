"""Plan: what a run would still have to do, found out without doing it and without a Prefect server."""

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
    """What is left to do of ingest, train, score and report; nothing if a run would change nothing.

    The survey is asked for its number of rows alone: labels that change under an unchanged number are found by
    `galstore ingest`, which reads the whole catalog.

    Parameters
    ----------
    recipe
        The run.
    base_url
        Address of its survey.
    """
    if not repository_exists(recipe.store.path):
        return ("there is no cube yet",)
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
        # how many of the known rows belong to a part of the survey is known to the survey alone
        return (f"a part of the survey is asked for: {survey.narrowed_selection.conditions[-1]}",)
    service = SkyServer(base_url=base_url, data_release=survey.data_release)
    counted = count_catalog(service, survey.narrowed_selection)
    (ours,) = [one for one in inventory.catalogs if one["name"] == survey.name] or [{}]
    listed = ours.get("n_registered", 0) - ours.get("n_vanished", 0)
    rejected = inventory.rejected_by_catalog.get(survey.name, 0)
    if counted == listed + rejected or (survey.limit and min(counted, survey.limit) <= listed + rejected):
        return ()
    return (f"the survey has {counted} rows, {listed} are registered and {rejected} were rejected",)


def _new_rows_of_catalog(catalog: Path | None, inventory: Inventory) -> tuple[str, ...]:
    if catalog is None:
        return ()
    known = {one.get("sha256") for one in inventory.catalogs}
    return () if catalog.exists() and file_digest(catalog) in known else (f"catalog {catalog} is new",)


def _missing_products(recipe: Recipe, cube: Cube) -> tuple[str, ...]:
    model_id = trained_model_id(recipe, training_set_of(recipe, cube))
    members = (model_id,) if recipe.score.model in ("", model_id) else named_model_ids(recipe)
    scoring_id = predictions_id(members)
    needed = dict.fromkeys((model_id, *members))
    missing = [f"model {one} is not trained" for one in needed if not model_folder(recipe, one).is_dir()]
    if not missing and unscored_rows(cube, scoring_id, held_out_rows(recipe, cube)).size:
        missing.append(f"model {scoring_id} has not scored the held-out galaxies")
    if not missing and recipe.score.catalog is not None and not predictions_path(recipe).exists():
        missing.append(f"predictions of {recipe.score.catalog} are not written")
    if not missing and known_report(recipe, cube, scoring_id) is None:
        missing.append("the report is not up to date")
    return tuple(missing)

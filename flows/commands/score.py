"""Commands that score a catalog and publish predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import AsJson, Overrides, RecipeArgument, StoreArgument, print_export, recipe_for_flow
from schemas.errors import ExportError, RecipeError


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the `galstore` command."""
    app.command()(score)
    app.command()(publish)


def score(
    recipe: RecipeArgument = "demo",
    catalog: Annotated[
        Path | None,
        typer.Option(help="CSV, ECSV, FITS, VOTable or Parquet with object_id, ra, dec (score.catalog)"),
    ] = None,
    cutouts: Annotated[
        Path | None, typer.Option(help="Folder of JPEGs named by object id, instead of the recipe's survey")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Pull a new catalog's cutouts, predict it, and write the predictions as Parquet.

    Example: galstore score sdss --catalog tonight.csv
    """
    if cutouts is not None and catalog is None:
        raise RecipeError("--cutouts needs --catalog: a catalog with object_id, ra, dec of these cutouts")
    values: dict[str, object] = {"score.catalog": catalog}
    if cutouts is not None:
        values |= {"survey.base_url": "emulator", "emulator": {"catalog": catalog, "cutouts": cutouts}}
    loaded = recipe_for_flow(recipe, overrides, values, needs_cube=True)
    from flows.score import score as flow

    flow(loaded)


def publish(
    store: StoreArgument,
    model: Annotated[str, typer.Argument(help="Id of a model or ensemble with predictions, or the start of it")],
    out: Annotated[Path, typer.Argument(help="File to create; for hats a folder")],
    format: Annotated[  # noqa: A002 - the usual word
        str, typer.Option(help="hats, parquet, csv, ecsv, fits or votable")
    ] = "parquet",
    catalog: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Publish all objects of this catalog; by default, all objects with a prediction"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model's predictions with uncertainties, percentiles, flags, units and provenance.

    Example: galstore publish runs/sdss/cube 3f2a90c1b7de predictions-hats --format hats
    """
    from flows.runtime import progress_bar
    from galstore.cube.reader import open_cube
    from galstore.export.formats import PredictionFormat
    from galstore.export.predictions import publish_predictions

    formats = [known.value for known in PredictionFormat]
    if format not in formats:
        raise ExportError(f"--format {format!r} is unknown: choose one of {', '.join(formats)}")
    cube = open_cube(store)
    matching = [name for name in cube.group_names("predictions") if name.startswith(model)]
    model_id = matching[0] if len(matching) == 1 else model
    with progress_bar(f"publish as {format}", cube.n_objects) as progress:
        done = publish_predictions(
            cube, model_id, out, format=PredictionFormat(format), catalog=catalog, on_progress=progress.advance
        )
    print_export(done, as_json=as_json)

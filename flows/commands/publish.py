"""Command that publishes a model's predictions as a catalog with units and provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.cube import AsJson, StoreArgument


def register_commands(app: typer.Typer) -> None:
    """Add the command to the `galstore` command."""
    app.command()(publish)


def publish(
    store: StoreArgument,
    model: Annotated[str, typer.Argument(help="Id of a model or ensemble with predictions, or its beginning")],
    out: Annotated[Path, typer.Argument(help="File to be made; a folder for hats")],
    format: Annotated[  # noqa: A002 - the word that every exporter's users know
        str, typer.Option(help="hats, parquet, csv, ecsv, fits or votable")
    ] = "parquet",
    catalog: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="All objects of this catalog; by default every object with a prediction"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model's predictions with error bars, percentiles, flags, units and provenance.

    Example: galstore publish runs/sdss/cube 3f2a90c1b7de predictions-hats --format hats
    """
    from flows.runtime import progress_bar
    from galstore.cube.reader import open_cube
    from galstore.export.predictions import PredictionFormat, publish_predictions
    from schemas.errors import ExportError

    formats = [one.value for one in PredictionFormat]
    if format not in formats:
        raise ExportError(f"--format {format!r} is unknown: choose one of {', '.join(formats)}")
    cube = open_cube(store)
    begun = [one for one in cube.group_names("predictions") if one.startswith(model)]
    with progress_bar(f"publish as {format}", cube.n_objects) as progress:
        done = publish_predictions(
            cube, begun[0] if len(begun) == 1 else model, out, format=PredictionFormat(format), catalog=catalog,
            on_progress=progress.advance,
        )  # fmt: skip
    if as_json:
        told = {"path": str(done.path), "objects": done.n_objects, "files": done.n_files, "bytes": done.bytes}
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{done.n_objects:,} objects in {done.n_files:,} files, {done.bytes:,} bytes: {done.path}")

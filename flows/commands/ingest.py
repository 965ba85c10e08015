"""Command that ingests a survey."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from flows.commands.options import Overrides, RecipeArgument, recipe_for_flow

RETRY = "--retry-quarantined"


class _IngestCommand(TyperCommand):
    """Command whose option `--retry-quarantined` may stand without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"{RETRY}=all" if argument == RETRY else argument for argument in args])


def register_commands(app: typer.Typer) -> None:
    """Add the command to the `galstore` command."""
    app.command(cls=_IngestCommand)(ingest)


def ingest(
    recipe: RecipeArgument = "demo",
    limit: Annotated[int | None, typer.Option(help="Maximum number of objects (survey.limit)")] = None,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="Part of the survey, such as 'G.dec > 30' (survey.where)")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Only spectra observed since this day (survey.since)")
    ] = None,
    catalog: Annotated[
        Path | None,
        typer.Option(help="Objects from a CSV, ECSV, FITS, VOTable or Parquet file (survey.catalog)"),
    ] = None,
    retry_quarantined: Annotated[
        list[str] | None,
        typer.Option(RETRY, metavar="[=REASON]", help="Request quarantined cutouts again; may be repeated"),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Register the survey's catalog and pull its cutouts into the cube; only new and pending objects are requested.

    Example: galstore ingest sdss --limit 2000 --set store.path=sdss/cube --retry-quarantined=truncated
    """
    from galstore.ingest.quarantine import parse_reasons

    parse_reasons(retry_quarantined or [])
    values = {"survey.limit": limit, "survey.where": where, "survey.since": since, "survey.catalog": catalog}
    loaded = recipe_for_flow(recipe, overrides, values)
    from flows.ingest import ingest as flow

    flow(loaded, retry_quarantined or [])

"""The `galstore` command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands import cube, evaluate, features, figures, models, probe, publish, service, studies
from flows.terminal import escaped, stdout
from schemas.errors import GalstoreError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a galaxy survey to a scored catalog: pull cutouts into a Zarr cube, train on it, score new catalogs.\n\n"
    "Example: [bold]galstore run demo[/bold]",
)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Name of a recipe (demo, sdss_demo, sdss) or path of a TOML file")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one value of the recipe; may be repeated"),
]


def main() -> None:
    """Run the command line; an error of galstore's own is one line, and the exit code 1."""
    # Typer has no options with an optional value
    sys.argv = [f"{word}=all" if word == "--retry-quarantined" else word for word in sys.argv]
    try:
        app()
    except GalstoreError as error:
        from rich.console import Console

        Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {escaped(error)}")
        sys.exit(1)


@app.command()
def run(recipe: RecipeArgument = "demo", overrides: Overrides = None) -> None:
    """Ingest, train, score and report, in this order; what is done already is not done again.

    Example: galstore run demo --set train.epochs=5
    """
    _before_flow(recipe, overrides)
    from flows.engine.plan import missing_work
    from flows.outputs import current_summary
    from flows.runtime import console, load_recipe, survey_address

    loaded = load_recipe(recipe, overrides)
    with survey_address(recipe, overrides) as base_url:
        missing = missing_work(loaded, base_url)
        if missing:
            console.print(f"to do: {'; '.join(missing)}")
            from flows.run import run as flow

            _tell(flow(recipe, overrides or [])["report"])
            return
    console.print("nothing to do: the survey has no new rows, and everything is fetched, trained, scored and reported")
    _tell(current_summary(loaded))


@app.command()
def ingest(
    recipe: RecipeArgument = "demo",
    limit: Annotated[int | None, typer.Option(help="At most so many objects: sets survey.limit")] = None,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="Only a part of the survey, as 'G.dec > 30': sets survey.where")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Only spectra observed since: sets survey.since")
    ] = None,
    catalog: Annotated[
        Path | None,
        typer.Option(help="CSV, ECSV, FITS, VOTable or Parquet of objects, not the survey's own: sets survey.catalog"),
    ] = None,
    retry_quarantined: Annotated[
        list[str] | None,
        typer.Option("--retry-quarantined", metavar="[=REASON]", help="Ask again for what was quarantined; repeatable"),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Register the survey's catalog and pull its cutouts into the cube; only what is new or pending is asked for.

    Example: galstore ingest sdss --limit 2000 --set store.path=sdss/cube --retry-quarantined=truncated
    """
    from galstore.ingest.quarantine import reasons_named

    reasons_named(retry_quarantined or [])
    given = {"limit": limit, "where": _quoted(where), "since": since, "catalog": _quoted(catalog)}
    overrides = [*(overrides or []), *(f"survey.{key}={value}" for key, value in given.items() if value is not None)]
    _before_flow(recipe, overrides)
    from flows.ingest import ingest as flow

    flow(recipe, overrides, retry_quarantined or [])


def _quoted(value: object) -> str | None:
    return None if value is None else json.dumps(str(value))


@app.command()
def train(recipe: RecipeArgument = "demo", overrides: Overrides = None) -> None:
    """Train the recipe's network on the cube.

    Example: galstore train sdss --set network.level=64 --set train.epochs=20
    """
    _before_flow(recipe, overrides, needs_cube=True)
    from flows.train import train as flow

    flow(recipe, overrides or [])


@app.command()
def score(
    recipe: RecipeArgument = "demo",
    catalog: Annotated[
        Path | None,
        typer.Option(help="CSV, ECSV, FITS, VOTable or Parquet with object_id, ra, dec: sets score.catalog"),
    ] = None,
    cutouts: Annotated[
        Path | None, typer.Option(help="Folder of JPEGs named by object id, instead of the recipe's survey")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Pull a new catalog's cutouts, predict it, and write the predictions as Parquet.

    Example: galstore score sdss --catalog tonight.csv
    """
    overrides = [*(overrides or []), *_new_catalog_overrides(catalog, cutouts)]
    _before_flow(recipe, overrides, needs_cube=True)
    from flows.score import score as flow

    flow(recipe, overrides)


@app.command()
def report(recipe: RecipeArgument = "demo", overrides: Overrides = None) -> None:
    """Write the HTML report of a recipe's model and predictions.

    Example: galstore report demo
    """
    _before_flow(recipe, overrides, needs_cube=True)
    from flows.report import report as flow

    _tell(flow(recipe, overrides or []))


@app.command()
def emulate(
    recipe: Annotated[str | None, typer.Option(help="Play the [emulator] section of this recipe")] = None,
    n_galaxies: Annotated[int, typer.Option("--galaxies", help="Simulated galaxies with spectra")] = 4600,
    seed: Annotated[int, typer.Option(help="Seed of the simulated sky")] = 0,
    catalog: Annotated[Path | None, typer.Option(help="CSV of a folder of cutouts (objID, ra, dec, ...)")] = None,
    cutouts: Annotated[Path | None, typer.Option(help="Folder of JPEGs named by objID")] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 picks a free one")] = 0,
    overrides: Overrides = None,
) -> None:
    """Play a SkyServer on loopback, over a simulated sky or a folder of real cutouts; for emulator and tests.

    The first line on stdout is its base URL. Ctrl-C ends it.

    Example: galstore emulate --catalog sample.csv --cutouts jpegs/ --port 8080
    """
    from flows.runtime import load_recipe
    from galstore.emulator.server import emulate as serve
    from schemas.errors import RecipeError
    from schemas.recipes import EmulatorSection

    if recipe is not None:
        section = load_recipe(recipe, overrides).emulator
        if section is None:
            raise RecipeError(f"recipe {recipe} has no section [emulator] to play")
    elif (catalog is None) != (cutouts is None):
        raise RecipeError("--catalog and --cutouts belong together: the CSV, and the folder of its JPEGs")
    elif catalog is not None:
        section = EmulatorSection(catalog=catalog, cutouts=cutouts)
    else:
        section = EmulatorSection(n_galaxies=n_galaxies, seed=seed)
    serve(section, port=port)


def _new_catalog_overrides(catalog: Path | None, cutouts: Path | None) -> list[str]:
    from schemas.errors import RecipeError

    if cutouts is not None and catalog is None:
        raise RecipeError("--cutouts needs --catalog: the CSV with object_id, ra, dec of those cutouts")
    overrides = [] if catalog is None else [f"score.catalog='{catalog}'"]
    if cutouts is not None:
        folder = f"{{ catalog = '{catalog}', cutouts = '{cutouts}' }}"
        overrides += ["survey.base_url='emulator'", f"emulator={folder}"]
    return overrides


def _before_flow(recipe: str, overrides: list[str] | None, *, needs_cube: bool = False) -> None:
    """Refuse bad input before Prefect is loaded, and keep Prefect quiet and offline unless the user set it up."""
    from flows.runtime import load_recipe

    loaded = load_recipe(recipe, overrides)
    if needs_cube:
        from galstore.cube.commits import open_repository

        open_repository(loaded.store.path)
    if loaded.score.catalog is not None and not (loaded.emulator and loaded.emulator.new_catalog):
        _check_catalog(loaded.score.catalog)
    if loaded.survey.catalog is not None:
        _check_catalog(loaded.survey.catalog)
    for name, value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # errors are told once, by `main`, without a traceback
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        # the temporary server needs 10 s; on a machine that is busy it took more than the default of 20
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }.items():
        os.environ.setdefault(name, value)


def _check_catalog(catalog: Path) -> None:
    """Refuse a catalog file of whose first page nothing can be kept."""
    from galstore.survey.catalog_files.reader import read_catalog_head
    from galstore.survey.row_checks import prepare_catalog, require_kept_rows

    prepared = prepare_catalog(read_catalog_head(catalog), origin=str(catalog))
    require_kept_rows(len(prepared.rows), prepared.rejected, origin=str(catalog))


def _tell(summary: dict[str, Any]) -> None:
    from flows.commands.tables import summary_table

    counts = summary["ingest"]
    out = stdout()
    out.print(f"\n[bold]{escaped(summary['verdict'])}[/]\n")
    out.print(summary_table(summary))
    out.print(
        f"\nregistered {counts['registered']} = stored {counts['stored']} + quarantined {counts['quarantined']} + "
        f"pending {counts['pending']}"
    )
    for name, path in summary["paths"].items():
        if path is not None:
            out.print(f"{name.replace('_', ' '):18s}{path}", soft_wrap=True)


cube.register_commands(app)
features.register_commands(app)
figures.register_commands(app)
evaluate.register_commands(app)
models.register_commands(app)
publish.register_commands(app)
service.register_commands(app)
probe.register_commands(app)
studies.register_commands(app, before_flow=_before_flow)

if __name__ == "__main__":
    main()

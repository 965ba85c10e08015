"""Commands about a survey's services: probe and emulate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.commands.options import AsJson, Overrides, print_json
from flows.terminal import escaped, stdout
from schemas.errors import RecipeError

if TYPE_CHECKING:
    from rich.table import Table

    from galstore.survey.probe.checks import Check
    from schemas.recipes import Recipe


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the `galstore` command."""
    app.command()(probe)
    app.command()(emulate)


def probe(
    survey: Annotated[
        Literal["sdss", "legacy"],
        typer.Option(help="sdss: SkyServer; legacy: SDSS's catalog, cutouts of the Legacy Surveys viewer"),
    ] = "sdss",
    recipe: Annotated[str | None, typer.Option(help="Check the services of this recipe instead")] = None,
    base_url: Annotated[str | None, typer.Option(help="Root of all services, such as an emulator's address")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Check with at most ten requests that a survey's services respond as galstore expects.

    Exit code 1 if a check differs or fails. Nothing is stored.

    Example: galstore probe --survey legacy
    """
    from flows.runtime import load_recipe, survey_address
    from galstore.survey.probe.survey import agree, probe_survey

    loaded = load_recipe(recipe or survey, overrides)
    if base_url is not None:
        loaded = loaded.with_values({"survey.base_url": base_url, "survey.cutout_base_url": base_url})
    with survey_address(loaded) as address:
        checks = probe_survey(loaded, address)
    agreed = agree(checks)
    if as_json:
        print_json({"agree": agreed, "checks": [check.to_dict() for check in checks]})
    else:
        out = stdout()
        out.print(_check_table(checks, loaded))
        for check in checks:
            if check.advice:
                out.print(f"[bold]{escaped(check.name)}[/]: {escaped(check.advice)}")
        out.print("service and client agree" if agreed else "[red]service and client do not agree[/]")
    if not agreed:
        raise typer.Exit(1)


def _check_table(checks: tuple[Check, ...], recipe: Recipe) -> Table:
    from rich.table import Table

    table = Table(title=f"probe of {escaped(recipe.survey.name)}", title_justify="left")
    for heading in ("check", "", "expected", "got", "s"):
        table.add_column(heading, overflow="fold")
    colours = {"ok": "green", "differs": "red", "failed": "red", "skipped": "dim"}
    for check in checks:
        seconds = f"{check.seconds:.2f}" if check.seconds else ""
        verdict = f"[{colours[check.verdict]}]{check.verdict.value}[/]"
        table.add_row(check.name, verdict, escaped(check.expected), escaped(check.got), seconds)
    return table


def emulate(
    recipe: Annotated[str | None, typer.Option(help="Recipe whose [emulator] section is used")] = None,
    n_galaxies: Annotated[int, typer.Option("--galaxies", help="Number of simulated galaxies with spectra")] = 4600,
    seed: Annotated[int, typer.Option(help="Seed of the simulated sky")] = 0,
    catalog: Annotated[Path | None, typer.Option(help="CSV of a folder of cutouts (objID, ra, dec, ...)")] = None,
    cutouts: Annotated[Path | None, typer.Option(help="Folder of JPEGs named by objID")] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 picks a free one")] = 0,
    overrides: Overrides = None,
) -> None:
    """Emulate SkyServer and the Legacy Surveys viewer on loopback, over a simulated sky or a folder of cutouts.

    The first line on stdout is the base URL. Ctrl-C stops it.

    Example: galstore emulate --catalog sample.csv --cutouts jpegs/ --port 8080
    """
    from flows.runtime import load_recipe
    from galstore.emulator.server import emulate as serve
    from schemas.recipes import EmulatorSection

    if recipe is not None:
        section = load_recipe(recipe, overrides).emulator
        if section is None:
            raise RecipeError(f"recipe {recipe} has no section [emulator]: add one, or name another recipe")
    elif (catalog is None) != (cutouts is None):
        raise RecipeError("--catalog and --cutouts belong together: the CSV, and the folder of its JPEGs")
    elif catalog is not None:
        section = EmulatorSection(catalog=catalog, cutouts=cutouts)
    else:
        section = EmulatorSection(n_galaxies=n_galaxies, seed=seed)
    serve(section, port=port)

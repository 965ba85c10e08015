"""`galstore probe`: whether a survey's services still answer as galstore expects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.terminal import escaped, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from galstore.survey.probe.checks import Check
    from schemas.recipes import Recipe


def register_commands(app: typer.Typer) -> None:
    """Add the command to `galstore`."""
    app.command()(probe)


def probe(
    survey: Annotated[
        Literal["sdss", "legacy"], typer.Option(help="SkyServer, or SDSS's catalog with the Legacy Surveys viewer")
    ] = "sdss",
    recipe: Annotated[str | None, typer.Option(help="Ask the services of this recipe instead")] = None,
    base_url: Annotated[str | None, typer.Option(help="Root of all services, such as an emulator's address")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one value of the recipe; may be repeated"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Make ten requests at most, and say where a survey's services answer otherwise than galstore expects.

    Exit code 1 where anything differs or failed. Nothing is stored, and nothing is asked twice.

    Example: galstore probe --survey legacy
    """
    from flows.runtime import load_recipe, survey_address
    from galstore.survey.probe.survey import agree, probe_survey

    name = recipe or survey
    given = (
        [] if base_url is None else [f"survey.{key}={json.dumps(base_url)}" for key in ("base_url", "cutout_base_url")]
    )
    sets = [*(overrides or []), *given]
    loaded = load_recipe(name, sets)
    with survey_address(name, sets) as address:
        checks = probe_survey(loaded, address)
    agreed = agree(checks)
    if as_json:
        typer.echo(json.dumps({"agree": agreed, "checks": [check.to_dict() for check in checks]}, indent=2))
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

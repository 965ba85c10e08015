"""Commands that run the pipeline or its last steps: run, train, report."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import typer

from flows.commands.options import Overrides, RecipeArgument, recipe_for_flow
from flows.commands.tables import predictors_table
from flows.terminal import escaped, stdout

if TYPE_CHECKING:
    from galstore.cube.arrays import Attributes

logger = logging.getLogger(__name__)


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the `galstore` command."""
    for command in (run, train, report):
        app.command()(command)


def run(recipe: RecipeArgument = "demo", overrides: Overrides = None) -> None:
    """Ingest, train, score and report, in this order; finished work is skipped.

    Example: galstore run demo --set train.epochs=5
    """
    loaded = recipe_for_flow(recipe, overrides)
    from flows.engine.plan import missing_work
    from flows.outputs import current_summary
    from flows.runtime import survey_address

    with survey_address(loaded) as base_url:
        missing = missing_work(loaded, base_url)
        if missing:
            logger.info("to do: %s", "; ".join(missing))
            from flows.run import run as flow

            _print_summary(flow(loaded, base_url)["report"])
            return
    logger.info("nothing to do: no new rows in the survey; everything is fetched, trained, scored and reported")
    _print_summary(current_summary(loaded))


def train(recipe: RecipeArgument = "demo", overrides: Overrides = None) -> None:
    """Train the recipe's network on the cube.

    Example: galstore train sdss --set network.level=64 --set train.epochs=20
    """
    loaded = recipe_for_flow(recipe, overrides, needs_cube=True)
    from flows.train import train as flow

    flow(loaded)


def report(recipe: RecipeArgument = "demo", overrides: Overrides = None) -> None:
    """Write the HTML report of a recipe's model and predictions.

    Example: galstore report demo
    """
    loaded = recipe_for_flow(recipe, overrides, needs_cube=True)
    from flows.report import report as flow

    _print_summary(flow(loaded))


def _print_summary(summary: Attributes) -> None:
    counts = summary["ingest"]
    out = stdout()
    out.print(f"\n[bold]{escaped(summary['verdict'])}[/]\n")
    out.print(predictors_table(summary["predictors"]))
    out.print(
        f"\nregistered {counts['registered']} = stored {counts['stored']} + quarantined {counts['quarantined']} + "
        f"pending {counts['pending']}"
    )
    for name, path in summary["paths"].items():
        if path is not None:
            out.print(f"{name.replace('_', ' '):18s}{path}", soft_wrap=True)

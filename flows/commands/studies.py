"""Commands of studies: sweep over image sizes, and cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import AsJson, Overrides, RecipeArgument, print_json, recipe_for_flow
from flows.commands.tables import new_table
from flows.terminal import escaped, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from galstore.cube.arrays import Attributes

PAPER = {
    ("network", 128): (0.0851, 0.0668),
    ("network", 64): (0.0893, 0.0703),
    ("network", 32): (0.0928, 0.0715),
    ("network", 16): (0.1053, 0.0815),
    ("network", 8): (0.1126, 0.0870),
    ("network", 4): (0.1290, 0.1022),
    ("network", 2): (0.1587, 0.1198),
    ("network", 1): (0.1610, 0.1251),
    ("forest", 0): (0.1296, 0.1059),
    ("mean", 0): (0.2002, 0.1709),
}
"""RMSE and NMAD (dex) of a ResNet-34 on 20,466 real galaxies: Wu & Boada (2019), figure 4 and section 4.2."""

PAPER_TARGET = "oh_p50"


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the `galstore` command."""
    app.command("sweep")(sweep)
    app.command("cross-validate")(cross_validate)


def sweep(
    recipe: RecipeArgument = "demo",
    levels: Annotated[str, typer.Option(metavar="PX,PX", help="Sides of the images, px")] = "128,64,32,16,8,4,2,1",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train the recipe's network at each level of the cube, and evaluate each on the same held-out galaxies.

    Trained models are reused. Writes sweep/sweep.csv in the recipe's output folder.

    Example: galstore sweep demo --levels 64,16,4,1
    """
    loaded = recipe_for_flow(recipe, overrides, needs_cube=True)
    from flows.sweep import plan_sweep
    from flows.sweep import sweep as flow

    sides = _parse_sides(levels)
    # without a training no step needs a Prefect server
    run = flow.fn if all(plan.is_trained for plan in plan_sweep(loaded, sides)) else flow
    rows = run(loaded, sides)
    if as_json:
        print_json(rows)
        return
    out = stdout()
    out.print(_sweep_table(rows, beside_paper=loaded.train.target == PAPER_TARGET, simulated=loaded.sky_is_simulated))
    out.print(f"curve: {loaded.output.folder / 'sweep' / 'sweep.csv'}", soft_wrap=True)


def cross_validate(
    recipe: RecipeArgument = "sdss_demo",
    folds: Annotated[int, typer.Option(min=2, help="Number of folds")] = 5,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of networks for each fold, whose mean is the prediction")
    ] = 1,
    final: Annotated[bool, typer.Option("--final", help="Also train on all galaxies and store these models")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate the recipe's training on every labelled galaxy, predicted by networks that were not trained on it.

    Finished folds are reused. Writes cross_validation/predictions.csv in the output folder.

    Example: galstore cross-validate sdss_demo --folds 5 --seeds 2 --final
    """
    loaded = recipe_for_flow(recipe, overrides, needs_cube=True)
    from flows.cross_validate import cross_validate as flow

    result = flow(loaded, folds, seeds, final)
    if as_json:
        print_json(result)
        return
    out = stdout()
    out.print(_folds_table(result, simulated=loaded.sky_is_simulated))
    out.print(f"predictions: {result['predictions']}", soft_wrap=True)
    for model_id in result["final_models"]:
        out.print(f"trained on all {result['overall']['n']:,} galaxies: model {model_id}", soft_wrap=True)


def _parse_sides(levels: str) -> list[int]:
    from schemas.errors import RecipeError

    try:
        return [int(side) for side in levels.split(",")]
    except ValueError as error:
        raise RecipeError(f"--levels {levels!r}: give sides in px, separated by commas: 64,16,4,1") from error


def _sweep_table(rows: Sequence[Attributes], *, beside_paper: bool, simulated: bool) -> Table:
    headings = ["px", "RMSE", "NMAD", "galaxies", *(["paper's RMSE", "paper's NMAD"] if beside_paper else [])]
    table = new_table("predictor", *headings, right=headings, title="simulated sky" if simulated else "")
    for row in rows:
        cells = [str(row["level"] or "-"), f"{row['rmse']:.4f}", f"{row['nmad']:.4f}", f"{row['n']:,}"]
        if beside_paper:
            published = PAPER.get((row["predictor"], row["level"]))
            cells += ["-", "-"] if published is None else [f"{value:.4f}" for value in published]
        table.add_row(escaped(row["predictor"]), *cells)
    if beside_paper:
        table.caption = "paper: Wu & Boada 2019, ResNet-34 on 20,466 real galaxies"
    return table


def _folds_table(result: Attributes, *, simulated: bool) -> Table:
    title = f"{result['target']}{' of a simulated sky' if simulated else ''}, out-of-fold predictions"
    headings = ("galaxies", "RMSE", "NMAD", "mean's RMSE", "mean's NMAD", "RMSE / mean's")
    table = new_table("fold", *headings, right=headings, title=title)
    for fold in result["folds"]:
        table.add_row(str(fold["fold"] + 1), *_fold_cells(fold))
    table.add_section()
    table.add_row("all", *_fold_cells(result["overall"]))
    return table


def _fold_cells(fold: Attributes) -> list[str]:
    metrics = [f"{fold[key]:.4f}" for key in ("rmse", "nmad", "rmse_of_mean", "nmad_of_mean")]
    return [f"{fold['n']:,}", *metrics, f"{fold['ratio']:.3f}"]

"""Commands of studies: what resolution is worth, and how good a training is where labels are few."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from flows.commands.cube import AsJson
from flows.terminal import escaped, stdout

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
"""RMSE and NMAD in dex on 20,466 real galaxies, of a ResNet-34 (Wu & Boada 2019, figure 4 and section 4.2)."""

PAPER_TARGET = "oh_p50"

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe or path of a TOML file")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one value of the recipe; may be repeated"),
]


def register_commands(app: typer.Typer, *, before_flow: Callable[..., None]) -> None:
    """Add the commands to the `galstore` command.

    Parameters
    ----------
    app
        The command.
    before_flow
        Called with the recipe's name, the overrides and `needs_cube=True`, before anything slow is loaded.
    """
    app.command("sweep")(_prepared(sweep, before_flow))
    app.command("cross-validate")(_prepared(cross_validate, before_flow))


def _prepared(command: Callable[..., None], before_flow: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def run(**arguments: Any) -> None:
        before_flow(arguments["recipe"], arguments["overrides"], needs_cube=True)
        command(**arguments)

    return run


def sweep(
    recipe: RecipeArgument = "demo",
    levels: Annotated[str, typer.Option(metavar="PX,PX", help="Sides of the images")] = "128,64,32,16,8,4,2,1",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train the recipe's network at each level of the cube, and judge each on the same held-out galaxies.

    What is trained already is not trained again. Writes sweep/sweep.csv in the recipe's output folder.

    Example: galstore sweep demo --levels 64,16,4,1
    """
    from flows.runtime import load_recipe
    from flows.sweep import plan_sweep
    from flows.sweep import sweep as flow

    sides = _sides(levels)
    # with every model at hand nothing is left that needs a server
    walk = flow.fn if all(one.is_trained for one in plan_sweep(recipe, overrides, sides)) else flow
    rows = walk(recipe, overrides or [], sides)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    loaded = load_recipe(recipe, overrides)
    stdout().print(
        _sweep_table(rows, beside_paper=loaded.train.target == PAPER_TARGET, simulated=loaded.sky_is_simulated)
    )
    stdout().print(f"curve: {loaded.output.folder / 'sweep' / 'sweep.csv'}", soft_wrap=True)


def cross_validate(
    recipe: RecipeArgument = "sdss_demo",
    folds: Annotated[int, typer.Option(min=2, help="Parts, each of which is predicted by networks of the others")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Networks of each fold, whose mean predicts")] = 1,
    final: Annotated[bool, typer.Option("--final", help="Train on all galaxies too, and keep these models")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Judge the recipe's training on every labelled galaxy, each predicted by networks that have not seen it.

    Folds that are done already are not done again. Writes cross_validation/predictions.csv in the output folder.

    Example: galstore cross-validate sdss_demo --folds 5 --seeds 2 --final
    """
    from flows.cross_validate import cross_validate as flow
    from flows.runtime import load_recipe

    judged = flow(recipe, overrides or [], folds, seeds, final)
    if as_json:
        typer.echo(json.dumps(judged, indent=2))
        return
    out = stdout()
    out.print(_folds_table(judged, simulated=load_recipe(recipe, overrides).sky_is_simulated))
    out.print(f"predictions: {judged['predictions']}", soft_wrap=True)
    for model_id in judged["final_models"]:
        out.print(f"trained on all {judged['overall']['n']:,} galaxies: model {model_id}", soft_wrap=True)


def _sides(levels: str) -> list[int]:
    from schemas.errors import RecipeError

    try:
        return [int(one) for one in levels.split(",")]
    except ValueError as error:
        raise RecipeError(f"--levels {levels!r}: give sides in px with commas between, as 64,16,4,1") from error


def _sweep_table(rows: list[dict[str, Any]], *, beside_paper: bool, simulated: bool) -> Any:
    from rich.table import Table

    table = Table(show_edge=False, title="simulated sky" if simulated else None, title_justify="left")
    headings = ["px", "RMSE", "NMAD", "galaxies", *(["paper's RMSE", "paper's NMAD"] if beside_paper else [])]
    table.add_column("predictor")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [str(row["level"] or "-"), f"{row['rmse']:.4f}", f"{row['nmad']:.4f}", f"{row['n']:,}"]
        if beside_paper:
            known = PAPER.get((row["predictor"], row["level"]))
            cells += ["-", "-"] if known is None else [f"{one:.4f}" for one in known]
        table.add_row(escaped(row["predictor"]), *cells)
    if beside_paper:
        table.caption = "paper: Wu & Boada 2019, ResNet-34 on 20,466 real galaxies"
    return table


def _folds_table(judged: dict[str, Any], *, simulated: bool) -> Any:
    from rich.table import Table

    title = f"{judged['target']}{' of a simulated sky' if simulated else ''}, out-of-fold predictions"
    table = Table(show_edge=False, title=title, title_justify="left")
    table.add_column("fold")
    for heading in ("galaxies", "RMSE", "NMAD", "mean's RMSE", "mean's NMAD", "RMSE / mean's"):
        table.add_column(heading, justify="right")
    for part in [*judged["folds"], judged["overall"]]:
        name = "all" if part["fold"] is None else str(part["fold"] + 1)
        figures = (part[key] for key in ("rmse", "nmad", "rmse_of_mean", "nmad_of_mean"))
        if name == "all":
            table.add_section()
        table.add_row(name, f"{part['n']:,}", *(f"{one:.4f}" for one in figures), f"{part['ratio']:.3f}")
    return table

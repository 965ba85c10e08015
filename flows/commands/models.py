"""Commands of the model store: list, show, promote and export models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import AsJson, print_json
from flows.commands.tables import facts_table, new_table
from flows.terminal import escaped, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from modeling.models.model_store import Promotions
    from modeling.models.stored_model import StoredModel

ModelArgument = Annotated[
    str, typer.Argument(metavar="ID", help="Id of a model, the start of an id, or the name of a promoted model")
]
Place = Annotated[
    str, typer.Option("--in", metavar="FOLDER|RECIPE", help="Folder of models, output folder of a run, or recipe")
]

models_app = typer.Typer(no_args_is_help=True, help="Trained models: list, show, promote and export them.")


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the `galstore` command."""
    app.add_typer(models_app, name="models")


@models_app.command("list")
def list_models(
    place: Annotated[
        str, typer.Argument(metavar="[FOLDER|RECIPE]", help="Folder of models, output folder of a run, or recipe")
    ] = "demo",
    as_json: AsJson = False,
) -> None:
    """List the models of a run by target, lowest validation RMSE first; damaged models are included.

    Example: galstore models list runs/sdss
    """
    from modeling.models.model_store import list_models as read_models
    from modeling.models.model_store import read_promotions

    folder = models_in(place)
    found, promotions = read_models(folder), read_promotions(folder)
    if as_json:
        print_json([_summary(model, promotions) for model in found])
        return
    out = stdout()
    out.print(_models_table(found, promotions))
    for model in found:
        for file, text in model.problems.items():
            out.print(f"[bold red]damaged:[/] {escaped(model.folder / file)} {escaped(text)}", soft_wrap=True)


@models_app.command("show")
def show_model(
    model: ModelArgument,
    place: Place = "demo",
    curve: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw its training curve to this file")] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write its training log as event files to this folder")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a model: configuration, metrics and model card.

    Example: galstore models show champion --in runs/sdss --curve curve.png
    """
    from modeling.models.model_store import find_model, read_promotions

    folder = models_in(place)
    found = find_model(folder, model).require_sound()
    written = {}
    if curve is not None:
        from modeling.figures.curves import write_training_curve

        write_training_curve(curve, found)
        written["curve"] = curve
    if tensorboard is not None:
        from modeling.figures.curves import read_curve, write_tensorboard

        # one folder per model, so that one TensorBoard shows several models
        write_tensorboard(tensorboard / found.model_id, read_curve(found))
        written["tensorboard"] = tensorboard / found.model_id
    promotions = read_promotions(folder)
    summary = _summary(found, promotions)
    if as_json:
        print_json({**summary, "config": found.config, "metrics": found.metrics, "card": found.card, **written})
        return
    out = stdout()
    names = {"promoted as": ", ".join(promotions.names_of(found.model_id)) or "-", "written": summary["written"]}
    out.print(facts_table(f"model {found.model_id}", {**names, **found.config}))
    for name, numbers in found.metrics.items():
        shown = {key: "-" if number is None else number for key, number in numbers.items()}
        out.print(facts_table(f"\n{name}", shown))
    out.print(f"\n{escaped(found.card)}", soft_wrap=True)
    for name, path in written.items():
        typer.echo(f"{name}: {path}")


@models_app.command("promote")
def promote(
    model: ModelArgument,
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Name of the promoted model")] = "champion",
    place: Place = "demo",
    as_json: AsJson = False,
) -> None:
    """Give a model a name, which recipes can use: score.model = "champion".

    Example: galstore models promote 3f2a90 --in runs/sdss --as champion
    """
    from modeling.models.model_store import promote_model

    promotion = promote_model(models_in(place), model, name=name)
    if as_json:
        print_json(asdict(promotion))
        return
    before = f", replaces {promotion.replaced}" if promotion.replaced else ""
    typer.echo(f"{promotion.name}: model {promotion.model_id} since {promotion.time}{before}")


@models_app.command("export")
def export(
    model: ModelArgument,
    onnx: Annotated[Path, typer.Option(metavar="FILE", help="ONNX file to write")],
    views: Annotated[
        int, typer.Option(help="8: mean over rotated and mirrored images, as in scoring; 1: the image only")
    ] = 8,
    place: Place = "demo",
    as_json: AsJson = False,
) -> None:
    """Export a model as one ONNX file from counts to labels, and compare it with the model.

    Example: galstore models export champion --in runs/sdss --onnx metallicity.onnx
    """
    from modeling.models.model_store import open_model
    from schemas.errors import ExportError

    if views not in (1, 8):
        raise ExportError(f"--views {views}: give 8 (mean over rotated and mirrored images) or 1 (the image only)")
    found = open_model(models_in(place), model)
    from modeling.scoring.onnx_export import export_onnx

    done = export_onnx(found, onnx, views=views)  # type: ignore[arg-type]  # checked above
    if as_json:
        print_json(asdict(done))
        return
    axes = ", ".join(map(str, done.input_shape))
    typer.echo(f"model {done.model_id}, mean over {done.views} views: {done.path}, {done.bytes:,} bytes")
    typer.echo(f"pixels ({axes}) float32 counts -> {', '.join(done.differences)} (object), in the unit of the label")
    differences = ", ".join(f"{number:.1g} in {output}" for output, number in done.differences.items())
    typer.echo(f"largest difference from the model over {done.n_checked} images: {differences}")


def models_in(place: str) -> Path:
    """Return the folder of models of a run's output folder or of a recipe; a folder of models is returned unchanged.

    Raises
    ------
    RecipeError
        `place` is neither a folder nor a recipe.
    """
    from flows.runtime import load_recipe, recipe_names
    from modeling.models.model_store import STORE
    from schemas.errors import RecipeError

    folder = Path(place).expanduser()
    if place in recipe_names() or folder.suffix == ".toml":
        return load_recipe(place).output.folder / STORE
    if not folder.is_dir():
        raise RecipeError(
            f"{place} is neither a folder nor a recipe: give a folder of models, the output folder of a run, a TOML "
            f"file, or one of {', '.join(recipe_names())}"
        )
    return folder / STORE if (folder / STORE).is_dir() else folder


def _summary(model: StoredModel, promotions: Promotions) -> dict[str, object]:
    return {
        "model_id": model.model_id,
        "targets": model.config.get("targets"),
        "level": model.config.get("level"),
        "arch": model.config.get("arch"),
        "validation": model.validation or None,
        "training_set": model.config.get("training_set"),
        "written": f"{model.written:%Y-%m-%dT%H:%M:%SZ}",
        "promoted_as": promotions.names_of(model.model_id),
        "problems": model.problems,
        "folder": model.folder,
    }


def _models_table(models: Sequence[StoredModel], promotions: Promotions) -> Table:
    headings = ("id", "target", "px", "arch", "RMSE", "NMAD", "training set", "written (UTC)", "promoted as")
    table = new_table(*headings, right=("px", "RMSE", "NMAD"))
    table.columns[0].no_wrap = True
    for model in models:
        config = model.config
        cells = (
            model.model_id,
            ", ".join(config.get("targets", ())),
            config.get("level", ""),
            config.get("arch", ""),
            _four_decimals(model.validation.get("rmse")),
            _four_decimals(model.validation.get("nmad")),
            config.get("training_set", "")[:12],
            f"{model.written:%Y-%m-%d %H:%M}",
            ", ".join(promotions.names_of(model.model_id)),
        )
        table.add_row(*map(escaped, cells))
    return table


def _four_decimals(number: float | None) -> str:
    return "-" if number is None else f"{number:.4f}"

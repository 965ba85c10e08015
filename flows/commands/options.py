"""Arguments, options and JSON output that several commands share, and the recipe that they select."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from galstore.export import Exported
    from schemas.recipes import Recipe

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Name of a recipe (demo, sdss_demo, sdss) or path of a TOML file")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a value of the recipe; may be repeated"),
]
PredictionsArgument = Annotated[
    Path, typer.Argument(metavar="PREDICTIONS", help="CSV, Parquet, ECSV, FITS or VOTable with one row per galaxy")
]
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="Folder of a cube, or s3://bucket/prefix")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]


def json_text(value: object) -> str:
    """Return a value as JSON; NaN and infinity become null, paths and times become text."""
    return json.dumps(_finite_or_none(value), indent=2, default=str, allow_nan=False) + "\n"


def print_json(value: object) -> None:
    typer.echo(json_text(value), nl=False)


def print_export(done: Exported, *, as_json: bool) -> None:
    """Print the size and path of a finished export."""
    if as_json:
        print_json({"path": done.path, "objects": done.n_objects, "files": done.n_files, "bytes": done.bytes})
    else:
        typer.echo(f"{done.n_objects:,} objects in {done.n_files:,} files, {done.bytes:,} bytes: {done.path}")


def _finite_or_none(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite_or_none(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def recipe_for_flow(
    recipe: str,
    overrides: list[str] | None,
    values: Mapping[str, object] | None = None,
    *,
    needs_cube: bool = False,
) -> Recipe:
    """Load the recipe of a flow, and check its inputs before Prefect is imported.

    Parameters
    ----------
    recipe
        Name or path.
    overrides
        `section.key=value` texts.
    values
        Typed values by dotted key, from options of the command; None is ignored.
    needs_cube
        Fail if the recipe's cube does not exist.
    """
    from flows.runtime import configure_prefect, load_recipe

    given = {key: value for key, value in (values or {}).items() if value is not None}
    loaded = load_recipe(recipe, overrides).with_values(given)
    if needs_cube:
        from galstore.cube.commits import open_repository

        open_repository(loaded.store.path)
    if loaded.score.catalog is not None and not (loaded.emulator and loaded.emulator.new_catalog):
        _check_catalog(loaded.score.catalog)
    if loaded.survey.catalog is not None:
        _check_catalog(loaded.survey.catalog)
    configure_prefect()
    return loaded


def _check_catalog(catalog: Path) -> None:
    """Raise if no row of a catalog's first page is usable."""
    from galstore.survey.catalog_files.reader import read_catalog_head
    from galstore.survey.row_checks import prepare_catalog, require_kept_rows

    prepared = prepare_catalog(read_catalog_head(catalog), origin=str(catalog))
    require_kept_rows(len(prepared.rows), prepared.rejected, origin=str(catalog))

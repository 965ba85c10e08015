"""Commands of the feature store: look objects up, list views, keep training sets, tell where things came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.options import AsJson, StoreArgument
from flows.terminal import stdout

AsOf = Annotated[
    str | None, typer.Option(metavar="SNAPSHOT|TIME", help="As the cube was then: a snapshot's id, or 2026-11-24T12:00")
]
Features = Annotated[list[str] | None, typer.Option("--features", help="Feature view, as colours@1; repeatable")]

views_app = typer.Typer(no_args_is_help=True, help="Feature views and label views.")
sets_app = typer.Typer(no_args_is_help=True, help="Training sets that are kept in a cube.")


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the `galstore` command."""
    for command in (lookup, cone, similar, history, lineage, export):
        app.command()(command)
    app.add_typer(views_app, name="features")
    app.add_typer(sets_app, name="training-set")


def lookup(
    store: StoreArgument,
    object_id: Annotated[int, typer.Argument(help="Object id of the survey")],
    png: Annotated[Path | None, typer.Option(help="Draw its levels, 128 ... 1 px, into this file")] = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Print all that is known of one object: state, catalog, features, labels and predictions.

    Example: galstore lookup demo/cube 1237648702973411443 --png galaxy.png
    """
    from galstore.features.store import open_store

    opened = open_store(store, as_of=as_of)
    known = opened.describe(object_id)
    if png is not None:
        from modeling.figures.levels import draw_levels
        from schemas.cube import LEVELS

        draw_levels({level: opened.cutout(object_id, level) for level in LEVELS}, f"object {object_id}", png)
    if as_json:
        _print_json(known)
        return
    from flows.commands.tables import object_tables

    for table in object_tables(known):
        stdout().print(table)
    if png is not None:
        typer.echo(f"levels: {png}")


def cone(
    store: StoreArgument,
    ra: Annotated[float, typer.Argument(help="Right ascension, deg, ICRS")],
    dec: Annotated[float, typer.Argument(help="Declination, deg, ICRS; after -- if it is negative")],
    radius: Annotated[float, typer.Argument(help="Radius, deg")],
    as_of: AsOf = None,
    limit: Annotated[int, typer.Option(min=0, help="Objects to print; 0 = all")] = 20,
    as_json: AsJson = False,
) -> None:
    """Print the objects within a circle on the sky, nearest first.

    Example: galstore cone demo/cube 180.5 0.25 0.1
    """
    from galstore.features.store import open_store

    found = open_store(store, as_of=as_of).cone(ra, dec, radius)
    if as_json:
        _print_json(json.loads(found.to_json(orient="records", double_precision=15)))
        return
    from flows.commands.tables import frame_table

    stdout().print(frame_table(found, limit=limit))
    typer.echo(f"{len(found):,} objects within {radius:g} deg")


def similar(
    store: StoreArgument,
    object_id: Annotated[int, typer.Argument(help="Object id of the survey")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many")] = 10,
    model: Annotated[str | None, typer.Option(help="Id of the model whose view counts")] = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Print the objects that a network sees most like one object.

    Example: galstore similar demo/cube 1237648702973411443 -k 5
    """
    from galstore.features.store import open_store

    found = open_store(store, as_of=as_of).similar(object_id, k, model_id=model)
    if as_json:
        _print_json(json.loads(found.to_json(orient="records", double_precision=15)))
        return
    from flows.commands.tables import frame_table

    stdout().print(frame_table(found, limit=0))


def history(
    store: StoreArgument,
    limit: Annotated[int, typer.Option(min=0, help="Commits to print, newest first; 0 = all")] = 20,
    as_json: AsJson = False,
) -> None:
    """Print the commits of a cube: when, what, by which run; and the tags that keep some of them.

    Example: galstore history demo/cube --limit 50
    """
    from galstore.cube.history import read_history

    commits = read_history(store)
    if as_json:
        _print_json([one.to_dict() for one in commits])
        return
    from flows.commands.tables import history_table

    stdout().print(history_table(commits, limit=limit))


def lineage(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(help="Id of a model with predictions, or name of a training set")],
    as_json: AsJson = False,
) -> None:
    """Print what predictions, a model or a training set came from, back to the survey's query.

    Example: galstore lineage demo/cube 3f2a90c1b7de
    """
    from galstore.cube.history import trace_lineage

    chain = trace_lineage(store, name)
    if as_json:
        _print_json([{"kind": one.kind, "name": one.name, **one.details} for one in chain])
        return
    from flows.commands.tables import lineage_tree

    stdout().print(lineage_tree(chain))


def export(
    store: StoreArgument,
    out: Annotated[Path, typer.Argument(help="Folder to be made")],
    format: Annotated[  # noqa: A002 - the word that every exporter's users know
        str, typer.Option(help="zarr, parquet, hats, croissant or jpeg-folder")
    ] = "parquet",
    where: Annotated[str, typer.Option(help="Condition over the catalog, as 'petroMag_r < 17.5'")] = "",
    level: Annotated[list[int] | None, typer.Option(help="Side in px of a level, in a zarr export; repeatable")] = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Write a snapshot as files that other tools open: xarray, astropy, lsdb, mlcroissant, or a folder of JPEGs.

    Example: galstore export demo/cube for-lsdb --format hats --where "dec > 30"
    """
    import numpy as np

    from flows.runtime import progress_bar
    from galstore.export import ExportFormat, export_cube
    from galstore.features.selection import rows_selected
    from galstore.features.store import open_store
    from schemas.cube import LEVELS
    from schemas.errors import ExportError

    formats = [one.value for one in ExportFormat]
    if format not in formats:
        raise ExportError(f"--format {format!r} is unknown: choose one of {', '.join(formats)}")
    cube = open_store(store, as_of=as_of).cube
    rows = np.flatnonzero(rows_selected(cube, where))
    with progress_bar(f"export as {format}", rows.size) as progress:
        done = export_cube(
            cube, out, format=ExportFormat(format), rows=rows, levels=level or LEVELS, on_progress=progress.advance
        )
    if as_json:
        _print_json({"path": str(done.path), "objects": done.n_objects, "files": done.n_files, "bytes": done.bytes})
    else:
        typer.echo(f"{done.n_objects:,} objects in {done.n_files:,} files, {done.bytes:,} bytes: {done.path}")


@views_app.command("list")
def list_views(store: StoreArgument, as_json: AsJson = False) -> None:
    """List the feature views, how far their computed columns are kept, and the label views with their versions.

    Example: galstore features list demo/cube
    """
    from galstore.cube.reader import open_cube
    from galstore.features.similar import embedding_views
    from galstore.features.views import label_views_of, views_of

    cube = open_cube(store)
    views, labels = [*views_of(cube), *embedding_views(cube)], label_views_of(cube)
    if as_json:
        _print_json({"feature_views": views, "label_views": labels})
        return
    from flows.commands.tables import views_tables

    for table in views_tables(views, labels):
        stdout().print(table)


@views_app.command("show")
def show_view(
    view: Annotated[str, typer.Argument(help="name@version, or a name for its newest version")], as_json: AsJson = False
) -> None:
    """Print a view's columns: unit, UCD, valid range, formula.

    Example: galstore features show colours@1
    """
    from schemas.features import feature_view

    found = feature_view(view)
    if as_json:
        _print_json({**found.definition(), "description": found.description, "fingerprint": found.fingerprint})
        return
    from flows.commands.tables import view_table

    stdout().print(view_table(found))


@views_app.command("compute")
def compute_view(
    store: StoreArgument, view: Annotated[str, typer.Argument(help="name@version, or a name for its newest version")]
) -> None:
    """Compute a view for objects that came since the last time, and keep it in the cube.

    Example: galstore features compute demo/cube colours
    """
    from flows.runtime import progress_bar
    from galstore.cube.reader import open_cube
    from galstore.features.views import compute_features
    from schemas.features import feature_view

    named = feature_view(view)
    with progress_bar(f"compute {named.ref}", open_cube(store).n_objects) as progress:
        n = compute_features(store, named, on_rows=progress.advance)
    typer.echo(f"{named.ref}: {n:,} objects computed")


@sets_app.command("build")
def build_set(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(help="Under which the cube keeps it")],
    label: Annotated[list[str], typer.Option("--label", help="Label or label view; repeatable")],
    features: Features = None,
    where: Annotated[str, typer.Option(help="Condition over the catalog, as 'petroMag_r < 17.5'")] = "",
    split: Annotated[str, typer.Option(help="object or sky: what decides who trains and who tests")] = "object",
    seed: Annotated[int, typer.Option(help="Of the split")] = 0,
    as_json: AsJson = False,
) -> None:
    """Freeze a training set: it reads the same for good, whatever the cube becomes.

    Example: galstore training-set build demo/cube z-2026 --label oh_p50 --features image_128 --features colours
    """
    from galstore.features.training_set import build_training_set
    from schemas.errors import RecipeError
    from schemas.recipes import SplitSection

    if split not in {"object", "sky"}:
        raise RecipeError(f"--split {split!r} is unknown: it is object or sky")
    rule = SplitSection(by=split, seed=seed)  # type: ignore[arg-type]
    kept = build_training_set(store, name, label, features=features or (), selection=where, split=rule)
    _print_json(kept.summary()) if as_json else _print_summary(kept.summary())


@sets_app.command("show")
def show_set(
    store: StoreArgument, name: Annotated[str, typer.Argument(help="Of the training set")], as_json: AsJson = False
) -> None:
    """Read a training set, check that it is what was kept, and print its summary.

    Example: galstore training-set show demo/cube z-2026
    """
    from galstore.features.training_set import open_training_set

    summary = open_training_set(store, name).summary()
    _print_json(summary) if as_json else _print_summary(summary)


def _print_summary(summary: dict[str, Any]) -> None:
    from flows.commands.tables import facts_table

    stdout().print(facts_table(f"training set {summary['name']}", summary))


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(_without_nan(value), indent=2, default=str))


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN differs from itself

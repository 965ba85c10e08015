"""Commands of the feature store: objects, views, training sets, history, lineage and export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.commands.options import AsJson, StoreArgument, print_export, print_json
from flows.commands.tables import (
    facts_table,
    frame_table,
    history_table,
    lineage_tree,
    object_tables,
    view_table,
    views_tables,
)
from flows.terminal import stdout

AsOf = Annotated[
    str | None, typer.Option(metavar="SNAPSHOT|TIME", help="Id of an earlier snapshot, or a time: 2026-11-24T12:00")
]
Features = Annotated[
    list[str] | None, typer.Option("--features", help="Feature view, such as colours@1; may be repeated")
]
Condition = Annotated[str, typer.Option(help="Condition on catalog columns, such as 'petroMag_r < 17.5'")]
ViewArgument = Annotated[str, typer.Argument(help="Feature view name@version, or a name for its newest version")]

views_app = typer.Typer(no_args_is_help=True, help="Feature views and label views.")
sets_app = typer.Typer(no_args_is_help=True, help="Training sets stored in a cube.")


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the `galstore` command."""
    for command in (lookup, cone, similar, history, lineage, export):
        app.command()(command)
    app.add_typer(views_app, name="features")
    app.add_typer(sets_app, name="training-set")


def lookup(
    store: StoreArgument,
    object_id: Annotated[int, typer.Argument(help="Object id of the survey")],
    png: Annotated[Path | None, typer.Option(help="Draw its levels, 128 ... 1 px, to this file")] = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Print one object: state, catalog, features, labels and predictions.

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
        print_json(known)
        return
    for table in object_tables(known):
        stdout().print(table)
    if png is not None:
        typer.echo(f"levels: {png}")


def cone(
    store: StoreArgument,
    ra: Annotated[float, typer.Argument(help="Right ascension, deg, ICRS")],
    dec: Annotated[float, typer.Argument(help="Declination, deg, ICRS; write -- before a negative one")],
    radius: Annotated[float, typer.Argument(help="Radius, deg")],
    as_of: AsOf = None,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of objects to print; 0 = all")] = 20,
    as_json: AsJson = False,
) -> None:
    """Print the objects within a circle on the sky, nearest first.

    Example: galstore cone demo/cube 180.5 0.25 0.1
    """
    from galstore.features.store import open_store

    found = open_store(store, as_of=as_of).cone(ra, dec, radius)
    if as_json:
        print_json(found.to_dict(orient="records"))
        return
    stdout().print(frame_table(found, limit=limit))
    typer.echo(f"{len(found):,} objects within {radius:g} deg")


def similar(
    store: StoreArgument,
    object_id: Annotated[int, typer.Argument(help="Object id of the survey")],
    k: Annotated[int, typer.Option("-k", min=1, help="Number of objects")] = 10,
    model: Annotated[str | None, typer.Option(help="Id of the model with the embeddings")] = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Print the objects most similar to one object in the embeddings of a network.

    Example: galstore similar demo/cube 1237648702973411443 -k 5
    """
    from galstore.features.store import open_store

    found = open_store(store, as_of=as_of).similar(object_id, k, model_id=model)
    if as_json:
        print_json(found.to_dict(orient="records"))
        return
    stdout().print(frame_table(found, limit=0))


def history(
    store: StoreArgument,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of commits to print, newest first; 0 = all")] = 20,
    as_json: AsJson = False,
) -> None:
    """Print the commits of a cube with their times, operations and tags.

    Example: galstore history demo/cube --limit 50
    """
    from galstore.cube.history import read_history

    commits = read_history(store)
    if as_json:
        print_json([commit.to_dict() for commit in commits])
        return
    stdout().print(history_table(commits, limit=limit))


def lineage(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(help="Id of a model with predictions, or name of a training set")],
    as_json: AsJson = False,
) -> None:
    """Print the ancestors of predictions, a model or a training set, back to the survey's query.

    Example: galstore lineage demo/cube 3f2a90c1b7de
    """
    from galstore.cube.history import trace_lineage

    chain = trace_lineage(store, name)
    if as_json:
        print_json([{"kind": step.kind, "name": step.name, **step.details} for step in chain])
        return
    stdout().print(lineage_tree(chain))


def export(
    store: StoreArgument,
    out: Annotated[Path, typer.Argument(help="Folder to create")],
    format: Annotated[  # noqa: A002 - the usual word
        str, typer.Option(help="zarr, parquet, hats, croissant or jpeg-folder")
    ] = "parquet",
    where: Condition = "",
    level: Annotated[
        list[int] | None, typer.Option(help="Side of a level, px, for a zarr export; may be repeated")
    ] = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Write a snapshot as files for other tools: xarray, astropy, lsdb, mlcroissant, or a folder of JPEGs.

    Example: galstore export demo/cube for-lsdb --format hats --where "dec > 30"
    """
    import numpy as np

    from flows.runtime import progress_bar
    from galstore.export import ExportFormat, export_cube
    from galstore.features.selection import evaluate_condition
    from galstore.features.store import open_store
    from schemas.cube import LEVELS
    from schemas.errors import ExportError

    formats = [known.value for known in ExportFormat]
    if format not in formats:
        raise ExportError(f"--format {format!r} is unknown: choose one of {', '.join(formats)}")
    cube = open_store(store, as_of=as_of).cube
    rows = np.flatnonzero(evaluate_condition(cube, where))
    with progress_bar(f"export as {format}", rows.size) as progress:
        done = export_cube(
            cube, out, format=ExportFormat(format), rows=rows, levels=level or LEVELS, on_progress=progress.advance
        )
    print_export(done, as_json=as_json)


@views_app.command("list")
def list_views(store: StoreArgument, as_json: AsJson = False) -> None:
    """List the feature views with their numbers of computed objects, and the label views with their versions.

    Example: galstore features list demo/cube
    """
    from galstore.cube.reader import open_cube
    from galstore.features.similar import embedding_views
    from galstore.features.views import describe_label_views, describe_views

    cube = open_cube(store)
    views, labels = [*describe_views(cube), *embedding_views(cube)], describe_label_views(cube)
    if as_json:
        print_json({"feature_views": views, "label_views": labels})
        return
    for table in views_tables(views, labels):
        stdout().print(table)


@views_app.command("show")
def show_view(view: ViewArgument, as_json: AsJson = False) -> None:
    """Print the columns of a view: unit, UCD, valid range, formula.

    Example: galstore features show colours@1
    """
    from schemas.features import feature_view

    found = feature_view(view)
    if as_json:
        print_json({**found.definition(), "description": found.description, "fingerprint": found.fingerprint})
        return
    stdout().print(view_table(found))


@views_app.command("compute")
def compute_view(store: StoreArgument, view: ViewArgument) -> None:
    """Compute a view for objects without it, and store it in the cube.

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
    name: Annotated[str, typer.Argument(help="Name of the new training set")],
    label: Annotated[list[str], typer.Option("--label", help="Label or label view; may be repeated")],
    features: Features = None,
    where: Condition = "",
    split: Annotated[
        Literal["object", "sky"], typer.Option(help="Split by object id, or by cell of the sky")
    ] = "object",
    seed: Annotated[int, typer.Option(help="Seed of the split")] = 0,
    as_json: AsJson = False,
) -> None:
    """Freeze a training set; later changes of the cube do not change it.

    Example: galstore training-set build demo/cube z-2026 --label oh_p50 --features image_128 --features colours
    """
    from galstore.features.frozen_set import build_training_set
    from schemas.recipes import SplitSection

    rule = SplitSection(by=split, seed=seed)
    frozen = build_training_set(store, name, label, features=features or (), selection=where, split=rule)
    _print_summary(frozen.summary(), as_json=as_json)


@sets_app.command("show")
def show_set(
    store: StoreArgument, name: Annotated[str, typer.Argument(help="Name of the training set")], as_json: AsJson = False
) -> None:
    """Read a training set, check its content hash, and print its summary.

    Example: galstore training-set show demo/cube z-2026
    """
    from galstore.features.frozen_set import open_training_set

    _print_summary(open_training_set(store, name).summary(), as_json=as_json)


def _print_summary(summary: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(summary)
    else:
        stdout().print(facts_table(f"training set {summary['name']}", summary))

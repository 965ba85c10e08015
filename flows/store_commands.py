"""Commands about one cube: what it holds, what is missing and why, whether it is sound, and how to mend it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import stdout

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="Folder of a cube, or s3://bucket/prefix")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the `galstore` command."""
    for command in (info, quarantine):
        app.command()(command)


def info(store: StoreArgument, as_json: AsJson = False) -> None:
    """Print what a cube holds: counts, levels, catalogs, sizes, versions; exit code 1 if the counts do not add up.

    Example: galstore info demo/cube --json
    """
    from galstore.inventory import take_inventory
    from galstore.reader import open_cube

    inventory = take_inventory(open_cube(store))
    if as_json:
        typer.echo(json.dumps(inventory.to_dict(), indent=2))
    else:
        from flows.display import inventory_table

        stdout().print(inventory_table(inventory))
    if not inventory.counts.add_up:
        raise typer.Exit(1)


def quarantine(
    store: StoreArgument,
    reason: Annotated[list[str] | None, typer.Option(help="Only objects quarantined for this; repeatable")] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write all quarantined objects to this CSV, and rejected rows beside it")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Objects and rows to print; 0 = all")] = 20,
    as_json: AsJson = False,
) -> None:
    """List and sum the objects without an image, and the catalog rows that became no object, each with its reason.

    `galstore ingest RECIPE --retry-quarantined=REASON` asks for such objects again.

    Example: galstore quarantine demo/cube --reason truncated --csv quarantined.csv
    """
    from galstore.quarantine import read_quarantine, reasons_named
    from galstore.reader import open_cube

    cube = open_cube(store)
    objects, rejected = read_quarantine(cube, reasons_named(reason or [])), cube.read_rejected()
    if csv is not None:
        objects.to_csv(csv, index=False)
        rejected.to_csv(csv.with_stem(f"{csv.stem}-rejected"), index=False)
    if as_json:
        tally = {str(name): int(n) for name, n in objects["reason"].value_counts().items()}
        lists = {
            "quarantined": json.loads(objects.to_json(orient="records")),
            "rejected": json.loads(rejected.to_json(orient="records")),
        }
        typer.echo(json.dumps({"n_quarantined": len(objects), "n_rejected": len(rejected), "tally": tally, **lists}))
        return
    from flows.display import quarantine_tables

    for part in quarantine_tables(objects, rejected, limit=limit):
        stdout().print(part)

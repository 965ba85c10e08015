"""Commands about one cube: what it holds, what is missing and why, whether it is sound, and how to mend it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import AsJson, StoreArgument
from flows.terminal import escaped, stdout


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the `galstore` command."""
    for command in (info, quarantine, verify, rebuild, gc):
        app.command()(command)


def info(store: StoreArgument, as_json: AsJson = False) -> None:
    """Print what a cube holds: counts, levels, catalogs, sizes, versions; exit code 1 if the counts do not add up.

    Example: galstore info demo/cube --json
    """
    from galstore.cube.inventory import take_inventory
    from galstore.cube.reader import open_cube

    inventory = take_inventory(open_cube(store))
    if as_json:
        typer.echo(json.dumps(inventory.to_dict(), indent=2))
    else:
        from flows.commands.tables import inventory_table

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
    from galstore.cube.reader import open_cube
    from galstore.ingest.quarantine import parse_reasons, read_quarantine

    cube = open_cube(store)
    objects, rejected = read_quarantine(cube, parse_reasons(reason or [])), cube.read_rejected()
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
    from flows.commands.tables import quarantine_tables

    for part in quarantine_tables(objects, rejected, limit=limit):
        stdout().print(part)


def verify(store: StoreArgument, as_json: AsJson = False) -> None:
    """Read everything that a cube holds and check it; exit code 1 if anything is wrong.

    Every chunk is readable, delivered bytes have their SHA-256 and decode to the 128 px level, the other levels are its
    averages, counts add up, and nothing is there that belongs to no object.

    Example: galstore verify demo/cube
    """
    from flows.commands.tables import problems_table
    from flows.runtime import progress_bar
    from galstore.cube.reader import open_cube
    from galstore.integrity.verify import verify_cube

    cube = open_cube(store)
    with progress_bar("verify", cube.n_objects) as progress:
        verification = verify_cube(cube, on_progress=progress.advance)
    if as_json:
        typer.echo(json.dumps(verification.to_dict(), indent=2))
    else:
        out = stdout()
        out.print(escaped(verification.summary))
        if verification.problems:
            out.print(problems_table(verification))
    if not verification.ok:
        raise typer.Exit(1)


def rebuild(
    store: StoreArgument,
    block: Annotated[list[int] | None, typer.Option(help="Number of a block of 1,024 rows; repeatable")] = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="All blocks in which `galstore verify` finds damage")
    ] = False,
    index: Annotated[
        bool, typer.Option("--index", help="The indexes of ids and places, from the catalog's columns")
    ] = False,
) -> None:
    """Make the images of some blocks anew from the delivered bytes; what these cannot give, the next ingest asks for.

    Example: galstore rebuild demo/cube --block 3
    """
    from flows.runtime import console, progress_bar
    from galstore.cube.reader import open_cube
    from galstore.integrity.rebuild import damaged_blocks, rebuild_block, rebuild_index
    from galstore.integrity.verify import verify_cube
    from schemas.errors import ContractError

    blocks = set(block or ())
    if index:
        typer.echo(f"indexes: {rebuild_index(store):,} objects")
        if not blocks and not damaged:
            return
    if damaged:
        cube = open_cube(store)
        with progress_bar("verify", cube.n_objects) as progress:
            blocks |= set(damaged_blocks(verify_cube(cube, on_progress=progress.advance)))
        if not blocks:
            console.print("no block is damaged: nothing to rebuild")
            return
    if not blocks:
        raise ContractError(
            "which blocks? give --block N, as `galstore verify` names them, or --damaged for all, or else --index"
        )
    for number in sorted(blocks):
        done = rebuild_block(store, number)
        typer.echo(f"block {number}: {done.n_rebuilt} objects rebuilt, {done.n_pending} to be fetched again")


def gc(
    store: StoreArgument,
    keep: Annotated[str, typer.Option(help="Age up to which snapshots are kept: 12h, 30d, 4w")] = "30d",
    grace: Annotated[
        str, typer.Option(help="Age up to which files without a snapshot are kept, since a run may be writing them")
    ] = "1d",
) -> None:
    """Forget old snapshots and free their bytes; the last one and those with a tag stay.

    Example: galstore gc demo/cube --keep 30d
    """
    from galstore.integrity.expiry import expire_snapshots, parse_keep

    done = expire_snapshots(store, keep=parse_keep(keep), grace=parse_keep(grace))
    typer.echo(
        f"{done.n_snapshots_expired} snapshots expired, {done.n_objects_deleted} files deleted, "
        f"{done.bytes_freed:,} bytes freed"
    )

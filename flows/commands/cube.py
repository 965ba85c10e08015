"""Commands for one cube: contents, quarantine, verification, repair and expiry."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import AsJson, StoreArgument, print_json
from flows.commands.tables import inventory_table, problems_table, quarantine_tables
from flows.terminal import escaped, stdout

if TYPE_CHECKING:
    from galstore.integrity.findings import Verification

logger = logging.getLogger(__name__)


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the `galstore` command."""
    for command in (info, quarantine, verify, rebuild, gc):
        app.command()(command)


def info(store: StoreArgument, as_json: AsJson = False) -> None:
    """Print the contents of a cube: counts, levels, catalogs, sizes, versions.

    Exit code 1 if the counts do not add up.

    Example: galstore info demo/cube --json
    """
    from galstore.cube.inventory import take_inventory
    from galstore.cube.reader import open_cube

    inventory = take_inventory(open_cube(store))
    if as_json:
        print_json(inventory.to_dict())
    else:
        stdout().print(inventory_table(inventory))
    if not inventory.counts.add_up:
        raise typer.Exit(1)


def quarantine(
    store: StoreArgument,
    reason: Annotated[
        list[str] | None, typer.Option(help="Only objects quarantined for this reason; may be repeated")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write all quarantined objects to this CSV, and rejected rows beside it")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of objects and rows to print; 0 = all")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the objects without a usable cutout and the rejected catalog rows, with their reasons.

    `galstore ingest RECIPE --retry-quarantined=REASON` requests such cutouts again.

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
        lists = {"quarantined": objects.to_dict(orient="records"), "rejected": rejected.to_dict(orient="records")}
        print_json({"n_quarantined": len(objects), "n_rejected": len(rejected), "tally": tally, **lists})
        return
    for part in quarantine_tables(objects, rejected, limit=limit):
        stdout().print(part)


def verify(store: StoreArgument, as_json: AsJson = False) -> None:
    """Read and check everything in a cube; exit code 1 if anything is wrong.

    Checks that every chunk is readable, delivered bytes match their SHA-256 and decode to the 128 px level, the other
    levels are its averages, counts add up, and no data is left without an object.

    Example: galstore verify demo/cube
    """
    verification = _verify(store)
    if as_json:
        print_json(verification.to_dict())
    else:
        out = stdout()
        out.print(escaped(verification.summary))
        if verification.problems:
            out.print(problems_table(verification))
    if not verification.ok:
        raise typer.Exit(1)


def _verify(store: str) -> Verification:
    from flows.runtime import progress_bar
    from galstore.cube.reader import open_cube
    from galstore.integrity.verify import verify_cube

    cube = open_cube(store)
    with progress_bar("verify", cube.n_objects) as progress:
        return verify_cube(cube, on_progress=progress.advance)


def rebuild(
    store: StoreArgument,
    block: Annotated[list[int] | None, typer.Option(help="Number of a block of 1,024 rows; may be repeated")] = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="All blocks in which `galstore verify` finds damage")
    ] = False,
    index: Annotated[
        bool, typer.Option("--index", help="Rebuild the indexes of ids and positions from the catalog's columns")
    ] = False,
) -> None:
    """Rebuild the images of blocks from the delivered bytes; the next ingest requests cutouts without usable bytes.

    Example: galstore rebuild demo/cube --block 3
    """
    from galstore.integrity.rebuild import damaged_blocks, rebuild_block, rebuild_index
    from schemas.errors import ContractError

    blocks = set(block or ())
    if index:
        typer.echo(f"indexes: {rebuild_index(store):,} objects")
        if not blocks and not damaged:
            return
    if damaged:
        blocks |= set(damaged_blocks(_verify(store)))
        if not blocks:
            logger.info("no block is damaged: nothing to rebuild")
            return
    if not blocks:
        raise ContractError(
            "no block is selected: give --block N, as `galstore verify` prints them, --damaged for all damaged blocks, "
            "or --index"
        )
    for number in sorted(blocks):
        done = rebuild_block(store, number)
        typer.echo(f"block {number}: {done.n_rebuilt} objects rebuilt, {done.n_pending} to be fetched again")


def gc(
    store: StoreArgument,
    keep: Annotated[str, typer.Option(help="Keep snapshots up to this age: 12h, 30d, 4w")] = "30d",
    grace: Annotated[
        str, typer.Option(help="Keep files without a snapshot up to this age: a run may be writing them")
    ] = "1d",
) -> None:
    """Expire old snapshots and free their bytes; the last snapshot and snapshots with a tag stay.

    Example: galstore gc demo/cube --keep 30d
    """
    from galstore.integrity.expiry import expire_snapshots, parse_duration

    done = expire_snapshots(store, keep=parse_duration(keep), grace=parse_duration(grace))
    typer.echo(
        f"{done.n_snapshots_expired} snapshots expired, {done.n_objects_deleted} files deleted, "
        f"{done.bytes_freed:,} bytes freed"
    )

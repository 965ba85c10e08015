"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.tree import Tree

from flows.terminal import escaped

if TYPE_CHECKING:
    import pandas as pd

    from galstore.cube.history import Ancestor, Commit
    from galstore.cube.inventory import Inventory
    from galstore.integrity.findings import Verification
    from schemas.features import FeatureView

MOST_PROBLEMS = 50
"""Problems that are printed; `--json` has all of them."""


def inventory_table(inventory: Inventory) -> Table:
    """What a cube holds, for people."""
    table = Table(title=f"cube {inventory.path}", show_header=False, title_justify="left")
    counts = inventory.counts
    sum_line = f"{counts.stored:,} stored + {counts.quarantined:,} quarantined + {counts.pending:,} pending"
    table.add_row("survey", inventory.survey)
    table.add_row("scale rule", f"{inventory.scale_rule} ({inventory.scale_arcsec_per_px:g} arcsec/px)")
    table.add_row("registered", f"{counts.registered:,}")
    table.add_row("", f"= {sum_line}" if counts.add_up else f"[red]IS NOT {sum_line}[/]")
    for reason, n in inventory.quarantined_by_reason.items():
        table.add_row("", f"  {n:,} {reason}")
    for name, n in inventory.rejected_by_catalog.items():
        table.add_row(f"catalog {name}", f"{n:,} rows rejected (galstore quarantine)")
    if inventory.n_vanished:
        table.add_row("vanished", f"{inventory.n_vanished:,} objects that their catalog no longer has")
    for catalog in inventory.catalogs:
        table.add_row(f"catalog {catalog['name']}", f"{catalog['n_registered']:,} objects")
    table.add_row("levels", ", ".join(f"{side} px {level['dtype']}" for side, level in inventory.levels.items()))
    table.add_row("models with predictions", ", ".join(inventory.models) or "none")
    table.add_row("on disk", f"{inventory.bytes_stored / 1e6:,.1f} MB, all snapshots")
    table.add_row("snapshot", inventory.snapshot_id)
    versions = ", ".join(f"{name} {number}" for name, number in inventory.versions.items())
    table.add_row("versions", f"schema {inventory.schema_version}, {versions}")
    return table


def summary_table(summary: dict[str, Any]) -> Table:
    """What a run reached: counts, predictors, and where everything is."""
    table = Table(show_edge=False)
    for heading, justify in (("predictor", "left"), ("RMSE", "right"), ("NMAD", "right"), ("galaxies", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for name, result in summary["predictors"].items():
        if isinstance(result, str):
            table.add_row(name, "-", "-", result)
        else:
            table.add_row(name, f"{result['rmse']:.4f}", f"{result['nmad']:.4f}", f"{result['n']:,}")
    return table


def quarantine_tables(objects: pd.DataFrame, rejected: pd.DataFrame, *, limit: int) -> Iterator[Table | str]:
    """Sums and beginnings of the lists of quarantined objects and rejected rows; `limit` 0 lists all of them."""
    for title, frame in (("quarantined objects", objects), ("rejected catalog rows", rejected)):
        kinds = ["column", "reason"] if "column" in frame else ["reason"]
        yield f"{len(frame):,} {title}"
        if frame.empty:
            continue
        sums = Table(show_edge=False)
        for heading in (*kinds, "number"):
            sums.add_column(heading, justify="right" if heading == "number" else "left")
        for counted in frame[kinds].value_counts().reset_index(name="n").itertuples(index=False):
            *kind, n = counted
            sums.add_row(*map(escaped, kind), f"{n:,}")
        yield sums
        shown = frame.head(limit) if limit else frame
        listed = Table(*map(str, frame.columns), show_edge=False)
        for row in shown.itertuples(index=False):
            listed.add_row(*map(escaped, row))
        if len(shown) < len(frame):
            listed.caption = f"{len(frame) - len(shown):,} more: --limit 0, --json or --csv FILE"
        yield listed


def problems_table(verification: Verification) -> Table:
    """What is wrong with a cube, the first of many."""
    table = Table("kind", "where", "what", show_edge=False)
    for problem in verification.problems[:MOST_PROBLEMS]:
        table.add_row(str(problem.kind), escaped(problem.where), escaped(problem.text))
    n_more = len(verification.problems) - MOST_PROBLEMS
    if n_more > 0:
        table.caption = f"{n_more:,} more: --json has all"
    return table


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Names and values; what is nested is told in one line each."""
    table = Table(title=escaped(title), show_header=False, title_justify="left", show_edge=False)
    for name, value in facts.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                table.add_row(f"{escaped(name)} · {escaped(key)}", escaped(_told(inner)))
        else:
            table.add_row(escaped(name), escaped(_told(value)))
    return table


def object_tables(known: Mapping[str, Any]) -> Iterator[Table]:
    """All that is known of one object, a table for each kind of knowledge."""
    simple = {name: value for name, value in known.items() if not isinstance(value, dict)}
    yield facts_table(f"object {known['object_id']}", simple)
    for name, values in known.items():
        if isinstance(values, dict) and values:
            yield facts_table(name, values)


def frame_table(frame: pd.DataFrame, *, limit: int) -> Table:
    """The beginning of a table; `limit` 0 prints all of it."""
    table = Table(*map(str, frame.columns), show_edge=False)
    shown = frame.head(limit) if limit else frame
    for row in shown.itertuples(index=False):
        table.add_row(*(escaped(_told(value)) for value in row))
    if len(shown) < len(frame):
        table.caption = f"{len(frame) - len(shown):,} more: --limit 0 or --json"
    return table


def history_table(commits: Sequence[Commit], *, limit: int) -> Table:
    """Commits, newest first."""
    table = Table("time (UTC)", "snapshot", "what", "details", "tags", show_edge=False)
    shown = commits[:limit] if limit else commits
    for one in shown:
        details = ", ".join(f"{key} {_told(value)}" for key, value in one.details.items())
        cells = (f"{one.time:%Y-%m-%d %H:%M:%S}", one.snapshot, one.message, details, ", ".join(one.tags))
        table.add_row(*map(escaped, cells))
    if len(shown) < len(commits):
        table.caption = f"{len(commits) - len(shown):,} older ones: --limit 0 or --json"
    return table


def lineage_tree(chain: Sequence[Ancestor]) -> Tree:
    """What came from what, the youngest first."""
    top = branch = Tree("lineage")
    for one in chain:
        # several catalogs stand beside each other
        branch = (top if one is chain[0] else branch).add(f"[bold]{escaped(one.kind)}[/] {escaped(one.name)}")
        for key, value in one.details.items():
            branch.add(f"{escaped(key)}: {escaped(_told(value))}")
    return top


def views_tables(views: Sequence[Mapping[str, Any]], labels: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Feature views and label views of a cube."""
    table = Table("feature view", "columns", "computed", "description", show_edge=False)
    for view in views:
        columns = ", ".join(column["name"] for column in view["columns"]) or f"{view['level']} px"
        table.add_row(view["ref"], columns, f"{view['n_computed']:,} of {view['n_objects']:,}", view["description"])
    yield table
    table = Table("label view", "labels", "version of its values", "source", show_edge=False)
    for view in labels:
        table.add_row(view["ref"], ", ".join(view["columns"]), str(view["version"]), view["source"])
    yield table


def view_table(view: FeatureView) -> Table:
    """The columns of one feature view."""
    title = f"{view.ref}: {view.description} (fingerprint {view.fingerprint})"
    table = Table("column", "unit", "UCD", "valid range", "formula", "if missing", title=title, show_edge=False)
    for c in view.columns:
        valid = f"{c.valid_min:g} ... {c.valid_max:g}"
        table.add_row(c.name, c.unit, c.ucd, valid, c.expression if c.is_derived else "", c.missing.value)
    return table


def _told(value: object) -> str:
    if isinstance(value, float):
        return "-" if value != value else f"{value:.10g}"  # noqa: PLR0124 - NaN differs from itself
    if isinstance(value, (list, tuple)):
        return ", ".join(_told(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(one)}" for key, one in value.items())
    return str(value)

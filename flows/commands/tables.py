"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.tree import Tree

from flows.terminal import escaped

if TYPE_CHECKING:
    import pandas as pd

    from galstore.cube.arrays import Attributes
    from galstore.cube.history import Ancestor, Commit
    from galstore.cube.inventory import Inventory
    from galstore.integrity.findings import Verification
    from schemas.features import FeatureView

MAX_PROBLEMS = 50
"""Maximum number of printed problems; `--json` prints all."""


def new_table(*headings: str, right: Collection[str] = (), title: str = "") -> Table:
    """Return an empty table; the columns in `right` are right-aligned."""
    table = Table(title=escaped(title) or None, title_justify="left", caption_justify="left", show_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left")
    return table


def inventory_table(inventory: Inventory) -> Table:
    """Build a table of a cube's contents."""
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


def predictors_table(predictors: Mapping[str, Attributes | str]) -> Table:
    """Build a table of metrics; a predictor without metrics has a reason instead."""
    metrics = ("RMSE", "NMAD", "galaxies")
    table = new_table("predictor", *metrics, right=metrics)
    for name, result in predictors.items():
        if isinstance(result, str):
            table.add_row(name, "-", "-", result)
        else:
            table.add_row(name, f"{result['rmse']:.4f}", f"{result['nmad']:.4f}", f"{result['n']:,}")
    return table


def quarantine_tables(objects: pd.DataFrame, rejected: pd.DataFrame, *, limit: int) -> Iterator[Table | str]:
    """Yield counts by reason and the first rows of quarantined objects and of rejected rows; 0 = no limit."""
    for title, frame in (("quarantined objects", objects), ("rejected catalog rows", rejected)):
        kinds = ["column", "reason"] if "column" in frame else ["reason"]
        yield f"{len(frame):,} {title}"
        if frame.empty:
            continue
        counts = new_table(*kinds, "number", right=["number"])
        for *kind, n in frame[kinds].value_counts().reset_index(name="n").itertuples(index=False):
            counts.add_row(*map(escaped, kind), f"{n:,}")
        yield counts
        yield frame_table(frame, limit=limit, more="--limit 0, --json or --csv FILE")


def problems_table(verification: Verification) -> Table:
    """Build a table of the first problems of a cube."""
    table = new_table("kind", "where", "what")
    for problem in verification.problems[:MAX_PROBLEMS]:
        table.add_row(str(problem.kind), escaped(problem.where), escaped(problem.text))
    n_more = len(verification.problems) - MAX_PROBLEMS
    if n_more > 0:
        table.caption = f"{n_more:,} more: --json has all"
    return table


def facts_table(title: str, facts: Attributes) -> Table:
    """Build a table of names and values; items of a nested mapping get one row each."""
    table = Table(title=escaped(title), show_header=False, title_justify="left", show_edge=False)
    for name, value in facts.items():
        if isinstance(value, dict):
            for key, item in value.items():
                table.add_row(f"{escaped(name)} · {escaped(key)}", escaped(_text(item)))
        else:
            table.add_row(escaped(name), escaped(_text(value)))
    return table


def object_tables(known: Attributes) -> Iterator[Table]:
    """Yield the tables of one object: state, catalog, features, labels and predictions."""
    simple = {name: value for name, value in known.items() if not isinstance(value, dict)}
    yield facts_table(f"object {known['object_id']}", simple)
    for name, values in known.items():
        if isinstance(values, dict) and values:
            yield facts_table(name, values)


def frame_table(frame: pd.DataFrame, *, limit: int, more: str = "--limit 0 or --json") -> Table:
    """Build a table of the first rows of a frame; 0 = no limit. `more` names the options that print all."""
    table = new_table(*map(str, frame.columns))
    shown = frame.head(limit) if limit else frame
    for row in shown.itertuples(index=False):
        table.add_row(*(escaped(_text(value)) for value in row))
    if len(shown) < len(frame):
        table.caption = f"{len(frame) - len(shown):,} more: {more}"
    return table


def history_table(commits: Sequence[Commit], *, limit: int) -> Table:
    """Build a table of commits, newest first; 0 = no limit."""
    table = new_table("time (UTC)", "snapshot", "what", "details", "tags")
    shown = commits[:limit] if limit else commits
    for commit in shown:
        details = ", ".join(f"{key} {_text(value)}" for key, value in commit.details.items())
        time, tags = f"{commit.time:%Y-%m-%d %H:%M:%S}", ", ".join(commit.tags)
        table.add_row(*map(escaped, (time, commit.snapshot, commit.message, details, tags)))
    if len(shown) < len(commits):
        table.caption = f"{len(commits) - len(shown):,} older: --limit 0 or --json"
    return table


def lineage_tree(chain: Sequence[Ancestor]) -> Tree:
    """Build a tree of ancestors, youngest first."""
    top = branch = Tree("lineage")
    for ancestor in chain:
        branch = branch.add(f"[bold]{escaped(ancestor.kind)}[/] {escaped(ancestor.name)}")
        for key, value in ancestor.details.items():
            branch.add(f"{escaped(key)}: {escaped(_text(value))}")
    return top


def views_tables(views: Sequence[Attributes], labels: Sequence[Attributes]) -> Iterator[Table]:
    """Yield the tables of a cube's feature views and label views."""
    table = new_table("feature view", "columns", "computed", "description")
    for view in views:
        columns = ", ".join(column["name"] for column in view["columns"]) or f"{view['level']} px"
        table.add_row(view["ref"], columns, f"{view['n_computed']:,} of {view['n_objects']:,}", view["description"])
    yield table
    table = new_table("label view", "labels", "version of its values", "source")
    for view in labels:
        table.add_row(view["ref"], ", ".join(view["columns"]), str(view["version"]), view["source"])
    yield table


def view_table(view: FeatureView) -> Table:
    """Build a table of the columns of a feature view."""
    title = f"{view.ref}: {view.description} (fingerprint {view.fingerprint})"
    table = new_table("column", "unit", "UCD", "valid range", "formula", "if missing", title=title)
    for column in view.columns:
        valid = f"{column.valid_min:g} ... {column.valid_max:g}"
        formula = column.expression if column.is_derived else ""
        table.add_row(column.name, column.unit, column.ucd, valid, formula, column.missing.value)
    return table


def _text(value: object) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.10g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return str(value)

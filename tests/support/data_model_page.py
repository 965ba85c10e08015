"""Generator of the tables in docs/data-model.md; `python -m tests.support.data_model_page` rewrites them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from enum import IntEnum
from pathlib import Path

import zarr

from galstore.cube.layout import ensure_cube
from galstore.cube.reader import open_cube
from galstore.survey.probe.checks import MEANINGS
from schemas.catalog import COLUMNS, RejectReason
from schemas.cube import LEVEL, REFUSED_COLUMNS, REJECTED_COLUMNS, STATE_COLUMNS, Listing, StateColumn
from schemas.cutouts import Composite, CutoutScale, Reason, ScaleRule, Status
from schemas.predictions import PREDICTION_COLUMNS, Flag, PredictionColumn

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data-model.md"
TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _table(heading: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    heading = tuple(heading)
    lines = [heading, ("---",) * len(heading), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def _column_table(columns: Iterable[StateColumn | PredictionColumn]) -> str:
    rows = ((f"`{column.name}`", column.dtype, column.description) for column in columns)
    return _table(("column", "type", "meaning"), rows)


def _codes(codes: type[IntEnum]) -> str:
    return ", ".join(f"{code.value} {code.name.lower()}" for code in codes)


def arrays() -> str:
    with tempfile.TemporaryDirectory() as folder:
        ensure_cube(f"{folder}/cube", survey="page", scale=CutoutScale(rule=ScaleRule.FIXED))
        root = zarr.open_group(open_cube(f"{folder}/cube").store, mode="r")
        found = [(name, node) for name, node in root.members(max_depth=None) if isinstance(node, zarr.Array)]
    found.sort(key=lambda entry: [int(part) if part.isdigit() else part for part in entry[0].split("/")])
    rows: dict[str, tuple[str, ...]] = {}
    for name, node in found:
        group = name.rpartition("/")[0]
        # groups with many columns share one row of the table
        is_column = not group.startswith(("images", "delivered"))
        path = f"`/{group}/<column>`" if is_column else f"`/{name}`"
        n_axes = 1 if is_column else node.ndim
        dimensions = ", ".join(node.metadata.dimension_names[:n_axes])
        chunks = "x".join(map(str, node.chunks[:n_axes]))
        rows[path] = (path, dimensions, "by column" if is_column else str(node.dtype), chunks)
    return _table(("array", "dimensions", "type", "chunk"), rows.values())


def levels() -> str:
    rows = (
        (f"{level.side_px} px", level.dtype, f"{level.scale_factor:g}", level.chunk_rows) for level in LEVEL.values()
    )
    return _table(("level", "type", "counts per stored unit", "rows per chunk"), rows)


def columns() -> str:
    rows = (
        (
            f"`{column.name}`",
            "labels" if column.role == "label" else "catalog",
            column.dtype,
            column.unit or "-",
            column.description,
        )
        for column in COLUMNS
    )
    return _table(("column", "in", "type", "unit", "meaning"), rows)


def state() -> str:
    return _column_table(STATE_COLUMNS) + f"\nStatus: {_codes(Status)}. Listing: {_codes(Listing)}.\n"


def reasons() -> str:
    rows = ((reason.value, f"`{reason.name.lower()}`", MEANINGS[reason][0]) for reason in Reason if reason in MEANINGS)
    return _table(("code", "name", "meaning"), rows)


def rejected() -> str:
    return _column_table(REJECTED_COLUMNS) + f"\nReasons: {_codes(RejectReason)}.\n"


def refused() -> str:
    return _column_table(REFUSED_COLUMNS)


def predictions() -> str:
    bits = ", ".join(f"{flag.value} {str(flag.name).lower()}" for flag in Flag)
    return _column_table(PREDICTION_COLUMNS) + f"\nBits of the flags: {bits}.\n"


def composites() -> str:
    rows = ((f"`{composite.value}`", ", ".join(composite.bands)) for composite in Composite)
    return _table(("composite", "bands"), rows)


TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table
    for table in (arrays, levels, columns, state, reasons, rejected, refused, predictions, composites)
}


def with_tables(page: str) -> str:
    """Return the page with its tables replaced."""
    return TABLE.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}{match[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

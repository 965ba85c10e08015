"""The tables of docs/data-model.md, made from the schemas: `python -m tests.support.data_model_page` writes them anew."""

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
from schemas.cube import LEVEL, REFUSED_COLUMNS, REJECTED_COLUMNS, STATE_COLUMNS, Listing
from schemas.cutouts import Composite, CutoutScale, Reason, ScaleRule, Status
from schemas.predictions import PREDICTION_COLUMNS, Flag

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data-model.md"
TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _table(heading: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    heading = tuple(heading)
    lines = [heading, ("---",) * len(heading), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def _codes(codes: type[IntEnum]) -> str:
    return ", ".join(f"{code.value} {code.name.lower()}" for code in codes)


def arrays() -> str:
    """Arrays of an empty cube, those of one group with many columns in one line."""
    with tempfile.TemporaryDirectory() as folder:
        ensure_cube(f"{folder}/cube", survey="page", scale=CutoutScale(rule=ScaleRule.FIXED))
        root = zarr.open_group(open_cube(f"{folder}/cube").store, mode="r")
        found = [(name, node) for name, node in root.members(max_depth=None) if isinstance(node, zarr.Array)]
    found.sort(key=lambda one: [int(part) if part.isdigit() else part for part in one[0].split("/")])
    rows: dict[str, tuple[str, ...]] = {}
    for name, node in found:
        group = name.rpartition("/")[0]
        single = group.startswith(("images", "delivered"))
        path = f"`/{name}`" if single else f"`/{group}/<column>`"
        dims = (
            ", ".join(str(one) for one in node.metadata.dimension_names[:1])
            if not single
            else ", ".join(node.metadata.dimension_names)
        )
        dtype = str(node.dtype) if single else "by column"
        rows[path] = (path, dims, dtype, "x".join(str(one) for one in node.chunks[: None if single else 1]))
    return _table(("array", "dimensions", "type", "chunk"), rows.values())


def levels() -> str:
    return _table(
        ("level", "type", "counts per stored unit", "rows of a chunk"),
        ((f"{one.side_px} px", one.dtype, f"{one.scale_factor:g}", one.chunk_rows) for one in LEVEL.values()),
    )


def columns() -> str:
    return _table(
        ("column", "in", "type", "unit", "meaning"),
        (
            (
                f"`{one.name}`",
                "labels" if one.role == "label" else "catalog",
                one.dtype,
                one.unit or "-",
                one.description,
            )
            for one in COLUMNS
        ),
    )


def state() -> str:
    return _table(
        ("column", "type", "meaning"),
        (
            (
                f"`{one.name}`",
                one.dtype,
                one.description + (f": {_codes(one.flags)}" if one.flags in (Status, Listing) else ""),
            )
            for one in STATE_COLUMNS
        ),
    )


def reasons() -> str:
    known = [reason for reason in Reason if reason in MEANINGS]
    return _table(
        ("code", "name", "meaning"), ((one.value, f"`{one.name.lower()}`", MEANINGS[one][0]) for one in known)
    )


def rejected() -> str:
    rows = ((f"`{one.name}`", one.dtype, one.description) for one in REJECTED_COLUMNS)
    return _table(("column", "type", "meaning"), rows) + f"\nReasons: {_codes(RejectReason)}.\n"


def refused() -> str:
    rows = ((f"`{one.name}`", one.dtype, one.description) for one in REFUSED_COLUMNS)
    return _table(("column", "type", "meaning"), rows)


def predictions() -> str:
    rows = ((f"`{one.name}`", one.dtype, one.description) for one in PREDICTION_COLUMNS)
    bits = ", ".join(f"{flag.value} {str(flag.name).lower()}" for flag in Flag)
    return _table(("column", "type", "meaning"), rows) + f"\nBits of the flags: {bits}.\n"


def composites() -> str:
    return _table(("composite", "bands"), ((f"`{one.value}`", ", ".join(one.bands)) for one in Composite))


TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table
    for table in (arrays, levels, columns, state, reasons, rejected, refused, predictions, composites)
}


def with_tables(page: str) -> str:
    """The page with each table made anew."""
    return TABLE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""Checks of array lengths, state columns, ids, other columns and rejected rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from galstore.cube.arrays import AnyArray, Values
from galstore.cube.reader import Cube
from galstore.integrity.damaged_reads import BODY_PATH, PartialRows, read_partial_rows
from galstore.integrity.findings import Problem, ProblemKind
from galstore.parallel import map_ahead
from schemas.catalog import CATALOG_COLUMNS, RejectReason
from schemas.cube import BLOCK_ROWS, DELIVERED_BYTES, INDEX_COLUMNS, LEVEL, REJECTED_COLUMNS, STATE_COLUMNS, Listing
from schemas.cutouts import BANDS, Reason, Status

IMAGE_LAYOUTS: dict[str, tuple[tuple[int, ...], str]] = {
    **{level.path: ((level.side_px, level.side_px, len(BANDS)), level.dtype) for level in LEVEL.values()},
    BODY_PATH: ((DELIVERED_BYTES,), "uint8"),
}

CHECKED_ROWS = 65_536
"""Number of rows of a column in memory at once."""

_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class StateTable:
    """Columns of `/state` and the object ids, as far as they can be read."""

    n_objects: int
    columns: Mapping[str, PartialRows]

    @cached_property
    def is_unstored(self) -> _Flags:
        return np.asarray(self.is_intact("status") & (self["status"] != Status.STORED))

    @cached_property
    def is_described(self) -> _Flags:
        """Objects that are stored and whose length and digest can be read."""
        return np.asarray(self.is_intact("status", "body_length", "body_sha256") & (self["status"] == Status.STORED))

    def __getitem__(self, name: str) -> Values:
        return self.columns[name].values

    def is_intact(self, *names: str) -> _Flags:
        """Flag the rows whose values can be read in all of these columns."""
        return np.asarray(np.logical_and.reduce([self.columns[name].is_intact for name in names]), dtype=bool)

    def row_problems(self, kind: ProblemKind, path: str, rows: npt.ArrayLike, text: str) -> list[Problem]:
        """Return the problem that rows share, located at the first of them; empty without rows."""
        rows = np.asarray(rows)
        if not rows.size:
            return []
        row = int(rows.min())
        ids = self.columns["object_id"]
        object_id = int(ids.values[row]) if ids.is_intact[row] else None
        text = text if rows.size == 1 else f"{text} ({rows.size:,} objects; this is the first)"
        return [Problem(kind=kind, path=path, text=text, block=row // BLOCK_ROWS, row=row, object_id=object_id)]


def _lengths(arrays: Mapping[str, AnyArray], dimension: str) -> dict[str, int]:
    """Return the lengths of the arrays with this first dimension."""
    names = {path: getattr(array.metadata, "dimension_names", None) or ("",) for path, array in arrays.items()}
    return {path: array.shape[0] for path, array in arrays.items() if names[path][0] == dimension}


def check_lengths(arrays: Mapping[str, AnyArray]) -> tuple[int, list[Problem]]:
    """Return the number of objects, and the arrays that are missing or have another length, shape or type."""
    lengths = _lengths(arrays, "object")
    n_objects = Counter(lengths.values()).most_common(1)[0][0] if lengths else 0
    found = [
        (path, f"it has {length:,} objects, other arrays have {n_objects:,}")
        for path, length in lengths.items()
        if length != n_objects
    ]
    expected = [
        *IMAGE_LAYOUTS,
        *(f"state/{column.name}" for column in STATE_COLUMNS),
        *(f"rejected/{column.name}" for column in REJECTED_COLUMNS),
        *(f"catalog/{name}" for name in ("object_id", *CATALOG_COLUMNS)),
        *(f"index/{name}/{column.name}" for name, columns in INDEX_COLUMNS.items() for column in columns),
    ]
    found += [(path, "the array is missing") for path in expected if path not in arrays]
    for path, (shape, dtype) in IMAGE_LAYOUTS.items():
        array = arrays.get(path)
        if array is not None and (array.shape[1:], str(array.dtype)) != (shape, dtype):
            found.append((path, f"each object has {array.dtype} {array.shape[1:]}, expected {dtype} {shape}"))
    return n_objects, [Problem(kind=ProblemKind.ARRAY, path=path, text=text) for path, text in found]


def image_arrays(arrays: Mapping[str, AnyArray], n_objects: int) -> dict[str, AnyArray]:
    """Return the arrays of images and bytes that have the shape and type of the layout."""
    return {
        path: arrays[path]
        for path, (shape, dtype) in IMAGE_LAYOUTS.items()
        if path in arrays and (arrays[path].shape, str(arrays[path].dtype)) == ((n_objects, *shape), dtype)
    }


def chunk_problems(path: str, rows: PartialRows) -> list[Problem]:
    """Return a problem for each chunk that cannot be read; a chunk that spans several blocks is without a block."""
    return [
        Problem(
            kind=ProblemKind.CHUNK,
            path=path,
            text=f"rows {start}-{stop - 1} cannot be read ({reason})",
            block=start // BLOCK_ROWS if path in IMAGE_LAYOUTS else None,
            row=start,
        )
        for start, stop, reason in rows.damage
    ]


def read_state(arrays: Mapping[str, AnyArray], n_objects: int, *, n_threads: int) -> tuple[StateTable, list[Problem]]:
    """Read the state columns and the ids; return them with the chunks that cannot be read."""
    paths = {column.name: f"state/{column.name}" for column in STATE_COLUMNS} | {"object_id": "catalog/object_id"}
    shapes = {column.name: (n_objects, column.width) for column in STATE_COLUMNS if column.width > 1}

    def read(name: str) -> PartialRows:
        array, shape = arrays.get(paths[name]), shapes.get(name, (n_objects,))
        if array is not None and array.shape == shape:
            return read_partial_rows(array)
        return PartialRows(values=np.zeros(shape, dtype=np.int64), is_intact=np.zeros(n_objects, dtype=bool))

    columns = dict(zip(paths, map_ahead(read, paths, n_threads=n_threads, n_ahead=2 * n_threads), strict=True))
    problems = [problem for name, rows in columns.items() for problem in chunk_problems(paths[name], rows)]
    return StateTable(n_objects=n_objects, columns=columns), problems


def _unknown_rows(rows: PartialRows, codes: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.flatnonzero(rows.is_intact & ~np.isin(rows.values, [int(code) for code in codes]))


def check_state(state: StateTable, cube: Cube) -> list[Problem]:
    """Check that codes are known and consistent, ids are unique, and counts add up."""
    codes: dict[str, Iterable[int]] = {
        "status": Status,
        "reason": Reason,
        "listing": Listing,
        "catalog": range(len(cube.attributes.get("catalogs", ()))),
    }
    found: list[tuple[ProblemKind, str, npt.NDArray[np.int64], str]] = [
        (ProblemKind.STATE, f"state/{name}", _unknown_rows(state.columns[name], known), f"{name} has an unknown code")
        for name, known in codes.items()
    ]
    is_intact, has_reason = state.is_intact("status", "reason"), state["reason"] != Reason.NONE
    is_quarantined = state["status"] == Status.QUARANTINED
    for is_wrong, text in (
        (is_quarantined & ~has_reason, "the object is quarantined without a reason"),
        (~is_quarantined & has_reason, "the object is not quarantined but has a reason"),
    ):
        found.append((ProblemKind.STATE, "state/reason", np.flatnonzero(is_intact & is_wrong), text))
    rows = np.flatnonzero(state.is_intact("object_id"))
    ids = state["object_id"][rows]
    for is_wrong, text in (
        (ids < 0, "the object id is negative"),
        (pd.Index(ids).duplicated(), "another row has the same object id"),
    ):
        found.append((ProblemKind.IDENTITY, "catalog/object_id", rows[is_wrong], text))
    for name, has_value in (
        ("body_sha256", state["body_sha256"].any(axis=1)),
        ("body_length", state["body_length"] > 0),
    ):
        rows = np.flatnonzero(state.is_unstored & state.is_intact(name) & has_value)
        found.append((ProblemKind.ORPHAN, f"state/{name}", rows, "a value of an object that is not stored"))
    problems = [problem for group in found for problem in state.row_problems(*group)]
    n_counted = int(np.isin(state["status"], [int(code) for code in Status]).sum())
    if state.is_intact("status").all() and n_counted != state.n_objects:
        text = f"stored + quarantined + pending are {n_counted:,} objects, registered are {state.n_objects:,}"
        problems.append(Problem(kind=ProblemKind.COUNT, path="state/status", text=text))
    return problems


def check_columns(arrays: Mapping[str, AnyArray], state: StateTable, *, n_threads: int) -> list[Problem]:
    """Check that the other arrays can be read and that only stored objects have predictions."""
    checked_elsewhere = {"catalog/object_id", *(f"state/{column.name}" for column in STATE_COLUMNS), *IMAGE_LAYOUTS}

    def check(path: str) -> list[Problem]:
        array = arrays[path]
        is_prediction = path.startswith("predictions/") and array.shape == (state.n_objects,)
        problems, orphans = list[Problem](), [np.empty(0, dtype=np.int64)]
        # in parts, since embeddings take a kilobyte per object
        for start in range(0, array.shape[0], CHECKED_ROWS):
            stop = min(start + CHECKED_ROWS, array.shape[0])
            rows = read_partial_rows(array, start, stop)
            problems += chunk_problems(path, rows)
            if is_prediction:
                has_value = rows.values >= 0 if array.dtype.kind == "i" else ~np.isnan(rows.values)
                is_orphan = state.is_unstored[start:stop] & rows.is_intact & has_value
                orphans.append(start + np.flatnonzero(is_orphan))
        text = "a prediction of an object that is not stored"
        return problems + state.row_problems(ProblemKind.ORPHAN, path, np.concatenate(orphans), text)

    paths = [path for path in arrays if path not in checked_elsewhere]
    checks = map_ahead(check, paths, n_threads=n_threads, n_ahead=2 * n_threads)
    return [problem for problems in checks for problem in problems]


def check_rejected(arrays: Mapping[str, AnyArray], cube: Cube) -> list[Problem]:
    """Check that the table of rejected rows can be read and that its codes are known."""
    lengths = _lengths(arrays, "rejected")
    problems = []
    if len(set(lengths.values())) > 1:
        text = f"columns have different lengths: {', '.join(f'{path} {n}' for path, n in lengths.items())}"
        problems.append(Problem(kind=ProblemKind.ARRAY, path="rejected", text=text))
    n_catalogs = len(cube.attributes.get("catalogs", ()))
    codes: dict[str, Iterable[int]] = {"reason": RejectReason, "catalog": range(n_catalogs)}
    for name, known in codes.items():
        path = f"rejected/{name}"
        if path in arrays and (unknown := _unknown_rows(read_partial_rows(arrays[path]), known)).size:
            text = f"{name} has an unknown code ({unknown.size:,} rows; this is the first)"
            problems.append(Problem(kind=ProblemKind.STATE, path=path, text=text, row=int(unknown[0])))
    return problems

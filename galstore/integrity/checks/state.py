"""State, ids, columns and rejected rows: whether what they say can all be true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from galstore.cube.reader import Cube
from galstore.integrity.damaged_reads import BODY_PATH, Rows, read_rows
from galstore.integrity.findings import Problem, ProblemKind
from schemas.catalog import CATALOG_COLUMNS
from schemas.cube import (
    BLOCK_ROWS,
    DELIVERED_BYTES,
    INDEX_COLUMNS,
    LEVEL,
    REJECTED_COLUMNS,
    STATE_COLUMNS,
    Listing,
)
from schemas.cutouts import BANDS, Reason, Status
from schemas.rejections import RejectReason

IMAGE_SHAPES: dict[str, tuple[tuple[int, ...], str]] = {
    **{level.path: ((level.side_px, level.side_px, len(BANDS)), level.dtype) for level in LEVEL.values()},
    BODY_PATH: ((DELIVERED_BYTES,), "uint8"),
}

CHECKED_ROWS = 65_536
"""Rows of a column that are in memory at once."""

_Array = zarr.Array[Any]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """`/state` and the object ids: each column with the rows that could be read."""

    n_objects: int
    columns: Mapping[str, Rows]
    is_unstored: _Flags = field(init=False)
    is_described: _Flags = field(init=False)
    """Stored, and its length and digest could be read."""

    def __post_init__(self) -> None:
        known, stored = self.known("status"), self["status"] == Status.STORED
        described = known & stored & self.known("body_length", "body_sha256")
        object.__setattr__(self, "is_unstored", known & ~stored)
        object.__setattr__(self, "is_described", described)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name].values

    def known(self, *names: str) -> _Flags:
        """Rows of which all of these columns could be read."""
        return np.asarray(np.logical_and.reduce([self.columns[name].known for name in names]), dtype=bool)

    def problem(self, kind: ProblemKind, path: str, rows: npt.ArrayLike, text: str) -> list[Problem]:
        """One problem that some rows share, named by the first; none where there are no rows."""
        rows = np.asarray(rows)
        if not rows.size:
            return []
        row = int(rows.min())
        ids = self.columns["object_id"]
        object_id = int(ids.values[row]) if ids.known[row] else None
        text = text if rows.size == 1 else f"{text} ({rows.size:,} objects; this is the first)"
        return [Problem(kind=kind, path=path, text=text, block=row // BLOCK_ROWS, row=row, object_id=object_id)]


def _dimensions(array: _Array) -> tuple[str | None, ...]:
    return getattr(array.metadata, "dimension_names", None) or ()


def check_lengths(arrays: Mapping[str, _Array]) -> tuple[int, list[Problem]]:
    """How many objects the cube has, and the arrays that are missing or differ."""
    lengths = {path: array.shape[0] for path, array in arrays.items() if _dimensions(array)[:1] == ("object",)}
    n_objects = Counter(lengths.values()).most_common(1)[0][0] if lengths else 0
    problems = [
        Problem(kind=ProblemKind.ARRAY, path=path, text=f"it has {length:,} objects, most arrays have {n_objects:,}")
        for path, length in lengths.items()
        if length != n_objects
    ]
    expected = [
        *IMAGE_SHAPES,
        *(f"state/{column.name}" for column in STATE_COLUMNS),
        *(f"rejected/{column.name}" for column in REJECTED_COLUMNS),
        *(f"catalog/{name}" for name in ("object_id", *CATALOG_COLUMNS)),
        *(f"index/{name}/{column.name}" for name, columns in INDEX_COLUMNS.items() for column in columns),
    ]
    missing = [path for path in expected if path not in arrays]
    problems += [Problem(kind=ProblemKind.ARRAY, path=path, text="the array is missing") for path in missing]
    for path, (shape, dtype) in IMAGE_SHAPES.items():
        array = arrays.get(path)
        if array is not None and (array.shape[1:], str(array.dtype)) != (shape, dtype):
            text = f"each object has {array.dtype} {array.shape[1:]}, the layout says {dtype} {shape}"
            problems.append(Problem(kind=ProblemKind.ARRAY, path=path, text=text))
    return n_objects, problems


def has_layout(arrays: Mapping[str, _Array], path: str, n_objects: int) -> bool:
    """Whether an array of images or bytes is there and has the shape and type of the layout."""
    shape, dtype = IMAGE_SHAPES[path]
    array = arrays.get(path)
    return array is not None and array.shape == (n_objects, *shape) and array.dtype == dtype


def unreadable(path: str, rows: Rows) -> list[Problem]:
    """Chunks that could not be read; one that spans several blocks has no block."""
    return [
        Problem(
            kind=ProblemKind.CHUNK,
            path=path,
            text=f"rows {first}-{last - 1} cannot be read ({why})",
            block=first // BLOCK_ROWS if path in IMAGE_SHAPES else None,
            row=first,
        )
        for first, last, why in rows.damage
    ]


def read_state(arrays: Mapping[str, _Array], n_objects: int, pool: ThreadPoolExecutor) -> tuple[State, list[Problem]]:
    """The state columns and the ids, as far as they can be read, and what cannot."""
    paths = {column.name: f"state/{column.name}" for column in STATE_COLUMNS} | {"object_id": "catalog/object_id"}
    widths = {column.name: column.width for column in STATE_COLUMNS}

    def read(name: str) -> Rows:
        array = arrays.get(paths[name])
        width = widths.get(name, 1)
        shape = (n_objects, width) if width > 1 else (n_objects,)
        if array is not None and array.shape == shape:
            return read_rows(array, 0, n_objects)
        return Rows(values=np.zeros(shape, dtype=np.int64), known=np.zeros(n_objects, dtype=bool))

    columns = dict(zip(paths, pool.map(read, paths), strict=True))
    problems = [problem for name, rows in columns.items() for problem in unreadable(paths[name], rows)]
    return State(n_objects=n_objects, columns=columns), problems


def check_state(state: State, cube: Cube) -> list[Problem]:
    """Codes are known and do not contradict each other; ids are unique; counts add up."""
    problems: list[Problem] = []
    n_catalogs = len(cube.attributes.get("catalogs", ()))
    codes: dict[str, Iterable[int]] = {
        "status": Status, "reason": Reason, "listing": Listing, "catalog": range(n_catalogs),
    }  # fmt: skip
    for name, known_codes in codes.items():
        strange = state.known(name) & ~np.isin(state[name], [int(code) for code in known_codes])
        problems += state.problem(
            ProblemKind.STATE, f"state/{name}", np.flatnonzero(strange), f"{name} has a code that is unknown"
        )
    both, has_reason = state.known("status", "reason"), state["reason"] != Reason.NONE
    quarantined = state["status"] == Status.QUARANTINED
    for contradicts, text in (
        (quarantined & ~has_reason, "quarantined for no reason"),
        (~quarantined & has_reason, "not quarantined, and yet with a reason"),
    ):
        problems += state.problem(ProblemKind.STATE, "state/reason", np.flatnonzero(both & contradicts), text)
    n_settled = int(np.isin(state["status"], [int(code) for code in Status]).sum())
    if state.known("status").all() and n_settled != state.n_objects:
        text = f"stored + quarantined + pending are {n_settled:,} objects, registered are {state.n_objects:,}"
        problems.append(Problem(kind=ProblemKind.COUNT, path="state/status", text=text))
    return problems + _check_ids(state) + _check_digests(state)


def _check_ids(state: State) -> list[Problem]:
    rows = np.flatnonzero(state.known("object_id"))
    if not rows.size:
        return []
    ids = state["object_id"][rows]
    _, firsts = np.unique(ids, return_index=True)
    repeated = np.ones(ids.size, dtype=bool)
    repeated[firsts] = False
    kind, path = ProblemKind.IDENTITY, "catalog/object_id"
    return [
        *state.problem(kind, path, rows[ids < 0], "the object id is negative"),
        *state.problem(kind, path, rows[repeated], "another row has the same object id"),
    ]


def _check_digests(state: State) -> list[Problem]:
    problems = []
    for name, has_value in (
        ("body_sha256", state["body_sha256"].any(axis=1)),
        ("body_length", state["body_length"] > 0),
    ):
        rows = np.flatnonzero(state.is_unstored & state.known(name) & has_value)
        problems += state.problem(ProblemKind.ORPHAN, f"state/{name}", rows, "a value of an object that is not stored")
    return problems


def check_columns(arrays: Mapping[str, _Array], state: State, pool: ThreadPoolExecutor) -> list[Problem]:
    """Every array that is neither an image nor state is readable, and only stored objects have predictions."""
    done = {"catalog/object_id", *(f"state/{column.name}" for column in STATE_COLUMNS), *IMAGE_SHAPES}

    def check(path: str) -> list[Problem]:
        array = arrays[path]
        is_prediction = path.startswith("predictions/") and array.shape == (state.n_objects,)
        problems, orphans = list[Problem](), [np.empty(0, dtype=np.int64)]
        # embeddings are a kilobyte an object
        for first in range(0, array.shape[0], CHECKED_ROWS):
            last = min(first + CHECKED_ROWS, array.shape[0])
            rows = read_rows(array, first, last)
            problems += unreadable(path, rows)
            if is_prediction:
                is_told = rows.values >= 0 if array.dtype.kind == "i" else ~np.isnan(rows.values)
                is_orphan = state.is_unstored[first:last] & rows.known & is_told
                orphans.append(first + np.flatnonzero(is_orphan))
        text = "a prediction of an object that is not stored"
        return problems + state.problem(ProblemKind.ORPHAN, path, np.concatenate(orphans), text)

    return [problem for found in pool.map(check, [path for path in arrays if path not in done]) for problem in found]


def check_rejected(arrays: Mapping[str, _Array], cube: Cube) -> list[Problem]:
    """Whether the table of rejected rows can be read and has known codes."""
    lengths = {path: array.shape[0] for path, array in arrays.items() if _dimensions(array)[:1] == ("rejected",)}
    problems = []
    if len(set(lengths.values())) > 1:
        text = f"columns have different lengths: {', '.join(f'{path} {n}' for path, n in lengths.items())}"
        problems.append(Problem(kind=ProblemKind.ARRAY, path="rejected", text=text))
    codes = {"reason": [int(code) for code in RejectReason], "catalog": range(len(cube.attributes.get("catalogs", ())))}
    for name, known_codes in codes.items():
        path = f"rejected/{name}"
        if path not in arrays:
            continue
        rows = read_rows(arrays[path], 0, arrays[path].shape[0])
        strange = np.flatnonzero(rows.known & ~np.isin(rows.values, list(known_codes)))
        if strange.size:
            text = f"{name} has a code that is unknown ({strange.size:,} rows; this is the first)"
            problems.append(Problem(kind=ProblemKind.STATE, path=path, text=text, row=int(strange[0])))
    return problems

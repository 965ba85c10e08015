"""Indexes: whether each has every object once, under its key, in the order that lookups rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.index.lookup import index_entries
from galstore.cube.index.segments import ATTRIBUTE, Segment, fences_of, parse_segments
from galstore.integrity.checks.state import State
from galstore.integrity.damaged_reads import read_rows
from galstore.integrity.findings import Problem, ProblemKind
from schemas.cube import INDEX_COLUMNS

_MEND = "make it anew with `galstore rebuild STORE --index`"


def check_indexes(root: zarr.Group, arrays: Mapping[str, zarr.Array[Any]], state: State) -> list[Problem]:
    """What each index says that the catalog does not; arrays that cannot be read are told of elsewhere."""
    catalog = _read(arrays, {name: f"catalog/{name}" for name in ("object_id", "ra", "dec")}, state.n_objects)
    if catalog is None:
        return []
    problems = []
    # a place that is none has no cell: it is told by its difference from the index
    places = {"ra": np.nan_to_num(catalog["ra"]), "dec": np.clip(np.nan_to_num(catalog["dec"]), -90, 90)}
    expected = index_entries(pd.DataFrame(catalog | places))
    for name, columns in INDEX_COLUMNS.items():
        path = f"index/{name}"
        held = _read(arrays, {column.name: f"{path}/{column.name}" for column in columns}, state.n_objects)
        if held is not None:
            problems += _check_order(path, root[path].attrs.get(ATTRIBUTE), held["key"])
            problems += _check_entries(path, held, expected[name], state)
    return problems


def _read(
    arrays: Mapping[str, zarr.Array[Any]], paths: Mapping[str, str], n_objects: int
) -> dict[str, npt.NDArray[Any]] | None:
    values = {}
    for name, path in paths.items():
        if path not in arrays or arrays[path].shape != (n_objects,):
            return None
        rows = read_rows(arrays[path], 0, n_objects)
        if rows.damage:
            return None
        values[name] = rows.values
    return values


def _check_order(path: str, held: Any, keys: npt.NDArray[np.int64]) -> list[Problem]:
    try:
        segments = parse_segments(held)
    except (TypeError, KeyError, ValueError):
        segments = ()
    ends = [0, *(one.stop for one in segments)]
    if ends[-1] == keys.size and np.all(np.diff(ends) > 0) and all(_is_sound(one, keys) for one in segments):
        return []
    text = f"its segments do not span {keys.size:,} sorted entries, so that objects are not found: {_MEND}"
    return [Problem(kind=ProblemKind.INDEX, path=path, text=text)]


def _is_sound(segment: Segment, keys: npt.NDArray[np.int64]) -> bool:
    inside = keys[segment.start : segment.stop]
    return (
        bool(np.all(np.diff(inside) >= 0))
        and int(inside[-1]) == segment.last
        and np.array_equal(segment.fences, fences_of(inside, segment.start))
    )


def _check_entries(
    path: str, held: Mapping[str, npt.NDArray[Any]], expected: Mapping[str, npt.NDArray[Any]], state: State
) -> list[Problem]:
    rows = held["row"]
    is_row = (rows >= 0) & (rows < state.n_objects)
    n_entries = np.bincount(rows[is_row], minlength=state.n_objects)
    wrong = np.zeros(state.n_objects, dtype=bool)
    for name, values in expected.items():
        differs = held[name][is_row] != values[rows[is_row]]
        wrong[rows[is_row][differs]] = True
    return [
        *state.problem(
            ProblemKind.INDEX, path, np.flatnonzero(n_entries != 1), f"it does not have the object once: {_MEND}"
        ),
        *state.problem(
            ProblemKind.INDEX, path, np.flatnonzero(wrong), f"its entry is not what the catalog says: {_MEND}"
        ),
    ]

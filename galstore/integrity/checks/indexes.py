"""Check that each index lists every object once, with the right key and in the order that lookups need."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.arrays import AnyArray, Attributes, Values, require_group
from galstore.cube.index.lookup import index_entries
from galstore.cube.index.segments import ATTRIBUTE, Segment, fences_of, parse_segments
from galstore.integrity.checks.state import StateTable
from galstore.integrity.damaged_reads import read_partial_rows
from galstore.integrity.findings import Problem, ProblemKind
from schemas.cube import INDEX_COLUMNS

_REPAIR = "repair it with `galstore rebuild STORE --index`"


def check_indexes(root: zarr.Group, arrays: Mapping[str, AnyArray], state: StateTable) -> list[Problem]:
    """Compare each index with the catalog; arrays that cannot be read are reported by other checks."""
    catalog = _read(arrays, {name: f"catalog/{name}" for name in ("object_id", "ra", "dec")}, state.n_objects)
    if catalog is None:
        return []
    problems = []
    # invalid positions are replaced by valid ones, which then differ from the index
    positions = {"ra": np.nan_to_num(catalog["ra"]), "dec": np.clip(np.nan_to_num(catalog["dec"]), -90, 90)}
    expected = index_entries(pd.DataFrame(catalog | positions))
    for name, columns in INDEX_COLUMNS.items():
        path = f"index/{name}"
        stored = _read(arrays, {column.name: f"{path}/{column.name}" for column in columns}, state.n_objects)
        if stored is not None:
            problems += _check_order(path, require_group(root, path).attrs, stored["key"])
            problems += _check_entries(path, stored, expected[name], state)
    return problems


def _read(arrays: Mapping[str, AnyArray], paths: Mapping[str, str], n_objects: int) -> dict[str, Values] | None:
    values = {}
    for name, path in paths.items():
        if path not in arrays or arrays[path].shape != (n_objects,):
            return None
        rows = read_partial_rows(arrays[path])
        if rows.damage:
            return None
        values[name] = rows.values
    return values


def _check_order(path: str, attributes: Attributes, keys: npt.NDArray[np.int64]) -> list[Problem]:
    try:
        segments = parse_segments(attributes.get(ATTRIBUTE, ()))
    except (TypeError, KeyError, ValueError):
        segments = ()
    ends = [0, *(segment.stop for segment in segments)]
    if ends[-1] == keys.size and np.all(np.diff(ends) > 0) and all(_is_sorted(segment, keys) for segment in segments):
        return []
    text = f"its segments do not cover {keys.size:,} sorted entries, so that lookups miss objects: {_REPAIR}"
    return [Problem(kind=ProblemKind.INDEX, path=path, text=text)]


def _is_sorted(segment: Segment, keys: npt.NDArray[np.int64]) -> bool:
    segment_keys = keys[segment.start : segment.stop]
    return (
        bool(np.all(np.diff(segment_keys) >= 0))
        and int(segment_keys[-1]) == segment.last
        and np.array_equal(segment.fences, fences_of(segment_keys, segment.start))
    )


def _check_entries(
    path: str, stored: Mapping[str, Values], expected: Mapping[str, Values], state: StateTable
) -> list[Problem]:
    rows = stored["row"]
    is_row = (rows >= 0) & (rows < state.n_objects)
    n_entries = np.bincount(rows[is_row], minlength=state.n_objects)
    is_wrong = np.zeros(state.n_objects, dtype=bool)
    for name, values in expected.items():
        differs = stored[name][is_row] != values[rows[is_row]]
        is_wrong[rows[is_row][differs]] = True
    found = ((n_entries != 1, "it does not list the object once"), (is_wrong, "its entry differs from the catalog"))
    grouped = [
        state.row_problems(ProblemKind.INDEX, path, np.flatnonzero(is_bad), f"{text}: {_REPAIR}")
        for is_bad, text in found
    ]
    return [problem for problems in grouped for problem in problems]

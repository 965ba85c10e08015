"""Segments: a sorted index of the cube, key -> row, that grows page by page and is never read completely.

The arrays of `/index/<name>`, all of shape (object,), hold one entry per object: `key`, `row` and further columns. They
are divided into segments, ranges of positions that are each sorted by key. A page of new objects becomes a new segment
at the end. The last segments are merged unless each is at least twice as large as the next (a log-structured merge,
O'Neil et al. 1996), so that a million objects have at most eight segments, in any order of arrival. A page whose keys
are all above those of the last segment extends it: objects that arrive in the order of their keys are never rewritten.

The group's attribute `segments` stores for each segment its end, its largest key and its fences, the first key in each
chunk: 20 bytes per 16,384 objects. A lookup reads only the chunks that may hold its keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import zarr

from galstore.cube.arrays import AnyArray, Attributes, Values, read_attributes, require_array
from galstore.cube.columns import ColumnCache
from schemas.cube import INDEX_CHUNK_ROWS

ATTRIBUTE = "segments"
GROWTH = 2
"""Minimum ratio between the sizes of a segment and the next one."""
GAP_CHUNKS = 4
"""Gaps of up to this many chunks are read as well, which is cheaper than two reads."""

_Integers = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Positions `start` to `stop` of an index, sorted by key; `last` is the largest key.

    `fences` are the keys at `start` and at the start of each further chunk, shape (chunk,).
    """

    start: int
    stop: int
    last: int
    fences: _Integers

    @property
    def size(self) -> int:
        return self.stop - self.start

    def to_dict(self) -> dict[str, int | list[int]]:
        """Return plain data without the start, which is the end of the segment before."""
        return {"stop": self.stop, "last": self.last, "fences": self.fences.tolist()}

    def runs(self, wanted: _Flags) -> list[slice]:
        """Return the positions of the wanted chunks in few ranges."""
        numbers = np.flatnonzero(wanted)
        if not numbers.size:
            return []
        breaks = np.flatnonzero(np.diff(numbers) > GAP_CHUNKS)
        firsts, lasts = numbers[np.r_[0, breaks + 1]], numbers[np.r_[breaks, numbers.size - 1]]
        first_chunk = self.start // INDEX_CHUNK_ROWS
        return [
            slice(
                max(self.start, int(first_chunk + first) * INDEX_CHUNK_ROWS),
                min(self.stop, int(first_chunk + last + 1) * INDEX_CHUNK_ROWS),
            )
            for first, last in zip(firsts, lasts, strict=True)
        ]


class SegmentIndex:
    """One index of a cube: the group `/index/<name>` in some session, read through a cache of columns.

    `segments` are in the order of their positions.
    """

    def __init__(self, group: zarr.Group, columns: ColumnCache | None = None) -> None:
        self._group = group
        self._columns = columns or ColumnCache()
        self._arrays: dict[str, AnyArray] = {}
        self.segments: tuple[Segment, ...] = parse_segments(read_attributes(group)[ATTRIBUTE])

    def rows_of(self, keys: _Integers) -> _Integers:
        """Return the row of each key, -1 if it is not in the index; keys of the index must be unique."""
        rows = np.full(keys.size, -1, dtype=np.int64)
        order = np.argsort(keys, kind="stable")
        ascending = keys[order]
        is_missing = np.ones(keys.size, dtype=bool)
        # most keys are in the largest segment
        for segment in sorted(self.segments, key=lambda segment: -segment.size):
            candidates = np.flatnonzero(is_missing & (ascending >= segment.fences[0]) & (ascending <= segment.last))
            if not candidates.size:
                continue
            positions = self._positions_of(ascending[candidates], segment)
            is_found = positions >= 0
            (found,) = self._columns.take([self._array("row")], positions[is_found])
            rows[order[candidates[is_found]]] = found
            is_missing[candidates[is_found]] = False
        return rows

    def _positions_of(self, keys: _Integers, segment: Segment) -> _Integers:
        """Return the position of each key in a segment by bisection of one chunk, -1 if it is not there."""
        chunks = segment.start // INDEX_CHUNK_ROWS + np.searchsorted(segment.fences, keys, "right") - 1
        lows = np.maximum(segment.start, chunks * INDEX_CHUNK_ROWS)
        highs = np.minimum(segment.stop, (chunks + 1) * INDEX_CHUNK_ROWS)
        self._columns.take([self._array("key"), self._array("row")], lows)  # read both concurrently
        # the position of the key, if any, is in [lows, highs)
        for _ in range(INDEX_CHUNK_ROWS.bit_length()):
            middles = (lows + highs) // 2
            (middle_keys,) = self._columns.take([self._array("key")], middles)
            is_above = middle_keys > keys
            lows, highs = np.where(is_above, lows, middles), np.where(is_above, middles, highs)
        (low_keys,) = self._columns.take([self._array("key")], lows)
        return np.where(low_keys == keys, lows, -1)

    def read_between(self, lows: _Integers, highs: _Integers, names: Sequence[str]) -> dict[str, Values]:
        """Read columns of the entries with keys in the given ranges, segment by segment.

        Ranges are the smallest key and the key after the largest, shape (n,): ascending and disjoint.
        """
        runs: list[slice] = []
        for segment in self.segments:
            wanted = np.zeros(segment.fences.size, dtype=bool)
            # equal keys may begin in the chunk before their fence
            firsts = np.maximum(np.searchsorted(segment.fences, lows, "left") - 1, 0)
            stops = np.searchsorted(segment.fences, highs, "left")
            for first, stop in zip(firsts[lows <= segment.last], stops[lows <= segment.last], strict=True):
                wanted[first:stop] = True
            runs += segment.runs(wanted)
        entries = self._read(dict.fromkeys(("key", *names)), runs)
        ranges = np.searchsorted(lows, entries["key"], "right") - 1
        inside = ranges >= 0
        inside[inside] = entries["key"][inside] < highs[ranges[inside]]
        return {name: entries[name][inside] for name in names}

    def append(self, entries: Mapping[str, Values]) -> None:
        """Add entries of new objects (all columns, n > 0, in any order), after the arrays were extended."""
        order = np.argsort(entries["key"], kind="stable")
        entries = {name: np.asarray(values)[order] for name, values in entries.items()}
        old = list(self.segments)
        end = old[-1].stop if old else 0
        extends = bool(old) and int(entries["key"][0]) > old[-1].last
        n_unchanged, size = len(old), order.size
        if extends:
            n_unchanged, size = n_unchanged - 1, size + old[-1].size
        n_before_merge = n_unchanged
        # segments smaller than a chunk are merged too, because their chunk is rewritten in any case
        while n_unchanged and old[n_unchanged - 1].size < max(GROWTH * size, INDEX_CHUNK_ROWS):
            n_unchanged -= 1
            size += old[n_unchanged].size
        start = old[n_unchanged].start if n_unchanged < len(old) else end
        fences: _Integers = np.empty(0, dtype=np.int64)
        if extends and n_unchanged == n_before_merge:
            start, fences = end, old[-1].fences
        elif start < end:
            old_entries = self._read(entries, [slice(start, end)])
            merged = {name: np.concatenate([old_entries[name], entries[name]]) for name in entries}
            order_of_keys = np.argsort(merged["key"], kind="stable")
            entries = {name: values[order_of_keys] for name, values in merged.items()}
        for name, values in entries.items():
            self._array(name)[start : start + values.size] = values
        self._columns.clear()
        segment = Segment(
            start=old[n_unchanged].start if fences.size else start,
            stop=end + order.size,
            last=int(entries["key"][-1]),
            fences=np.concatenate([fences, fences_of(entries["key"], start, is_new=not fences.size)]),
        )
        self.segments = (*old[:n_unchanged], segment)
        self._group.attrs[ATTRIBUTE] = [segment.to_dict() for segment in self.segments]

    def replace(self, entries: Mapping[str, Values]) -> None:
        """Replace all entries; the arrays have the length of the new ones."""
        self.segments = ()
        self._group.attrs[ATTRIBUTE] = []
        if entries["key"].size:
            self.append(entries)

    def _read(self, names: Mapping[str, object] | Sequence[str], runs: Sequence[slice]) -> dict[str, Values]:
        """Read columns over ranges of positions, concatenated."""
        arrays = {name: self._array(name) for name in names}
        values = iter(self._columns.read([(array, run) for array in arrays.values() for run in runs]))
        return {
            name: np.concatenate([np.empty(0, dtype=array.dtype), *(next(values) for _ in runs)])
            for name, array in arrays.items()
        }

    def _array(self, name: str) -> AnyArray:
        if name not in self._arrays:
            self._arrays[name] = require_array(self._group, name)
        return self._arrays[name]


def parse_segments(entries: Sequence[Attributes]) -> tuple[Segment, ...]:
    ends = [0, *(int(entry["stop"]) for entry in entries)]
    return tuple(
        Segment(start=start, stop=stop, last=int(entry["last"]), fences=np.array(entry["fences"], dtype=np.int64))
        for (start, stop), entry in zip(pairwise(ends), entries, strict=True)
    )


def fences_of(keys: _Integers, start: int, *, is_new: bool = True) -> _Integers:
    """Return the fences of keys at positions from `start` on; a new segment has one at its start too."""
    firsts = np.arange(-start % INDEX_CHUNK_ROWS, keys.size, INDEX_CHUNK_ROWS)
    if is_new and start % INDEX_CHUNK_ROWS:
        firsts = np.r_[0, firsts]
    return np.asarray(keys[firsts], dtype=np.int64)

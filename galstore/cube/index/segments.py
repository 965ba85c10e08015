"""Segments: a sorted index of the cube, key -> row, that grows with every page and is never read whole.

The arrays of `/index/<name>`, all of shape (object,), hold one entry for each object: `key`, `row` and what else the
index carries. They are cut into segments, ranges of positions that are each sorted by key. A page of new objects
becomes a segment of its own at the end; the last segments are merged where the one before is not at least twice as
large (a log-structured merge, O'Neil et al. 1996), so that a million objects have at most eight of them in whatever
order they came. A page whose keys are all above those of the last segment lengthens it: objects that come in the order
of their keys are never merged, nor written twice.

The group's attribute `segments` has of each one where it ends, its largest key, and as its fences the key with which
it enters each chunk: 20 bytes for 16,384 objects. A lookup reads the chunks that may hold its keys, and no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from galstore.cube.columns import Columns
from schemas.cube import INDEX_CHUNK_ROWS

ATTRIBUTE = "segments"
GROWTH = 2
"""How many times as large as the segment behind it a segment is at least."""
GAP_CHUNKS = 4
"""So many chunks that are not wanted are read along where wanted ones lie on both sides: that is cheaper than two
reads."""

_Integers = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Positions `start` to `stop` of an index, sorted by key.

    Attributes
    ----------
    fences
        Key at `start` and at the start of each further chunk, shape (chunk,).
    last
        The largest key.
    """

    start: int
    stop: int
    last: int
    fences: _Integers

    @property
    def size(self) -> int:
        return self.stop - self.start

    def to_dict(self) -> dict[str, Any]:
        """As plain data; it starts where the one before it stops."""
        return {"stop": self.stop, "last": self.last, "fences": self.fences.tolist()}

    def runs(self, wanted: _Flags) -> list[slice]:
        """Positions of the chunks that are wanted, in few pieces."""
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
    """One index of a cube, as of the session in which its group was opened.

    Parameters
    ----------
    group
        `/index/<name>`.
    columns
        Keeps what was read of a snapshot; by default the index keeps it for itself.

    Attributes
    ----------
    segments
        In the order of their positions.
    """

    def __init__(self, group: zarr.Group, columns: Columns | None = None) -> None:
        self._group = group
        self._columns = columns or Columns()
        self._arrays: dict[str, Any] = {}
        held: Any = group.attrs[ATTRIBUTE]
        self.segments: tuple[Segment, ...] = parse_segments(held)

    def rows_of(self, keys: _Integers) -> _Integers:
        """Row of each key, -1 where it has none; the index has no key twice.

        Parameters
        ----------
        keys
            Shape (n,), in any order, repeated or not.
        """
        rows = np.full(keys.size, -1, dtype=np.int64)
        order = np.argsort(keys, kind="stable")
        ascending = keys[order]
        is_open = np.ones(keys.size, dtype=bool)
        # most keys are in the largest
        for segment in sorted(self.segments, key=lambda one: -one.size):
            asked = np.flatnonzero(is_open & (ascending >= segment.fences[0]) & (ascending <= segment.last))
            if not asked.size:
                continue
            places = self._places_of(ascending[asked], segment)
            is_found = places >= 0
            (found,) = self._columns.take([self._array("row")], places[is_found])
            rows[order[asked[is_found]]] = found
            is_open[asked[is_found]] = False
        return rows

    def _places_of(self, keys: _Integers, segment: Segment) -> _Integers:
        """Position of each key in a segment whose range holds them, -1 where it has none: by bisection of one chunk."""
        chunks = segment.start // INDEX_CHUNK_ROWS + np.searchsorted(segment.fences, keys, "right") - 1
        lows = np.maximum(segment.start, chunks * INDEX_CHUNK_ROWS)
        highs = np.minimum(segment.stop, (chunks + 1) * INDEX_CHUNK_ROWS)
        self._columns.take([self._array("key"), self._array("row")], lows)  # both at once: a read takes a while
        # the key, if there, is at lows or behind, and before highs
        for _ in range(INDEX_CHUNK_ROWS.bit_length()):
            middles = (lows + highs) // 2
            (held,) = self._columns.take([self._array("key")], middles)
            is_above = held > keys
            lows, highs = np.where(is_above, lows, middles), np.where(is_above, middles, highs)
        (held,) = self._columns.take([self._array("key")], lows)
        return np.where(held == keys, lows, -1)

    def read_between(self, lows: _Integers, highs: _Integers, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Columns of the entries whose key is in one of some ranges, segment by segment.

        Parameters
        ----------
        lows, highs
            Smallest key of each range, and the key after its largest, shape (n,): ascending and apart.
        names
            Columns of the index.
        """
        runs: list[slice] = []
        for segment in self.segments:
            wanted = np.zeros(segment.fences.size, dtype=bool)
            # keys that are equal may begin in the chunk before their fence
            firsts = np.maximum(np.searchsorted(segment.fences, lows, "left") - 1, 0)
            stops = np.searchsorted(segment.fences, highs, "left")
            for first, stop in zip(firsts[lows <= segment.last], stops[lows <= segment.last], strict=True):
                wanted[first:stop] = True
            runs += segment.runs(wanted)
        held = self._read(dict.fromkeys(("key", *names)), runs)
        ranges = np.searchsorted(lows, held["key"], "right") - 1
        inside = ranges >= 0
        inside[inside] = held["key"][inside] < highs[ranges[inside]]
        return {name: held[name][inside] for name in names}

    def append(self, entries: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up the entries of new objects; the arrays have been lengthened by as many.

        Parameters
        ----------
        entries
            All columns of the index, each of shape (n,), n > 0; their order does not matter.
        """
        order = np.argsort(entries["key"], kind="stable")
        entries = {name: np.asarray(values)[order] for name, values in entries.items()}
        held = list(self.segments)
        end = held[-1].stop if held else 0
        lengthens = bool(held) and int(entries["key"][0]) > held[-1].last
        n_kept, size = len(held), order.size
        if lengthens:
            n_kept, size = n_kept - 1, size + held[-1].size
        n_ascending = n_kept
        # what is smaller than a chunk would be written again with its chunk anyway
        while n_kept and held[n_kept - 1].size < max(GROWTH * size, INDEX_CHUNK_ROWS):
            n_kept -= 1
            size += held[n_kept].size
        start = held[n_kept].start if n_kept < len(held) else end
        fences: _Integers = np.empty(0, dtype=np.int64)
        if lengthens and n_kept == n_ascending:
            start, fences = end, held[-1].fences
        elif start < end:
            entries = _merged(self._read(entries, [slice(start, end)]), entries)
        for name, values in entries.items():
            self._array(name)[start : start + values.size] = values
        self._columns.clear()
        segment = Segment(
            start=held[n_kept].start if fences.size else start,
            stop=end + order.size,
            last=int(entries["key"][-1]),
            fences=np.concatenate([fences, fences_of(entries["key"], start, is_new=not fences.size)]),
        )
        self.segments = (*held[:n_kept], segment)
        self._group.attrs[ATTRIBUTE] = [one.to_dict() for one in self.segments]

    def replace(self, entries: Mapping[str, npt.NDArray[Any]]) -> None:
        """Put these entries in place of all; the arrays are as long as they are."""
        self.segments = ()
        self._group.attrs[ATTRIBUTE] = []
        if entries["key"].size:
            self.append(entries)

    def _read(self, names: Mapping[str, Any] | Sequence[str], runs: Sequence[slice]) -> dict[str, npt.NDArray[Any]]:
        """Columns over some ranges of positions, one behind the other."""
        arrays = {name: self._array(name) for name in names}
        values = iter(self._columns.read([(array, run) for array in arrays.values() for run in runs]))
        return {
            name: np.concatenate([np.empty(0, dtype=array.dtype), *(next(values) for _ in runs)])
            for name, array in arrays.items()
        }

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            self._arrays[name] = self._group[name]
        return self._arrays[name]


def parse_segments(held: Sequence[Mapping[str, Any]]) -> tuple[Segment, ...]:
    """Segments as the attribute has them."""
    starts = [0, *(int(one["stop"]) for one in held)]
    return tuple(
        Segment(
            start=start, stop=int(one["stop"]), last=int(one["last"]), fences=np.array(one["fences"], dtype=np.int64)
        )
        for start, one in zip(starts, held, strict=False)
    )


def fences_of(keys: _Integers, start: int, *, is_new: bool = True) -> _Integers:
    """Fences of keys that are at positions from `start` on; a segment that is new has one at its start too."""
    firsts = np.arange(-start % INDEX_CHUNK_ROWS, keys.size, INDEX_CHUNK_ROWS)
    if is_new and start % INDEX_CHUNK_ROWS:
        firsts = np.r_[0, firsts]
    return np.asarray(keys[firsts], dtype=np.int64)


def _merged(held: Mapping[str, npt.NDArray[Any]], new: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    order = np.argsort(np.concatenate([held["key"], new["key"]]), kind="stable")
    return {name: np.concatenate([held[name], new[name]])[order] for name in new}

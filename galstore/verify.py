"""Verify: whether a cube still holds what was written into it, and whether that hangs together.

Three things are looked at: every array of one snapshot, chunk by chunk; for every stored object its delivered bytes,
their digest, the image that they decode to and its pyramid; and, of a local cube, every file in `chunks/`, whichever
snapshot uses it. Every chunk ends with its CRC-32C, so that one changed byte is found in each of them.

Which file belongs to which snapshot is read off Icechunk's manifests: a chunk's file is named by the 12 bytes (in
Crockford's base 32) by which a manifest refers to it, so that looking for these bytes needs no more of the format than
its header (https://icechunk.io/en/stable/reference/spec/, the same in versions 1 and 2). A file that no snapshot uses
is garbage: it was left by a writer that was killed, or is being written. Icechunk writes a local file under another
name and renames it when it is whole; garbage may be bad after a power failure, and nobody will ever read it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
import icechunk
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zarr

from galstore.blocks import Block
from galstore.commits import is_remote, open_repository
from galstore.labels import label_tag
from galstore.pyramid import build_pyramid
from galstore.quality import judge_body
from galstore.reader import Cube
from schemas.catalog import CATALOG_COLUMNS
from schemas.cube import (
    BLOCK_ROWS,
    DELIVERED_BYTES,
    DELIVERED_CHUNK_ROWS,
    LEVEL,
    LEVELS,
    REJECTED_COLUMNS,
    STATE_COLUMNS,
    Listing,
)
from schemas.cutouts import BANDS, SIDE_PX, Reason, Status
from schemas.rejections import RejectReason

UNREADABLE = (icechunk.IcechunkError, ValueError, RuntimeError)
"""What reading a bad chunk raises. Icechunk: its file is missing, or shorter than the manifest says. ValueError: its
CRC-32C differs, or it has another shape than its array. RuntimeError: Blosc cannot decompress what it is."""

BODY_PATH = "delivered/body"

_IMAGE_SHAPES: dict[str, tuple[tuple[int, ...], str]] = {
    **{level.path: ((level.side_px, level.side_px, len(BANDS)), level.dtype) for level in LEVEL.values()},
    BODY_PATH: ((DELIVERED_BYTES,), "uint8"),
}
_MANIFEST_HEADER_BYTES = 39  # magic, implementation, spec version, file type; the last byte: 1 = zstd, 0 = as it is
_ID_CHARACTERS = 20
_TO_RFC_4648 = str.maketrans("0123456789ABCDEFGHJKMNPQRSTVWXYZ", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Array = zarr.Array[Any]
_Flags = npt.NDArray[np.bool_]


class ProblemKind(StrEnum):
    """What is wrong."""

    FILE = "file"
    """A chunk file or manifest of the snapshot is missing, or has other bytes than were written."""
    CHUNK = "chunk"
    """Rows of an array cannot be read."""
    ARRAY = "array"
    """An array is missing, or has another length, shape or type than the layout says."""
    BODY = "body"
    """The delivered bytes of a stored object are not those that its state describes, or no image."""
    PIXELS = "pixels"
    """The 128 px level is not what the delivered bytes decode to."""
    PYRAMID = "pyramid"
    """A lower level is not the average of what the delivered bytes decode to."""
    ORPHAN = "orphan"
    """Bytes, pixels, a digest or a prediction of an object that is not stored."""
    STATE = "state"
    """A code that is unknown, or that contradicts another one."""
    COUNT = "count"
    """Stored, quarantined and pending objects are not all of the registered ones."""
    IDENTITY = "identity"
    """An object id that is negative, or there twice."""
    LABELS = "labels"
    """A superseded version of the labels that can no longer be read."""
    HISTORY = "history"
    """A damaged chunk file that only other snapshots use, or a part of the history that cannot be read."""
    REPLACED = "replaced"
    """As `HISTORY`, but a rebuild has replaced the chunk since: nothing is left to do but to expire old snapshots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, and where.

    Attributes
    ----------
    path
        Array, as `images/64/pixels`, or file, as `chunks/JGXHC6KHPAE8SRHHRYK0`.
    text
        What is wrong; where several objects of a block share it, with their number.
    block
        Number of the block of 1,024 rows; None where it is unknown or the chunk spans several.
    row, object_id
        The first object concerned, where known.
    """

    kind: ProblemKind
    path: str
    text: str
    block: int | None = None
    row: int | None = None
    object_id: int | None = None

    @property
    def where(self) -> str:
        parts = (("block", self.block), ("row", self.row), ("object", self.object_id))
        return ", ".join([self.path, *(f"{name} {value}" for name, value in parts if value is not None)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was looked at, and what was found.

    Attributes
    ----------
    n_chunks
        Chunks of the snapshot; all of them were read.
    n_bytes
        Bytes of its arrays, decompressed.
    n_files, file_bytes
        Chunk files of a local cube, all snapshots; all of them were read. 0 on an object store.
    n_garbage, garbage_bytes
        Those that no snapshot uses; of these, `n_garbage_damaged` are bad, which harms nobody.
    problems
        Worst first.
    """

    path: str
    snapshot_id: str
    n_objects: int
    n_blocks: int
    n_chunks: int
    n_bytes: int
    n_files: int = 0
    file_bytes: int = 0
    n_garbage: int = 0
    garbage_bytes: int = 0
    n_garbage_damaged: int = 0
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Nothing is wrong, or nothing but chunks of old snapshots that a rebuild has replaced since."""
        return all(problem.kind is ProblemKind.REPLACED for problem in self.problems)

    @property
    def is_sound(self) -> bool:
        """Nothing is wrong with the snapshot itself, whatever its history is like."""
        return all(problem.kind in (ProblemKind.HISTORY, ProblemKind.REPLACED) for problem in self.problems)

    @property
    def summary(self) -> str:
        """All of it in a sentence or two."""
        read = f"{self.n_objects:,} objects in {self.n_blocks:,} blocks, {self.n_chunks:,} chunks"
        if self.n_files:
            read += f", {self.n_files:,} chunk files of all snapshots"
        tally = Counter(problem.kind for problem in self.problems)
        n_replaced = tally.pop(ProblemKind.REPLACED, 0)
        found = ", ".join(f"{n:,} {kind}" for kind, n in tally.items())
        parts = [f"{self.path} is {'sound' if self.ok else 'damaged'} ({read})" + (f": {found}" if found else "")]
        if n_replaced:
            parts.append(
                f"{n_replaced:,} damaged chunk files of older snapshots, replaced since: expire with `galstore gc`"
            )
        if self.n_garbage:
            parts.append(
                f"{self.n_garbage:,} files of no snapshot ({self.garbage_bytes:,} bytes): `galstore gc` frees them"
            )
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"ok": self.ok, "is_sound": self.is_sound, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Some rows of an array: `values` are zero where `known` is False, since their chunk cannot be read."""

    values: npt.NDArray[Any]
    known: _Flags
    damage: tuple[tuple[int, int, str], ...] = ()
    """First row, row after the last one, and why."""


def verify_cube(cube: Cube, *, on_progress: Callable[[int], None] = lambda _: None, n_threads: int = 0) -> Verification:
    """Read everything that a cube holds and check it.

    Of a local cube all snapshots' chunk files are read, of one on an object store the chunks of this snapshot alone:
    listing and reading all others there would cost a request each. Open an older snapshot to verify it. An object store
    that does not answer looks like damage: the problem's text has what it said.

    Parameters
    ----------
    cube
        The snapshot.
    on_progress
        Called with how many objects have been checked since the last call.
    n_threads
        As many blocks are in memory, about 60 MB each; 0 = as many as there are processors.

    Returns
    -------
    Verification
        What was read and what is wrong. Damage never raises.
    """
    root = zarr.open_group(cube.store, mode="r")
    arrays = {path: node for path, node in root.members(max_depth=None) if isinstance(node, zarr.Array)}
    n_objects, problems = _check_lengths(arrays)
    n_threads = n_threads or os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads) as pool:
        state, found = _read_state(arrays, n_objects, pool)
        problems += (
            found + _check_state(state, cube) + _check_columns(arrays, state, pool) + _check_rejected(arrays, cube)
        )
        blocks = [Block(start, min(start + BLOCK_ROWS, n_objects)) for start in range(0, n_objects, BLOCK_ROWS)]
        sound = {path: arrays[path] for path in _IMAGE_SHAPES if _has_layout(arrays, path, n_objects)}

        def check(block: Block) -> tuple[int, list[Problem]]:
            return block.n_objects, _check_block(sound, state, block)

        for n_checked, found in _in_order(pool, check, blocks, n_ahead=n_threads + 1):
            problems += found
            on_progress(n_checked)
        repository = open_repository(cube.path)
        history = _History(repository, cube.snapshot_id)
        files = _check_files(history, cube.path, pool)
    problems += history.problems + files.problems + _check_labels(repository, history, root)
    order = list(ProblemKind)
    return Verification(
        path=cube.path,
        snapshot_id=cube.snapshot_id,
        n_objects=n_objects,
        n_blocks=len(blocks),
        n_chunks=history.n_chunks,
        n_bytes=sum(int(array.nbytes) for array in arrays.values()),
        n_files=files.n_files,
        file_bytes=files.n_bytes,
        n_garbage=files.n_garbage,
        garbage_bytes=files.garbage_bytes,
        n_garbage_damaged=files.n_garbage_damaged,
        problems=tuple(sorted(problems, key=lambda problem: order.index(problem.kind))),
    )


def read_rows(array: _Array, start: int, stop: int) -> Rows:
    """Rows of an array, also where some of its chunks cannot be read."""
    try:
        return Rows(values=np.asarray(array[start:stop]), known=np.ones(stop - start, dtype=bool))
    except UNREADABLE:
        pass  # chunk by chunk, then
    values = np.zeros((stop - start, *array.shape[1:]), dtype=array.dtype)
    known = np.zeros(stop - start, dtype=bool)
    damage: list[tuple[int, int, str]] = []
    n_rows = array.chunks[0]
    for first in range(start - start % n_rows, stop, n_rows):
        low, high = max(first, start), min(first + n_rows, stop)
        try:
            values[low - start : high - start] = array[low:high]
            known[low - start : high - start] = True
        except UNREADABLE as error:
            damage.append((low, high, first_line(error)))
    return Rows(values=values, known=known, damage=tuple(damage))


def decode_delivered(
    padded: npt.NDArray[np.uint8], length: int, digest: npt.NDArray[np.uint8]
) -> tuple[str, npt.NDArray[np.uint8] | None]:
    """What is wrong with a stored object's delivered bytes, or the image that they decode to.

    Parameters
    ----------
    padded
        Row of `delivered/body`, shape (byte,).
    length, digest
        Its `state/body_length` and `state/body_sha256`, the latter of shape (32,).

    Returns
    -------
    fault, pixels
        Empty and counts of shape (128, 128, band), or a sentence and None.
    """
    if not 0 < length <= DELIVERED_BYTES:
        return f"state/body_length is not one of 1-{DELIVERED_BYTES} bytes", None
    body = padded[:length].tobytes()
    if hashlib.sha256(body).digest() != digest.tobytes():
        return "the delivered bytes do not have the SHA-256 that state/body_sha256 holds", None
    judgement = judge_body(body)
    if judgement.pixels is None:
        return f"the delivered bytes are no image of {SIDE_PX} px ({judgement.reason.name.lower()})", None
    return "", judgement.pixels


def first_line(error: Exception) -> str:
    """The first line of an error that says something; Icechunk frames its messages."""
    lines = (line.strip(" x\u00d7\u2502|") for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], *, n_ahead: int
) -> Iterator[_Result]:
    """Results in order, with no more than some items under way, so that memory stays bounded."""
    under_way: deque[Future[_Result]] = deque()
    for item in items:
        under_way.append(pool.submit(function, item))
        if len(under_way) >= n_ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
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


def _check_lengths(arrays: Mapping[str, _Array]) -> tuple[int, list[Problem]]:
    """How many objects the cube has, and the arrays that are missing or differ."""
    lengths = {path: array.shape[0] for path, array in arrays.items() if _dimensions(array)[:1] == ("object",)}
    n_objects = Counter(lengths.values()).most_common(1)[0][0] if lengths else 0
    problems = [
        Problem(kind=ProblemKind.ARRAY, path=path, text=f"it has {length:,} objects, most arrays have {n_objects:,}")
        for path, length in lengths.items()
        if length != n_objects
    ]
    expected = [
        *_IMAGE_SHAPES,
        *(f"state/{column.name}" for column in STATE_COLUMNS),
        *(f"rejected/{column.name}" for column in REJECTED_COLUMNS),
        *(f"catalog/{name}" for name in ("object_id", *CATALOG_COLUMNS)),
    ]
    missing = [path for path in expected if path not in arrays]
    problems += [Problem(kind=ProblemKind.ARRAY, path=path, text="the array is missing") for path in missing]
    for path, (shape, dtype) in _IMAGE_SHAPES.items():
        array = arrays.get(path)
        if array is not None and (array.shape[1:], str(array.dtype)) != (shape, dtype):
            text = f"each object has {array.dtype} {array.shape[1:]}, the layout says {dtype} {shape}"
            problems.append(Problem(kind=ProblemKind.ARRAY, path=path, text=text))
    return n_objects, problems


def _has_layout(arrays: Mapping[str, _Array], path: str, n_objects: int) -> bool:
    shape, dtype = _IMAGE_SHAPES[path]
    array = arrays.get(path)
    return array is not None and array.shape == (n_objects, *shape) and array.dtype == dtype


def _unreadable(path: str, rows: Rows) -> list[Problem]:
    """Chunks that could not be read; one that spans several blocks has no block."""
    return [
        Problem(
            kind=ProblemKind.CHUNK,
            path=path,
            text=f"rows {first}-{last - 1} cannot be read ({why})",
            block=first // BLOCK_ROWS if path in _IMAGE_SHAPES else None,
            row=first,
        )
        for first, last, why in rows.damage
    ]


def _read_state(arrays: Mapping[str, _Array], n_objects: int, pool: ThreadPoolExecutor) -> tuple[_State, list[Problem]]:
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
    problems = [problem for name, rows in columns.items() for problem in _unreadable(paths[name], rows)]
    return _State(n_objects=n_objects, columns=columns), problems


def _check_state(state: _State, cube: Cube) -> list[Problem]:
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


def _check_ids(state: _State) -> list[Problem]:
    rows = np.flatnonzero(state.known("object_id"))
    ids = state["object_id"][rows]
    _, firsts = np.unique(ids, return_index=True)
    repeated = np.ones(ids.size, dtype=bool)
    repeated[firsts] = False
    kind, path = ProblemKind.IDENTITY, "catalog/object_id"
    return state.problem(kind, path, rows[ids < 0], "the object id is negative") + state.problem(
        kind, path, rows[repeated], "another row has the same object id"
    )


def _check_digests(state: _State) -> list[Problem]:
    problems = []
    for name, has_value in (
        ("body_sha256", state["body_sha256"].any(axis=1)),
        ("body_length", state["body_length"] > 0),
    ):
        rows = np.flatnonzero(state.is_unstored & state.known(name) & has_value)
        problems += state.problem(ProblemKind.ORPHAN, f"state/{name}", rows, "a value of an object that is not stored")
    return problems


def _check_columns(arrays: Mapping[str, _Array], state: _State, pool: ThreadPoolExecutor) -> list[Problem]:
    """Every array that is neither an image nor state is readable, and only stored objects have predictions."""
    done = {"catalog/object_id", *(f"state/{column.name}" for column in STATE_COLUMNS), *_IMAGE_SHAPES}

    def check(path: str) -> list[Problem]:
        array = arrays[path]
        rows = read_rows(array, 0, array.shape[0])
        problems = _unreadable(path, rows)
        if path.startswith("predictions/") and array.shape == (state.n_objects,):
            orphans = np.flatnonzero(state.is_unstored & rows.known & ~np.isnan(rows.values))
            problems += state.problem(ProblemKind.ORPHAN, path, orphans, "a prediction of an object that is not stored")
        return problems

    return [problem for found in pool.map(check, [path for path in arrays if path not in done]) for problem in found]


def _check_rejected(arrays: Mapping[str, _Array], cube: Cube) -> list[Problem]:
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


class _Findings:
    """What is wrong within a block: rows by what they share, so that a bad block is some lines and not a thousand."""

    def __init__(self) -> None:
        self.rows: dict[tuple[ProblemKind, str, str], list[int]] = defaultdict(list)
        self.chunks: list[Problem] = []

    def add(self, kind: ProblemKind, path: str, text: str, rows: Iterable[int]) -> None:
        rows = [int(row) for row in rows]
        if rows:
            self.rows[kind, path, text] += rows

    def problems(self, state: _State) -> list[Problem]:
        shared = [state.problem(kind, path, rows, text) for (kind, path, text), rows in self.rows.items()]
        return self.chunks + [problem for problems in shared for problem in problems]


def _check_block(arrays: Mapping[str, _Array], state: _State, block: Block) -> list[Problem]:
    findings = _Findings()
    levels = {}
    for side in LEVELS[1:]:
        path = LEVEL[side].path
        if path in arrays:
            levels[side] = read_rows(arrays[path], block.start, block.stop)
            findings.chunks += _unreadable(path, levels[side])
            _check_orphans(levels[side], path, state, block.start, findings)
    # the finest level and the bytes come in strips, since a block of them takes 66 MB
    for start in range(block.start, block.stop, DELIVERED_CHUNK_ROWS):
        stop = min(start + DELIVERED_CHUNK_ROWS, block.stop)
        strip = {
            path: read_rows(arrays[path], start, stop) for path in (LEVEL[SIDE_PX].path, BODY_PATH) if path in arrays
        }
        for path, rows in strip.items():
            findings.chunks += _unreadable(path, rows)
            _check_orphans(rows, path, state, start, findings)
        if BODY_PATH not in strip:
            continue
        offsets, pixels = _decode_strip(strip[BODY_PATH], state, start, findings)
        if offsets.size:
            held = {side: (rows, offsets + start - block.start) for side, rows in levels.items()}
            if LEVEL[SIDE_PX].path in strip:
                held[SIDE_PX] = strip[LEVEL[SIDE_PX].path], offsets
            _compare_levels(held, pixels, offsets + start, findings)
    return findings.problems(state)


def _check_orphans(rows: Rows, path: str, state: _State, start: int, findings: _Findings) -> None:
    unstored = np.flatnonzero(rows.known & state.is_unstored[start : start + rows.known.size])
    if unstored.size:
        filled = rows.values[unstored].reshape(unstored.size, -1).any(axis=1)
        what = "delivered bytes" if path == BODY_PATH else "pixels"
        findings.add(ProblemKind.ORPHAN, path, f"{what} of an object that is not stored", unstored[filled] + start)


def _decode_strip(
    bodies: Rows, state: _State, start: int, findings: _Findings
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Rows within a strip whose delivered bytes are good, and the images that they decode to."""
    here = slice(start, start + bodies.known.size)
    described = state.is_described[here] & bodies.known
    lengths = state["body_length"][here]
    behind = np.arange(DELIVERED_BYTES) >= lengths[:, None]
    padded = (bodies.values.astype(bool) & behind).any(axis=1)
    findings.add(
        ProblemKind.BODY, BODY_PATH, "bytes behind state/body_length are not zero",
        np.flatnonzero(described & padded) + start,
    )  # fmt: skip
    offsets, decoded = [], []
    for offset in np.flatnonzero(described):
        fault, pixels = decode_delivered(
            bodies.values[offset], int(lengths[offset]), state["body_sha256"][here][offset]
        )
        if pixels is None:
            findings.add(ProblemKind.BODY, BODY_PATH, fault, [start + int(offset)])
        else:
            offsets.append(offset)
            decoded.append(pixels)
    stacked = np.stack(decoded) if decoded else np.empty((0, SIDE_PX, SIDE_PX, len(BANDS)), dtype=np.uint8)
    return np.array(offsets, dtype=np.int64), stacked


def _compare_levels(
    held: Mapping[int, tuple[Rows, npt.NDArray[np.int64]]],
    pixels: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    findings: _Findings,
) -> None:
    for side, expected in build_pyramid(pixels).items():
        if side not in held:
            continue
        stored, offsets = held[side]
        differs = (stored.values[offsets] != expected).any(axis=(1, 2, 3)) & stored.known[offsets]
        if side == SIDE_PX:
            kind, text = ProblemKind.PIXELS, "the pixels are not those that the delivered bytes decode to"
        else:
            kind, text = ProblemKind.PYRAMID, "the level is not the average of the delivered image"
        findings.add(kind, LEVEL[side].path, text, rows[differs])


class _History:
    """Snapshots that some branch or tag reaches, and this one, with the manifests of each."""

    def __init__(self, repository: icechunk.Repository, snapshot_id: str) -> None:
        self.snapshot_id = snapshot_id
        self.problems: list[Problem] = []
        self.snapshots: dict[str, Any] = {}
        self.array_of: dict[str, str] = {}
        """Path of the array by manifest."""
        self.manifests: dict[str, dict[str, int]] = {}
        """By snapshot: manifests, and how many chunks each refers to."""
        starts = [{"branch": name} for name in sorted(repository.list_branches())]
        starts += [{"tag": name} for name in sorted(repository.list_tags())]
        for start in [{"snapshot_id": snapshot_id}, *starts]:
            self._follow(repository, start)
        for one in self.snapshots:
            self._inspect(repository, one)

    @property
    def n_chunks(self) -> int:
        return sum(self.manifests.get(self.snapshot_id, {}).values())

    def _follow(self, repository: icechunk.Repository, start: dict[str, str]) -> None:
        try:
            for snapshot in repository.ancestry(**start):
                if snapshot.id in self.snapshots:
                    return
                self.snapshots[snapshot.id] = snapshot
        except icechunk.IcechunkError as error:
            name = " ".join(next(iter(start.items())))
            text = f"the history of {name} cannot be read to its end ({first_line(error)})"
            self.problems.append(Problem(kind=ProblemKind.HISTORY, path="snapshots", text=text))

    def _inspect(self, repository: icechunk.Repository, snapshot_id: str) -> None:
        try:
            raw = repository.inspect_snapshot(snapshot_id)
        except icechunk.IcechunkError as error:
            text = f"the snapshot cannot be read ({first_line(error)})"
            self.problems.append(Problem(kind=ProblemKind.HISTORY, path=f"snapshots/{snapshot_id}", text=text))
            return
        # Icechunk 1 hands back JSON, Icechunk 2 what it says; both call it a help for tests, so only ids must be there
        tree: dict[str, Any] = json.loads(raw) if isinstance(raw, str) else raw
        self.manifests[snapshot_id] = {one["id"]: int(one.get("num_chunk_refs", 0)) for one in tree["manifests"]}
        for node in tree.get("nodes", ()):
            for one in node.get("manifest_refs") or ():
                self.array_of[one.get("id", "")] = str(node.get("path", "")).lstrip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class _FileCheck:
    n_files: int = 0
    n_bytes: int = 0
    n_garbage: int = 0
    garbage_bytes: int = 0
    n_garbage_damaged: int = 0
    problems: list[Problem] = field(default_factory=list)


def _check_files(history: _History, path: str, pool: ThreadPoolExecutor) -> _FileCheck:
    """Every chunk file of a local cube has the checksum with which it ends, and every one that is used is there."""
    if is_remote(path):
        return _FileCheck()
    folder = Path(path).expanduser()
    # listed after the snapshots, so that what they use is in the list; what others commit meanwhile is garbage here
    sizes = _sizes(folder / "chunks")
    checks = _in_order(pool, lambda name: _is_whole(folder / "chunks" / name), sizes, n_ahead=64)
    damaged = {name for name, whole in zip(sizes, checks, strict=True) if not whole}
    used = _UsedFiles(history, folder, sizes)
    garbage = sizes.keys() - used.array_of.keys()
    problems = used.problems + [used.problem(name) for name in sorted(damaged - garbage)]
    if used.is_partial:
        # the manifest that refers to it may be among those that cannot be read
        problems += [used.problem(name) for name in sorted(damaged & garbage)]
    return _FileCheck(
        n_files=len(sizes),
        n_bytes=sum(sizes.values()),
        n_garbage=len(garbage),
        garbage_bytes=sum(sizes[name] for name in garbage),
        n_garbage_damaged=len(damaged & garbage),
        problems=problems,
    )


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file; a writer may rename one between the listing and the look."""
    sizes = {}
    for entry in os.scandir(folder) if folder.is_dir() else ():
        with suppress(FileNotFoundError):
            if entry.is_file():
                sizes[entry.name] = entry.stat().st_size
    return sizes


def _is_whole(file: Path) -> bool:
    """Whether a chunk file ends with the CRC-32C of the rest; one that is gone by now does not matter."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return len(content) > 4 and google_crc32c.value(content[:-4]) == int.from_bytes(content[-4:], "little")


class _UsedFiles:
    """Which chunk files the snapshots use.

    Attributes
    ----------
    array_of
        Path of the array of each file that some snapshot uses.
    is_partial
        Some manifest could not be read.
    """

    def __init__(self, history: _History, folder: Path, names: Iterable[str]) -> None:
        self.problems: list[Problem] = []
        self.array_of: dict[str, str] = {}
        self.is_partial = bool(history.problems)
        index = _ChunkIndex(names)
        files_of: dict[str, frozenset[str]] = {}
        current = history.manifests.get(history.snapshot_id, {})
        self.is_partial |= history.snapshot_id not in history.manifests
        for manifest, n_chunks in {one: n for ones in history.manifests.values() for one, n in ones.items()}.items():
            path = history.array_of.get(manifest, "an array")
            kind = ProblemKind.FILE if manifest in current else ProblemKind.HISTORY
            try:
                found = files_of[manifest] = index.files_in(folder / "manifests" / manifest)
            except (OSError, pa.ArrowInvalid) as error:
                self.is_partial = True
                text = f"this manifest of {path} cannot be read ({first_line(error)})"
                self.problems.append(Problem(kind=kind, path=f"manifests/{manifest}", text=text))
                continue
            self.array_of |= dict.fromkeys(found, path)
            if len(found) < n_chunks:
                text = f"{n_chunks - len(found):,} of {n_chunks:,} chunk files of {path} that it names are missing"
                self.problems.append(Problem(kind=kind, path=f"manifests/{manifest}", text=text))
        files = {
            one: frozenset().union(*(files_of.get(manifest, ()) for manifest in manifests))
            for one, manifests in history.manifests.items()
        }
        self.current = files.get(history.snapshot_id, frozenset())
        self.replaced = self._replaced(history, files)

    def _replaced(self, history: _History, files: Mapping[str, frozenset[str]]) -> set[str]:
        """Files of images that a rebuild put others in place of."""
        replaced: set[str] = set()
        for one in history.snapshots.values():
            if one.metadata.get("operation") != "rebuild" or one.id not in files:
                continue
            base = one.metadata.get("base")
            # where the snapshot that it mended is expired, all older ones stand for it
            older = [base] if base in files else [
                other.id for other in history.snapshots.values() if other.written_at < one.written_at
            ]  # fmt: skip
            replaced |= frozenset().union(*(files.get(other, ()) for other in older)) - files[one.id]
        return {name for name in replaced if self.array_of[name] in _IMAGE_SHAPES}

    def problem(self, name: str) -> Problem:
        """What a damaged file means."""
        text = "its bytes do not have the CRC-32C with which they end: it is a chunk"
        text += f" of {self.array_of[name]}" if name in self.array_of else ""
        if name in self.current:
            kind = ProblemKind.FILE
        elif name in self.replaced:
            kind, text = (
                ProblemKind.REPLACED,
                f"{text} that a rebuild has replaced: expire old snapshots (`galstore gc`)",
            )
        else:
            kind, text = ProblemKind.HISTORY, f"{text} that only other snapshots use: expire them (`galstore gc`)"
        return Problem(kind=kind, path=f"chunks/{name}", text=text)


class _ChunkIndex:
    """The ids behind the names of chunk files, to be looked for in manifests."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = {chunk_id: name for name in names if (chunk_id := _chunk_id(name))}
        self.heads = np.sort(np.frombuffer(b"".join(one[:8] for one in self.names), dtype="<u8"))

    def files_in(self, manifest: Path) -> frozenset[str]:
        """Names of the chunk files that a manifest refers to.

        Raises
        ------
        OSError, pyarrow.ArrowInvalid
            It is missing or damaged.
        """
        raw = manifest.read_bytes()
        body = raw[_MANIFEST_HEADER_BYTES:]
        if raw[_MANIFEST_HEADER_BYTES - 1 : _MANIFEST_HEADER_BYTES] == b"\x01":
            body = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read()
        if len(body) < 12 or not self.heads.size:
            return frozenset()
        windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(body, dtype=np.uint8), 8)
        heads = np.ascontiguousarray(windows).view("<u8").ravel()
        places = np.minimum(np.searchsorted(self.heads, heads), self.heads.size - 1)
        candidates = np.flatnonzero(self.heads[places] == heads)
        found = (self.names.get(body[place : place + 12]) for place in candidates)
        return frozenset(name for name in found if name)


def _chunk_id(name: str) -> bytes:
    """The 12 bytes behind the name of a chunk file; none where it is no such name."""
    if len(name) != _ID_CHARACTERS or not name.isascii():
        return b""
    try:
        return base64.b32decode(name.translate(_TO_RFC_4648) + "====")
    except ValueError:
        return b""


def _check_labels(repository: icechunk.Repository, history: _History, root: zarr.Group) -> list[Problem]:
    """Every superseded version of the labels is still there, by its tag or, until its run ends, in the history."""
    views = root.get("labels")
    tags = repository.list_tags()
    problems = []
    for name, view in views.groups() if isinstance(views, zarr.Group) else ():
        versions: Any = view.attrs.get("versions", [])
        for entry in versions[1:]:
            tag, snapshot_id = label_tag(name, entry["version"] - 1), str(entry["supersedes"])
            held = repository.lookup_tag(tag) if tag in tags else None
            text = ""
            if held is None and snapshot_id not in history.snapshots:
                text = f"version {entry['version'] - 1} is lost: tag {tag} is missing and its snapshot is expired"
            elif held is not None and held != snapshot_id:
                text = f"tag {tag} names snapshot {held}, the version was superseded in {snapshot_id}"
            if text:
                problems.append(Problem(kind=ProblemKind.LABELS, path=f"labels/{name}", text=text))
    return problems

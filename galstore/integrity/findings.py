"""What a verification found: problems, each with its place, and the sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


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
    INDEX = "index"
    """An index that does not say what the catalog's columns say: `galstore rebuild STORE --index` makes it anew."""
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

"""Results of a verification: totals and problems with their location."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum


class ProblemKind(StrEnum):
    """Kinds of problems, worst first."""

    FILE = "file"
    """A chunk file or manifest of the snapshot is missing or has a wrong checksum."""
    CHUNK = "chunk"
    """Rows of an array cannot be read."""
    ARRAY = "array"
    """An array is missing, or its length, shape or type differs from the layout."""
    BODY = "body"
    """The delivered bytes of a stored object differ from its state or are not an image."""
    PIXELS = "pixels"
    """The 128 px level differs from the decoded delivered bytes."""
    PYRAMID = "pyramid"
    """A lower level is not the average of the decoded delivered bytes."""
    ORPHAN = "orphan"
    """An object that is not stored has bytes, pixels, a digest or a prediction."""
    STATE = "state"
    """A code is unknown or contradicts another one."""
    COUNT = "count"
    """Stored, quarantined and pending objects do not add up to the registered ones."""
    IDENTITY = "identity"
    """An object id is negative or occurs twice."""
    INDEX = "index"
    """An index differs from the columns of the catalog; `galstore rebuild STORE --index` repairs it."""
    LABELS = "labels"
    """A superseded version of the labels can no longer be read."""
    HISTORY = "history"
    """A chunk file used only by other snapshots is damaged, or part of the history cannot be read."""
    REPLACED = "replaced"
    """Like `HISTORY`, but a rebuild has replaced the chunk: only old snapshots need it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Problem found by a verification; `row` and `object_id` are those of the first affected object, if known."""

    kind: ProblemKind
    path: str
    """Array, such as `images/64/pixels`, or file, such as `chunks/JGXHC6KHPAE8SRHHRYK0`."""
    text: str
    block: int | None = None
    """Number of the block of 1,024 rows; None if it is unknown or the chunk spans several blocks."""
    row: int | None = None
    object_id: int | None = None

    @property
    def where(self) -> str:
        parts = (("block", self.block), ("row", self.row), ("object", self.object_id))
        return ", ".join([self.path, *(f"{name} {value}" for name, value in parts if value is not None)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Result of a verification."""

    path: str
    snapshot_id: str
    n_objects: int
    n_blocks: int
    n_chunks: int
    """Number of chunks of the snapshot; all were read."""
    n_bytes: int
    """Decompressed bytes of the arrays."""
    n_files: int = 0
    """Number of chunk files of all snapshots of a local cube; all were read. 0 on an object store."""
    file_bytes: int = 0
    n_garbage: int = 0
    """Number of chunk files that no snapshot uses; damage in `n_garbage_damaged` of them is harmless."""
    garbage_bytes: int = 0
    n_garbage_damaged: int = 0
    problems: tuple[Problem, ...]
    """Problems, worst first."""

    @property
    def ok(self) -> bool:
        """True without problems other than chunks of old snapshots that a rebuild has replaced."""
        return all(problem.kind is ProblemKind.REPLACED for problem in self.problems)

    @property
    def is_sound(self) -> bool:
        """True without problems of the snapshot itself; its history may be damaged."""
        return all(problem.kind in (ProblemKind.HISTORY, ProblemKind.REPLACED) for problem in self.problems)

    @property
    def summary(self) -> str:
        read = f"{self.n_objects:,} objects in {self.n_blocks:,} blocks, {self.n_chunks:,} chunks"
        if self.n_files:
            read += f", {self.n_files:,} chunk files of all snapshots"
        counts = Counter(problem.kind for problem in self.problems)
        n_replaced = counts.pop(ProblemKind.REPLACED, 0)
        found = ", ".join(f"{n:,} {kind}" for kind, n in counts.items())
        text = f"{self.path} is {'sound' if self.ok else 'damaged'} ({read})" + (f": {found}" if found else "")
        if n_replaced:
            text += f"; {n_replaced:,} damaged chunk files of older snapshots, already replaced"
            text += ": `galstore gc` expires them"
        if self.n_garbage:
            text += f"; {self.n_garbage:,} files without a snapshot ({self.garbage_bytes:,} bytes)"
            text += ": `galstore gc` frees them"
        return text

    def to_dict(self) -> dict[str, object]:
        return {"ok": self.ok, "is_sound": self.is_sound, **asdict(self)}

"""Training sets: which rows train, validate and test for one target, with the hash that names them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from galstore.reader import Cube
from galstore.splits import Split, split_of
from schemas.cutouts import Status
from schemas.errors import TrainingError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Stored objects with a label, and their split.

    Attributes
    ----------
    target
        Name of the label.
    rows
        Row numbers in the cube, ascending, shape (n,).
    object_ids
        Shape (n,).
    labels
        Shape (n,), float64, never NaN.
    split
        Code of `Split`, shape (n,).
    snapshot_id
        The commit that it was read from.
    """

    target: str
    rows: npt.NDArray[np.int64]
    object_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float64]
    split: npt.NDArray[np.int8]
    snapshot_id: str

    @property
    def content_hash(self) -> str:
        """SHA-256 over ids, labels and split in the order of the ids: the same objects give the same hash anywhere."""
        order = np.argsort(self.object_ids, kind="stable")
        digest = hashlib.sha256(self.target.encode())
        for values, dtype in ((self.object_ids, "<i8"), (self.labels, "<f8"), (self.split, "<i1")):
            digest.update(np.ascontiguousarray(values[order], dtype=dtype).tobytes())
        return digest.hexdigest()

    def indices(self, split: Split) -> npt.NDArray[np.int64]:
        """Positions in this set (not row numbers) of one split."""
        return np.flatnonzero(self.split == split)

    @property
    def evaluation_split(self) -> Split:
        """The split that a report judges by: test, or validation where a recipe leaves no test split."""
        return Split.TEST if (self.split == Split.TEST).any() else Split.VALIDATION


def build_training_set(cube: Cube, target: str, *, train: float, validation: float, seed: int = 0) -> TrainingSet:
    """Every stored object with a label for this target, split by a stable hash of its id.

    Raises
    ------
    TrainingError
        Nothing to train or to validate on.
    StoreError
        The cube has no such label.
    """
    labels = cube.read_label(target)
    rows = np.flatnonzero((cube.read_state("status") == Status.STORED) & np.isfinite(labels))
    object_ids = cube.read_catalog(["object_id"])["object_id"].to_numpy()[rows]
    split = split_of(object_ids, train=train, validation=validation, seed=seed)
    for needed in (Split.TRAIN, Split.VALIDATION):
        if not (split == needed).any():
            raise TrainingError(
                f"no galaxy with a stored cutout and a label {target!r} is in the {needed.name.lower()} split "
                f"({rows.size} in all): ingest more objects, or change the shares under [split]"
            )
    return TrainingSet(
        target=target, rows=rows, object_ids=object_ids, labels=labels[rows], split=split,
        snapshot_id=cube.snapshot_id,
    )  # fmt: skip

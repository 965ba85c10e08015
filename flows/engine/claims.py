"""Claims: how several runs that score one cube share its blocks, so that none is scored twice.

A claim is a small locked file beside a local cube. It is held from before a block is read until its predictions are
committed. The operating system gives it up when its process ends, however it ends, so that a killed run's blocks are
free at once. An object store has no such locks: there, every run begins at another block and looks at the tip before it
takes one, so that runs meet late; where two take the same one at the same time, both write the same values.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from galstore.cube.commits import BRANCH, open_repository
from galstore.cube.reader import Cube, open_cube
from galstore.cube.storage import is_remote
from schemas.cutouts import Status

N_FILES = 256
"""Lock files of one set of predictions: blocks that are so many apart share one. A run holds a few dozen at most."""

POLL_S = 0.2


class Claims:
    """A run's claims on blocks of a cube; a context manager that gives up what is still held. Threads may share it.

    Parameters
    ----------
    path
        Place of the cube.
    predictions_id
        Of which predictions: runs with other models do not meet.
    """

    def __init__(self, path: str, predictions_id: str) -> None:
        self._folder = None if is_remote(path) else claims_folder(path) / predictions_id
        self._held: dict[int, FileLock] = {}
        self._turn = threading.Lock()

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(list(self._held))

    def take(self, block: int) -> bool:
        """Claim a block by its index; False where another run, or this one, has it. On an object store always True."""
        if self._folder is None:
            return True
        self._folder.mkdir(parents=True, exist_ok=True)
        # blocks are claimed in one thread and released in another
        lock = FileLock(self._folder / f"{block % N_FILES:03d}.lock", thread_local=False)
        with self._turn:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return False
            self._held[block] = lock
        return True

    def in_order(self, blocks: Sequence[int]) -> list[int]:
        """Blocks as this run takes them: in their order, on an object store from a place of its own on."""
        start = 0 if self._folder is not None or not blocks else uuid4().int % len(blocks)
        return [*blocks[start:], *blocks[:start]]

    def release(self, blocks: Collection[int]) -> None:
        """Give up claims; what is not held is left out."""
        with self._turn:
            for block in blocks:
                lock = self._held.pop(block, None)
                if lock is not None:
                    lock.release()

    def wait_for(self, blocks: Collection[int]) -> None:
        """Until one of these blocks, at least, is free."""
        while True:
            for block in blocks:
                if self.take(block):
                    self.release([block])
                    return
            time.sleep(POLL_S)


def claims_folder(path: str) -> Path:
    """Where the claims on a local cube's blocks are: beside it."""
    folder = Path(path).expanduser()
    return folder.with_name(f"{folder.name}.claims")


class Tip:
    """A cube as of its last commit, opened again only where there is a new one. Threads may share it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._cube = open_cube(path)
        self._turn = threading.Lock()

    def open(self) -> Cube:
        """The cube as it is now."""
        with self._turn:
            if open_repository(self._path).lookup_branch(BRANCH) != self._cube.snapshot_id:
                self._cube = open_cube(self._path)
            return self._cube


def still_unscored(cube: Cube, predictions_id: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Those of some ascending rows, each once, that have a stored cutout and no prediction, by their chunks alone."""
    names = ["state/status"]
    if predictions_id in cube.group_names("predictions"):
        names.append(f"predictions/{predictions_id}/mean")
    values = cube.read_values(names, rows)
    wanted = values["state/status"] == Status.STORED
    if len(names) > 1:
        wanted &= np.isnan(values[names[1]])
    unscored: npt.NDArray[np.int64] = rows[wanted]
    return unscored

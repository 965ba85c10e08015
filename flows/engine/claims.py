"""Claims on blocks of a cube, so that several runs can score one cube and no block is scored twice.

A claim is a small locked file beside a local cube. It is held from before a block is read until its predictions are
committed. The operating system releases it when the process ends, so that the blocks of a killed run are free at once.
Object stores do not support locks: there, each run starts at a random block and checks the last commit before it takes
a block. If two runs take the same block at the same time, both write the same values.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from secrets import randbelow
from typing import Self

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from galstore.cube.commits import BRANCH, open_repository
from galstore.cube.reader import Cube, open_cube
from galstore.cube.storage import is_remote
from schemas.cutouts import Status

N_FILES = 256
"""Number of lock files for one set of predictions; blocks share file `block % N_FILES`. A run holds a few dozen."""

POLL_S = 0.2


class BlockClaims:
    """Claims of one run on blocks of a cube; a context manager that releases them. Threads may share it.

    Parameters
    ----------
    path
        Path of the cube.
    predictions_id
        Id of the predictions; runs with other models have separate claims.
    """

    def __init__(self, path: str, predictions_id: str) -> None:
        self._folder = None if is_remote(path) else claims_folder(path) / predictions_id
        self._held: dict[int, FileLock] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release(list(self._held))

    def claim(self, block: int) -> bool:
        """Claim a block; return False if it is claimed already. Always True on an object store."""
        if self._folder is None:
            return True
        self._folder.mkdir(parents=True, exist_ok=True)
        # blocks are claimed in one thread and released in another
        file_lock = FileLock(self._folder / f"{block % N_FILES:03d}.lock", thread_local=False)
        with self._lock:
            try:
                file_lock.acquire(blocking=False)
            except Timeout:
                return False
            self._held[block] = file_lock
        return True

    def order_blocks(self, blocks: Sequence[int]) -> list[int]:
        """Return blocks in the order of claiming; on an object store, starting at a random one."""
        start = 0 if self._folder is not None or not blocks else randbelow(len(blocks))
        return [*blocks[start:], *blocks[:start]]

    def release(self, blocks: Collection[int]) -> None:
        """Release claims; blocks without a claim are ignored."""
        with self._lock:
            for block in blocks:
                file_lock = self._held.pop(block, None)
                if file_lock is not None:
                    file_lock.release()

    def wait_for(self, blocks: Collection[int]) -> None:
        """Wait until at least one of these blocks is free."""
        while True:
            for block in blocks:
                if self.claim(block):
                    self.release([block])
                    return
            time.sleep(POLL_S)


def claims_folder(path: str) -> Path:
    """Return the folder beside a local cube that holds its lock files."""
    folder = Path(path).expanduser()
    return folder.with_name(f"{folder.name}.claims")


class LatestCube:
    """Reader of a cube's last commit; opens the cube again only after a new commit. Threads may share it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._cube = open_cube(path)
        self._lock = threading.Lock()

    def open(self) -> Cube:
        """Return the cube at its last commit."""
        with self._lock:
            if open_repository(self._path).lookup_branch(BRANCH) != self._cube.snapshot_id:
                self._cube = open_cube(self._path)
            return self._cube


def still_unscored(cube: Cube, predictions_id: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the rows with a stored cutout and without a prediction; only the chunks of these rows are read.

    Parameters
    ----------
    rows
        Ascending and unique.
    """
    names = ["state/status"]
    if predictions_id in cube.group_names("predictions"):
        names.append(f"predictions/{predictions_id}/mean")
    values = cube.read_values(names, rows)
    is_unscored = values["state/status"] == Status.STORED
    if len(names) > 1:
        is_unscored &= np.isnan(values[names[1]])
    unscored: npt.NDArray[np.int64] = rows[is_unscored]
    return unscored

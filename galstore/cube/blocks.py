"""Blocks: 1,024 consecutive rows, the unit of fetching, writing, scoring and retrying."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.cube import BLOCK_ROWS


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """Rows `start` to `stop` of the cube. The last block of a cube may be shorter than the others."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.start % BLOCK_ROWS or not self.start < self.stop <= self.start + BLOCK_ROWS:
            raise ValueError(f"rows {self.start}-{self.stop} are no block: blocks start at multiples of {BLOCK_ROWS}")

    @property
    def index(self) -> int:
        return self.start // BLOCK_ROWS

    @property
    def n_objects(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


def blocks_with(is_marked: npt.NDArray[np.bool_]) -> tuple[Block, ...]:
    """Return the blocks with at least one marked row; `is_marked` has one flag per object.

    Examples
    --------
    >>> blocks_with(np.arange(3000) == 1500)
    (Block(start=1024, stop=2048),)
    """
    starts = np.unique(np.flatnonzero(is_marked) // BLOCK_ROWS) * BLOCK_ROWS
    return tuple(Block(int(start), int(min(start + BLOCK_ROWS, is_marked.size))) for start in starts)

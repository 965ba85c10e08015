"""Layout of the cube: levels, chunks, names. The data plane creates and checks stores by this page."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.cutouts import SIDE_PX

SCHEMA_VERSION = 1

BLOCK_ROWS = 1024
"""Rows of one block, the unit of work: a killed task repeats half a minute of downloads, not ten."""

LEVELS = (128, 64, 32, 16, 8, 4, 2, 1)
"""Sides of the resolution pyramid, in pixels (paper, §4.3)."""

DELIVERED_BYTES = 16_384
"""Bytes kept for one delivered body. SDSS cutouts have 1.5-2.7 kB; the padding compresses to nothing."""

CATALOG_CHUNK_ROWS = 16_384
"""Columns are written by the committer alone, so their chunks may span blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of the pyramid as it is stored.

    Values are counts of the delivered 8-bit image, averaged over areas. `stored = counts / scale_factor`.
    """

    side_px: int
    dtype: str
    scale_factor: float
    """Counts per stored unit (CF `scale_factor`). The 16 px level and below keep 1/256 count: there, 8 bits fold
    different galaxies into one colour."""
    chunk_rows: int

    @property
    def path(self) -> str:
        return f"images/{self.side_px}/pixels"

    @property
    def shrink(self) -> int:
        """How many pixels of the finest level one pixel spans along a side."""
        return SIDE_PX // self.side_px


_CHUNK_ROWS = {128: 64, 64: 128, 32: 256}

LEVEL = {
    side: Level(
        side_px=side,
        dtype="uint8" if side >= 32 else "uint16",
        scale_factor=1.0 if side >= 32 else 1 / 256,
        chunk_rows=_CHUNK_ROWS.get(side, BLOCK_ROWS),
    )
    for side in LEVELS
}
"""Every level by its side. Chunks divide blocks, so that two tasks never touch one chunk."""

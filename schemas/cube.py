"""Layout of the cube: levels of the pyramid, chunks, and columns of each group."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from enum import IntEnum

from schemas.catalog import RejectReason
from schemas.cutouts import SIDE_PX, Reason, Status

SCHEMA_VERSION = 3

BLOCK_ROWS = 1024
"""Rows of one block, the unit of work. A killed task repeats half a minute of downloads."""

LEVELS = (128, 64, 32, 16, 8, 4, 2, 1)
"""Sides of the resolution pyramid, in pixels (paper, §4.3)."""

DELIVERED_BYTES = 16_384
"""Bytes reserved for one response body. SDSS cutouts have 1.5-2.7 kB; the padding compresses well."""

CATALOG_CHUNK_ROWS = 16_384
"""Chunks of columns may span blocks, because only the committing process writes columns."""


@dataclass(frozen=True, slots=True)
class Level:
    """Level of the resolution pyramid.

    Pixels are area averages of the 8-bit image in counts. `stored = counts / scale_factor` (CF). Levels of 16 px and
    below resolve 1/256 count: with 8 bits, different galaxies would have equal pixels.
    """

    side_px: int
    dtype: str
    scale_factor: float
    chunk_rows: int

    @property
    def path(self) -> str:
        return f"images/{self.side_px}/pixels"

    @property
    def shrink(self) -> int:
        """Pixels of the finest level along one side of a pixel."""
        return SIDE_PX // self.side_px


LEVEL = {side: Level(side, "uint8", 1.0, 8192 // side) for side in LEVELS if side >= 32} | {
    side: Level(side, "uint16", 1 / 256, BLOCK_ROWS) for side in LEVELS if side < 32
}
"""Levels by side in pixels. Chunks divide blocks, so that two tasks never write the same chunk."""


class Listing(IntEnum):
    """Presence of an object in its catalog. A vanished object keeps its row and image."""

    LISTED = 0
    VANISHED = 1


@dataclass(frozen=True, slots=True)
class StateColumn:
    """One-dimensional array of `/state`, `/index`, `/rejected` or `/refused`.

    `flags` are the codes of the column, written as CF `flag_values` and `flag_meanings`.
    """

    name: str
    dtype: str
    fill: float
    description: str
    _: KW_ONLY
    unit: str = ""
    flags: type[IntEnum] | None = None
    width: int = 1


_SCALE = "Pixel scale of the 128 px image; NaN = set by the service"

STATE_COLUMNS = (
    StateColumn("status", "uint8", Status.PENDING, "State of the cutout", flags=Status),
    StateColumn("reason", "uint8", Reason.NONE, "Reason of the quarantine", flags=Reason),
    StateColumn("attempts", "uint16", 0, "Number of requests for the cutout"),
    StateColumn("http_status", "uint16", 0, "Last HTTP status; 0 = no response"),
    StateColumn("catalog", "uint16", 0, "Index into the root attribute `catalogs`"),
    StateColumn("listing", "uint8", Listing.LISTED, "Listed in the catalog", flags=Listing),
    StateColumn("pixel_scale", "float32", math.nan, _SCALE, unit="arcsec.pixel**-1"),
    StateColumn("body_length", "uint32", 0, "Length of the response body", unit="byte"),
    StateColumn("body_sha256", "uint8", 0, "SHA-256 of the response body", width=32),
)
"""Columns of `/state`, written by the committing process together with the pixels."""

INDEX_CHUNK_ROWS = 16_384
"""Rows of a chunk of `/index`. Finding one row of a million takes 2 ms, as with 4,096 rows; finding 1,000 random rows
takes 63 ms instead of 169 ms."""

SKY_INDEX_ORDER = 29
"""HEALPix order of the keys of `/index/sky`: the finest, with cells of 0.4 mas."""

_INDEX_ROW = StateColumn("row", "int64", -1, "Row of the object")

INDEX_COLUMNS = {
    "id": (StateColumn("key", "int64", -1, "Object id, sorted within each segment"), _INDEX_ROW),
    "sky": (
        StateColumn("key", "int64", -1, "HEALPix cell (nested, order 29, ICRS), sorted within each segment"),
        _INDEX_ROW,
        StateColumn("object_id", "int64", -1, "As in the catalog"),
        StateColumn("ra", "float64", math.nan, "As in the catalog", unit="deg"),
        StateColumn("dec", "float64", math.nan, "As in the catalog", unit="deg"),
    ),
}
"""Arrays of `/index/<name>` by name of the index: one entry for each object, in the order of the key."""

REJECTED_COLUMNS = (
    StateColumn("catalog", "uint16", 0, "Index into the root attribute `catalogs`"),
    StateColumn("row", "int64", -1, "Row of the catalog, from 0"),
    StateColumn("object_id", "uint8", 0, "Object id as given, UTF-8", width=32),
    StateColumn("column", "uint8", 0, "Invalid column, UTF-8", width=32),
    StateColumn("reason", "uint8", 0, "Reason of the rejection", flags=RejectReason),
    StateColumn("value", "uint8", 0, "Invalid value as given, UTF-8", width=64),
)
"""Columns of `/rejected`: rejected rows of the last complete download of each catalog."""

MOST_REFUSED = 12
"""Maximum number of refused responses stored for each reason of quarantine."""

REFUSED_COLUMNS = (
    StateColumn("row", "int64", -1, "Row of the object"),
    StateColumn("reason", "uint8", Reason.NONE, "Reason of the quarantine", flags=Reason),
    StateColumn("length", "uint32", 0, "Bytes of `body`; the rest is padding", unit="byte"),
)
"""Columns of `/refused`: responses without a usable image. The group exists from the first refused response."""

LABEL_VIEW = "galspec"
"""Label view of the survey's catalog: MPA-JHU metallicity, mass and star formation rate."""

DELIVERED_CHUNK_ROWS = 128
"""Rows of a chunk of `/delivered/body`."""

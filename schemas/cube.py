"""Layout of the cube: levels of the pyramid, chunks, and columns of each group."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Level of the resolution pyramid.

    Pixels are area averages of the 8-bit image in counts. `stored = counts / scale_factor`.
    """

    side_px: int
    dtype: str
    scale_factor: float
    """Counts per stored unit (CF `scale_factor`). Levels of 16 px and below resolve 1/256 count: with 8 bits, different
    galaxies would have equal pixels."""
    chunk_rows: int

    @property
    def path(self) -> str:
        return f"images/{self.side_px}/pixels"

    @property
    def shrink(self) -> int:
        """Pixels of the finest level along one side of a pixel."""
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
"""Levels by side in pixels. Chunks divide blocks, so that two tasks never write the same chunk."""


class Listing(IntEnum):
    """Presence of an object in its catalog. A vanished object keeps its row and image."""

    LISTED = 0
    VANISHED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StateColumn:
    """One-dimensional array of `/state`, `/index`, `/rejected` or `/refused`."""

    name: str
    dtype: str
    fill: float
    description: str
    unit: str = ""
    flags: type[IntEnum] | None = None
    """Codes of the column, written as CF `flag_values` and `flag_meanings`."""
    width: int = 1


STATE_COLUMNS = (
    StateColumn(name="status", dtype="uint8", fill=Status.PENDING, flags=Status, description="State of the cutout"),
    StateColumn(name="reason", dtype="uint8", fill=Reason.NONE, flags=Reason, description="Reason of the quarantine"),
    StateColumn(name="attempts", dtype="uint16", fill=0, description="Number of requests for the cutout"),
    StateColumn(name="http_status", dtype="uint16", fill=0, description="Last HTTP status; 0 = no response"),
    StateColumn(name="catalog", dtype="uint16", fill=0, description="Index into the root attribute `catalogs`"),
    StateColumn(name="listing", dtype="uint8", fill=Listing.LISTED, flags=Listing, description="Listed in the catalog"),
    StateColumn(
        name="pixel_scale",
        dtype="float32",
        fill=float("nan"),
        unit="arcsec.pixel**-1",
        description="Pixel scale of the 128 px image; NaN = set by the service",
    ),
    StateColumn(name="body_length", dtype="uint32", fill=0, unit="byte", description="Length of the response body"),
    StateColumn(name="body_sha256", dtype="uint8", fill=0, width=32, description="SHA-256 of the response body"),
)
"""Columns of `/state`, written by the committing process together with the pixels."""

INDEX_CHUNK_ROWS = 16_384
"""Rows of a chunk of `/index`. Finding one row of a million takes 2 ms, as with 4,096 rows; finding 1,000 random rows
takes 63 ms instead of 169 ms."""

SKY_INDEX_ORDER = 29
"""HEALPix order of the keys of `/index/sky`: the finest, with cells of 0.4 mas."""

_INDEX_ROW = StateColumn(name="row", dtype="int64", fill=-1, description="Row of the object")

INDEX_COLUMNS = {
    "id": (
        StateColumn(name="key", dtype="int64", fill=-1, description="Object id, sorted within each segment"),
        _INDEX_ROW,
    ),
    "sky": (
        StateColumn(
            name="key",
            dtype="int64",
            fill=-1,
            description="HEALPix cell (nested, order 29, ICRS), sorted within each segment",
        ),
        _INDEX_ROW,
        StateColumn(name="object_id", dtype="int64", fill=-1, description="As in the catalog"),
        StateColumn(name="ra", dtype="float64", fill=float("nan"), unit="deg", description="As in the catalog"),
        StateColumn(name="dec", dtype="float64", fill=float("nan"), unit="deg", description="As in the catalog"),
    ),
}
"""Arrays of `/index/<name>` by name of the index: one entry for each object, in the order of the key."""

REJECTED_COLUMNS = (
    StateColumn(name="catalog", dtype="uint16", fill=0, description="Index into the root attribute `catalogs`"),
    StateColumn(name="row", dtype="int64", fill=-1, description="Row of the catalog, from 0"),
    StateColumn(name="object_id", dtype="uint8", fill=0, width=32, description="Object id as given, UTF-8"),
    StateColumn(name="column", dtype="uint8", fill=0, width=32, description="Invalid column, UTF-8"),
    StateColumn(name="reason", dtype="uint8", fill=0, flags=RejectReason, description="Reason of the rejection"),
    StateColumn(name="value", dtype="uint8", fill=0, width=64, description="Invalid value as given, UTF-8"),
)
"""Columns of `/rejected`: rejected rows of the last complete download of each catalog."""

MOST_REFUSED = 12
"""Maximum number of refused responses stored for each reason of quarantine."""

REFUSED_COLUMNS = (
    StateColumn(name="row", dtype="int64", fill=-1, description="Row of the object"),
    StateColumn(name="reason", dtype="uint8", fill=Reason.NONE, flags=Reason, description="Reason of the quarantine"),
    StateColumn(name="length", dtype="uint32", fill=0, unit="byte", description="Bytes of `body`; the rest is padding"),
)
"""Columns of `/refused`: responses without a usable image. The group exists from the first refused response."""

LABEL_VIEW = "galspec"
"""Label view of the survey's catalog: MPA-JHU metallicity, mass and star formation rate."""

DELIVERED_CHUNK_ROWS = 128
"""Rows of a chunk of `/delivered/body`."""

"""Layout of the cube: levels, chunks, names. The data plane creates and checks stores by this page."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from schemas.cutouts import SIDE_PX, Reason, Status
from schemas.rejections import RejectReason

SCHEMA_VERSION = 3

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


class Listing(IntEnum):
    """Whether an object's catalog still has it. What has vanished keeps its row, its image and its flag."""

    LISTED = 0
    VANISHED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StateColumn:
    """One array of `/state` (what is known about each object) or `/rejected` (about each row that got no object)."""

    name: str
    dtype: str
    fill: float
    description: str
    unit: str = ""
    flags: type[IntEnum] | None = None
    """The codes of the column, written as CF `flag_values` and `flag_meanings`."""
    width: int = 1


STATE_COLUMNS = (
    StateColumn(name="status", dtype="uint8", fill=Status.PENDING, flags=Status, description="Where the cutout stands"),
    StateColumn(name="reason", dtype="uint8", fill=Reason.NONE, flags=Reason, description="Why it was quarantined"),
    StateColumn(name="attempts", dtype="uint16", fill=0, description="Requests that the cutout took"),
    StateColumn(name="http_status", dtype="uint16", fill=0, description="Last HTTP status; 0 = no answer came"),
    StateColumn(name="catalog", dtype="uint16", fill=0, description="Index into the root attribute `catalogs`"),
    StateColumn(name="listing", dtype="uint8", fill=Listing.LISTED, flags=Listing, description="In its catalog?"),
    StateColumn(
        name="pixel_scale", dtype="float32", fill=float("nan"), unit="arcsec.pixel**-1",
        description="Scale at which the 128 px image was asked for; NaN = the service's own",
    ),
    StateColumn(name="body_length", dtype="uint32", fill=0, unit="byte", description="Length of the delivered body"),
    StateColumn(name="body_sha256", dtype="uint8", fill=0, width=32, description="SHA-256 of the delivered body"),
)  # fmt: skip
"""Written by the committer alone, with the commit that brings the pixels."""

INDEX_CHUNK_ROWS = 16_384
"""Chunks of `/index`. One row is found among a million as fast as with 4,096 (2 ms), 1,000 random ones in 63 ms, not
169."""

SKY_INDEX_ORDER = 29
"""HEALPix order of the keys of `/index/sky`, the finest: cells of 0.4 mas."""

_INDEX_ROW = StateColumn(name="row", dtype="int64", fill=-1, description="Row of the object")

INDEX_COLUMNS = {
    "id": (
        StateColumn(name="key", dtype="int64", fill=-1, description="Object id, sorted within each segment"),
        _INDEX_ROW,
    ),
    "sky": (
        StateColumn(
            name="key", dtype="int64", fill=-1,
            description="HEALPix cell (nested, order 29, ICRS), sorted within each segment",
        ),
        _INDEX_ROW,
        StateColumn(name="object_id", dtype="int64", fill=-1, description="As in the catalog"),
        StateColumn(name="ra", dtype="float64", fill=float("nan"), unit="deg", description="As in the catalog"),
        StateColumn(name="dec", dtype="float64", fill=float("nan"), unit="deg", description="As in the catalog"),
    ),
}  # fmt: skip
"""By index, the arrays of `/index/<name>`: one entry for each object, in the order of the key."""

REJECTED_COLUMNS = (
    StateColumn(name="catalog", dtype="uint16", fill=0, description="Index into the root attribute `catalogs`"),
    StateColumn(name="row", dtype="int64", fill=-1, description="Row of the delivered catalog, from 0"),
    StateColumn(name="object_id", dtype="uint8", fill=0, width=32, description="Object id as delivered, UTF-8"),
    StateColumn(name="column", dtype="uint8", fill=0, width=32, description="Column at fault, UTF-8"),
    StateColumn(name="reason", dtype="uint8", fill=0, flags=RejectReason, description="Why the row cannot be kept"),
    StateColumn(name="value", dtype="uint8", fill=0, width=64, description="The value at fault as delivered, UTF-8"),
)
"""Rows of catalogs that were not registered, as of the last whole delivery of each catalog."""

MOST_REFUSED = 12
"""Refused answers that are kept for each reason of quarantine, to be looked at."""

REFUSED_COLUMNS = (
    StateColumn(name="row", dtype="int64", fill=-1, description="Row of the object"),
    StateColumn(name="reason", dtype="uint8", fill=Reason.NONE, flags=Reason, description="Why it was refused"),
    StateColumn(name="length", dtype="uint32", fill=0, unit="byte", description="Bytes of `body`, the rest is padding"),
)
"""Answers that came in place of an image, beside `body`; there from the first one on."""

LABEL_VIEW = "galspec"
"""Name of the label view that a survey's catalog brings: MPA-JHU metallicity, mass and star formation rate."""

DELIVERED_CHUNK_ROWS = 128

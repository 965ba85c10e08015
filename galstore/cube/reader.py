"""Read access to one snapshot of the cube."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.arrays import (
    AnyArray,
    Attributes,
    Values,
    read_attributes,
    read_chunks_into,
    require_array,
    require_group,
)
from galstore.cube.columns import ColumnCache
from galstore.cube.commits import BRANCH, open_repository
from galstore.cube.index.lookup import entries_in_cone, open_index
from galstore.cube.index.segments import SegmentIndex
from schemas.catalog import REJECTED_TABLE_COLUMNS, RejectReason
from schemas.cube import BLOCK_ROWS, LABEL_VIEW, LEVEL, LEVELS, REJECTED_COLUMNS, SCHEMA_VERSION, STATE_COLUMNS, Level
from schemas.cutouts import BANDS, Composite, CutoutScale, ScaleRule, Status
from schemas.errors import CatalogError, StoreError

if TYPE_CHECKING:
    import xarray as xr

TEXT_COLUMNS = tuple(column.name for column in REJECTED_COLUMNS if column.width > 1)
"""Columns of the rejected rows that hold UTF-8, padded with zeros."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Number of objects by status; `registered` is always the sum of the others."""

    registered: int
    stored: int
    quarantined: int
    pending: int

    @property
    def add_up(self) -> bool:
        return self.stored + self.quarantined + self.pending == self.registered


class Cube:
    """One snapshot of a cube, read-only. It never sees another commit than `snapshot_id`."""

    def __init__(self, path: str, session: icechunk.Session) -> None:
        self.path = path
        self.snapshot_id: str = session.snapshot_id
        self.store = session.store
        self._root = zarr.open_group(session.store, mode="r")
        # opening an array or an index costs as much as reading one chunk, and a snapshot never changes
        self._arrays: dict[str, AnyArray] = {}
        self._indexes: dict[str, SegmentIndex] = {}
        self._columns = ColumnCache()
        self._group_names: dict[str, tuple[str, ...]] = {}
        version = self.attributes.get("schema_version")
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"the cube at {path} has schema version {version}, this galstore reads {SCHEMA_VERSION}: use a "
                "matching galstore"
            )

    @property
    def attributes(self) -> Attributes:
        return read_attributes(self._root)

    @property
    def scale(self) -> CutoutScale:
        attributes = self.attributes
        return CutoutScale(
            rule=ScaleRule(attributes["scale_rule"]),
            arcsec_per_px=attributes["scale_arcsec_per_px"],
            composite=Composite(attributes.get("composite", Composite.SKYSERVER)),
        )

    @property
    def n_objects(self) -> int:
        return int(self.array("state/status").shape[0])

    def array(self, name: str) -> AnyArray:
        """Return a Zarr array by its path, such as `images/128/pixels`."""
        if name not in self._arrays:
            self._arrays[name] = require_array(self._root, name)
        return self._arrays[name]

    def group_names(self, name: str) -> tuple[str, ...]:
        """Return the sorted names of the groups inside a group; empty if the group does not exist."""
        if name not in self._group_names:
            node = self._root.get(name)
            self._group_names[name] = tuple(sorted(node.group_keys())) if isinstance(node, zarr.Group) else ()
        return self._group_names[name]

    def array_names(self, name: str) -> tuple[str, ...]:
        """Return the sorted names of the arrays inside a group."""
        return tuple(sorted(require_group(self._root, name).array_keys()))

    def group_attributes(self, name: str) -> Attributes:
        return read_attributes(require_group(self._root, name))

    def read_values(self, names: Sequence[str], rows: npt.NDArray[np.int64]) -> dict[str, Values]:
        """Return values of columns (such as `catalog/ra`) at `rows`, in their order, through the cache."""
        return dict(zip(names, self._columns.take([self.array(name) for name in names], rows), strict=True))

    def read_state(self, name: str) -> Values:
        """Return one column of `/state`, shape (object,) or (object, byte)."""
        known = [column.name for column in STATE_COLUMNS]
        if name not in known:
            raise StoreError(f"{name!r} is not a state column: choose one of {', '.join(known)}")
        return np.asarray(self.array(f"state/{name}")[:])

    def read_catalog(self, names: Sequence[str]) -> pd.DataFrame:
        """Return columns of the catalog, one line per object in row order."""
        return pd.DataFrame({name: np.asarray(self.array(f"catalog/{name}")[:]) for name in names})

    def read_label(self, name: str, *, view: str = LABEL_VIEW) -> npt.NDArray[np.float64]:
        """Return one label, shape (object,); NaN = no label."""
        known = self.array_names(f"labels/{view}")
        if name not in known:
            raise StoreError(f"label {name!r} is not in view {view!r}: choose one of {', '.join(known)}")
        return np.asarray(self.array(f"labels/{view}/{name}")[:], dtype=np.float64)

    def read_label_versions(self, view: str = LABEL_VIEW) -> list[Attributes]:
        """Return the versions of a label view, oldest first; each but the first names the snapshot it `supersedes`."""
        return list(self.group_attributes(f"labels/{view}")["versions"])

    def read_rejected(self) -> pd.DataFrame:
        """Return the rejected rows of all catalogs: `catalog` (name) and `REJECTED_TABLE_COLUMNS`."""
        raw = {column.name: np.asarray(self.array(f"rejected/{column.name}")[:]) for column in REJECTED_COLUMNS}
        names = [str(entry["name"]) for entry in self.attributes["catalogs"]]
        table = {
            "catalog": [names[index] for index in raw["catalog"]],
            "row": raw["row"],
            "reason": [RejectReason(code).name.lower() for code in raw["reason"]],
            **{name: [text.tobytes().rstrip(b"\0").decode() for text in raw[name]] for name in TEXT_COLUMNS},
        }
        return pd.DataFrame(table)[["catalog", *REJECTED_TABLE_COLUMNS]]

    def counts(self) -> Counts:
        tally = np.bincount(self.read_state("status"), minlength=len(Status))
        return Counts(
            registered=self.n_objects,
            stored=int(tally[Status.STORED]),
            quarantined=int(tally[Status.QUARANTINED]),
            pending=int(tally[Status.PENDING]),
        )

    def find_rows(self, object_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the row of each object id, in the same order; -1 = not registered."""
        return self._index("id").rows_of(np.asarray(object_ids, dtype=np.int64))

    def rows_of(self, object_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the row of each object id, in the same order; an unknown id raises `CatalogError`."""
        rows = self.find_rows(object_ids)
        missing = np.asarray(object_ids)[rows < 0]
        if missing.size:
            raise CatalogError(
                f"{missing.size} objects are not registered in {self.path}, the first is {missing[0]}: "
                "ingest them first"
            )
        return rows

    def objects_in_cone(self, ra_deg: float, dec_deg: float, radius_deg: float) -> pd.DataFrame:
        """Return the objects within a radius around a position (ICRS, boundary included), nearest first.

        Columns are row, object_id, ra, dec and separation (along a great circle), the last three in degrees. A position
        or radius out of range raises `PositionError`.
        """
        return pd.DataFrame(entries_in_cone(self._index("sky"), ra_deg, dec_deg, radius_deg))

    def _index(self, name: str) -> SegmentIndex:
        if name not in self._indexes:
            self._indexes[name] = open_index(self._root, name, self._columns)
        return self._indexes[name]

    def read_pixels(self, level: int, rows: npt.NDArray[np.int64], out: Values | None = None) -> Values:
        """Read the images of some objects at one level (side in px), into `out` if given.

        Rows may have any order; ascending ones are read fastest. Images are counts, shape (n, side, side, band), uint8
        at 128, 64 and 32 px and float32 below.

        Raises
        ------
        StoreError
            Unknown level, a row without a stored cutout, or a damaged chunk.
        """
        spec = _level(level)
        array = self.array(spec.path)
        rows = np.asarray(rows, dtype=np.int64)
        shape = (rows.size, level, level, len(BANDS))
        scale = None if spec.scale_factor == 1 else np.float32(spec.scale_factor)
        if out is None:
            out = np.empty(shape, dtype=np.uint8 if scale is None else np.float32)
        elif out.shape != shape:
            raise ValueError(f"out has shape {out.shape}, the {rows.size} images of level {level} have {shape}")
        if not rows.size:
            return out
        missing = self.read_values(["state/status"], rows)["state/status"] != Status.STORED
        if missing.any():
            raise StoreError(
                f"{np.unique(rows[missing]).size} of the objects have no stored cutout, the first is row "
                f"{int(rows[missing].min())}: read stored rows only"
            )
        ascending, places = np.unique(rows, return_inverse=True)
        in_order = ascending.size == rows.size and np.array_equal(ascending, rows)
        block_starts = np.unique(ascending // BLOCK_ROWS, return_index=True)[1].tolist()
        for start, stop in pairwise([*block_starts, ascending.size]):
            if in_order:
                read_chunks_into(array, ascending[start:stop], out[start:stop], scale)
                continue
            images = np.empty((stop - start, *shape[1:]), dtype=out.dtype)
            read_chunks_into(array, ascending[start:stop], images, scale)
            wanted = np.flatnonzero((places >= start) & (places < stop))
            out[wanted] = images[places[wanted] - start]
        return out

    def read_image(self, level: int, row: int) -> Values:
        """Read the image of one stored object in the units of `read_pixels`, shape (side, side, band)."""
        spec = _level(level)
        stored = np.asarray(self.array(spec.path)[row])
        return stored if spec.scale_factor == 1 else stored * np.float32(spec.scale_factor)

    def read_body(self, row: int) -> bytes:
        """Read the bytes that the survey delivered for one object; empty if none are stored."""
        length = int(self.array("state/body_length")[row])  # type: ignore[arg-type]
        return np.asarray(self.array("delivered/body")[row, :length]).tobytes()

    def to_datatree(self) -> xr.DataTree:
        """Open the whole snapshot as a labelled, lazy xarray tree."""
        # the import takes half a second, which workers and most commands save
        import xarray as xr

        return xr.open_datatree(self.store, engine="zarr", consolidated=False)  # type: ignore[arg-type]


def _level(side_px: int) -> Level:
    if side_px not in LEVELS:
        raise StoreError(f"level {side_px} is not in the cube: choose one of {', '.join(map(str, LEVELS))}")
    return LEVEL[side_px]


def open_cube(path: str, *, snapshot_id: str | None = None, as_of: datetime | None = None) -> Cube:
    """Open a cube at its last commit, at one snapshot, or as it was at a time.

    Without a cube at this path, raise `StoreNotFoundError`; without the snapshot, or one as old as `as_of`,
    `StoreError`.
    """
    repository = open_repository(path)
    try:
        if snapshot_id is not None:
            return Cube(path, repository.readonly_session(snapshot_id=snapshot_id))
        if as_of is not None:
            return Cube(path, repository.readonly_session(BRANCH, as_of=as_of))
    except icechunk.IcechunkError as error:
        missing = f"no snapshot {snapshot_id}" if as_of is None else f"no snapshot as old as {as_of.isoformat()}"
        raise StoreError(
            f"the cube at {path} has {missing} (any more): choose one that `galstore history {path}` lists"
        ) from error
    return Cube(path, repository.readonly_session(BRANCH))

"""Updates of a catalog: pages of rows are compared with the cube, and registered in one commit each.

New objects are appended, changed labels become a new version of the label view, rejected rows are stored with their
reason, and objects that a complete catalog no longer lists are flagged as vanished.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.arrays import Attributes, read_array, read_attributes, require_array
from galstore.cube.commits import commit
from galstore.cube.index.lookup import index_objects, open_index
from galstore.cube.labels import update_labels
from galstore.cube.layout import lengthen
from galstore.ingest.rejected_rows import empty_rejected, reject_repeated, store_rejected
from galstore.survey.row_checks import PreparedCatalog
from schemas.catalog import CATALOG_COLUMNS, LABEL_COLUMNS
from schemas.cube import LABEL_VIEW, Listing

_Flags = npt.NDArray[np.bool_]
_Rows = npt.NDArray[np.int64]

WHOLE_ID = re.compile(r"\d{1,18}|[0-8]\d{18}")
"""Decimal numbers below 9 x 10^18, which fit into 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Counts of a registered catalog, or of some of its pages: `n_delivered = n_new + n_known + n_rejected`.

    `n_relabelled` known objects got other labels. `n_vanished` objects of the cube are no longer in the catalog.
    """

    n_new: int = 0
    n_known: int = 0
    n_relabelled: int = 0
    n_vanished: int = 0
    rejected: pd.DataFrame = field(default_factory=empty_rejected)
    ignored_columns: tuple[str, ...] = ()

    @property
    def n_rejected(self) -> int:
        return len(self.rejected)

    @property
    def n_delivered(self) -> int:
        return self.n_new + self.n_known + self.n_rejected

    @property
    def rejected_by_reason(self) -> dict[str, int]:
        """Number of rejected rows by column and reason."""
        kinds = self.rejected["column"].astype(str) + " " + self.rejected["reason"].astype(str)
        return {str(kind): int(n) for kind, n in kinds.value_counts().items()}

    def __add__(self, other: Registration) -> Registration:
        rejected = pd.concat([part for part in (self.rejected, other.rejected) if len(part)] or [self.rejected])
        return Registration(
            n_new=self.n_new + other.n_new,
            n_known=self.n_known + other.n_known,
            n_relabelled=self.n_relabelled + other.n_relabelled,
            n_vanished=self.n_vanished + other.n_vanished,
            rejected=rejected.reset_index(drop=True),
            ignored_columns=tuple(dict.fromkeys((*self.ignored_columns, *other.ignored_columns))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogUpdate:
    """One update of a catalog: its name, its source (service, selection, file or hash) and its extent.

    A `whole` update lists the complete catalog, so that its other objects have vanished. Label changes of one run make
    one version of the label view.
    """

    catalog: str
    provenance: Attributes = field(default_factory=dict)
    whole: bool = False
    run_id: str = ""


class SeenRows:
    """Rows that a catalog lists, at one or two bytes per object of the cube."""

    def __init__(self) -> None:
        self._accepted = np.zeros(0, dtype=bool)
        self._rejected = np.zeros(0, dtype=bool)

    def has_accepted(self, rows: _Rows) -> _Flags:
        """Return which rows an earlier page listed in an accepted line; -1 stands for no row."""
        inside = (rows >= 0) & (rows < self._accepted.size)
        return np.asarray(inside & self._accepted[np.where(inside, rows, 0)] if self._accepted.size else inside & False)

    def add(self, accepted: _Rows, *, rejected: _Rows) -> None:
        self._accepted = _set_flags(self._accepted, accepted)
        self._rejected = _set_flags(self._rejected, rejected)

    @property
    def n_accepted(self) -> int:
        return int(np.count_nonzero(self._accepted))

    def listed(self, n_rows: int) -> _Flags:
        """Return which of the first n rows the catalog lists, in accepted or rejected lines, shape (n_rows,)."""
        listed = np.zeros(n_rows, dtype=bool)
        for flags in (self._accepted, self._rejected):
            listed[: flags.size] |= flags[:n_rows]
        return listed


def _set_flags(flags: _Flags, rows: _Rows) -> _Flags:
    if rows.size and rows.max() >= flags.size:
        flags = np.concatenate([flags, np.zeros(int(rows.max()) + 1 - flags.size, dtype=bool)])
    flags[rows] = True
    return flags


def register_page(
    path: str, update: CatalogUpdate, prepared: PreparedCatalog, seen: SeenRows | None = None
) -> Registration:
    """Register one page of a catalog in one commit: append new objects, update changed labels.

    Other columns of known objects keep their first values. The page's rows are added to `seen`, those of earlier pages;
    a repeated row is rejected.
    """
    seen = seen or SeenRows()

    def write(session: icechunk.Session) -> tuple[_Rows, _Rows, Registration]:
        root = zarr.open_group(session.store, mode="a")
        index, n_before = open_index(root, "id"), require_array(root, "catalog/object_id").shape[0]
        rows = index.rows_of(prepared.rows["object_id"].to_numpy(dtype=np.int64))
        is_repeated = seen.has_accepted(rows)
        # an object whose row is rejected this time is still in the catalog
        rejected_rows = index.rows_of(_parse_ids(prepared.rejected["object_id"]))
        rejected_rows = rejected_rows[rejected_rows >= 0]
        is_new = rows < 0
        n_new = int(is_new.sum())
        if n_new:
            _append(root, prepared.rows[is_new], update, first=n_before)
            rows[is_new] = n_before + np.arange(n_new)
        is_known = ~is_new & ~is_repeated
        _unflag_vanished(root, update, np.union1d(rows[is_known], rejected_rows))
        n_relabelled = update_labels(session, root, rows[is_known], prepared.rows[is_known], run_id=update.run_id)
        rejected = (prepared.rejected, reject_repeated(prepared.rows[is_repeated]))
        registration = Registration(
            n_new=n_new,
            n_known=int(is_known.sum()),
            n_relabelled=n_relabelled,
            rejected=pd.concat([table for table in rejected if len(table)] or [empty_rejected()]),
            ignored_columns=prepared.ignored_columns,
        )
        return rows, rejected_rows, registration

    metadata = {"operation": "register", "catalog": update.catalog, "run": update.run_id}
    rows, rejected_rows, registration = commit(path, write, message=f"register {update.catalog}", metadata=metadata)
    seen.add(rows, rejected=rejected_rows)
    return registration


def finish_update(path: str, update: CatalogUpdate, rejected: pd.DataFrame, seen: SeenRows) -> int:
    """Store the rejected rows, flag objects that a whole catalog no longer lists, and return their number."""

    def write(session: icechunk.Session) -> int:
        root = zarr.open_group(session.store, mode="a")
        catalog = _catalog_index(root, update)
        store_rejected(root, catalog, rejected, whole=update.whole)
        if not update.whole or not seen.n_accepted:
            # a catalog without readable rows does not show which objects have vanished
            return 0
        in_catalog = read_array(root, "state/catalog") == catalog
        listing = require_array(root, "state/listing")
        vanished = np.flatnonzero(in_catalog & ~seen.listed(in_catalog.size))
        newly = vanished[read_array(root, "state/listing", vanished) != Listing.VANISHED]
        if newly.size:
            listing.oindex[newly] = Listing.VANISHED
        return int(vanished.size)

    metadata = {"operation": "close delivery", "catalog": update.catalog, "run": update.run_id}
    return commit(path, write, message=f"close delivery of {update.catalog}", metadata=metadata)


def _append(root: zarr.Group, new: pd.DataFrame, update: CatalogUpdate, *, first: int) -> None:
    last = first + len(new)
    lengthen(root, last)
    require_array(root, "state/catalog")[first:last] = _catalog_index(root, update)
    index_objects(root, first, new)
    for group, names in (("catalog", ("object_id", *CATALOG_COLUMNS)), (f"labels/{LABEL_VIEW}", LABEL_COLUMNS)):
        for name in names:
            if name in new:
                require_array(root, f"{group}/{name}")[first:last] = new[name].to_numpy()


def _unflag_vanished(root: zarr.Group, update: CatalogUpdate, rows: _Rows) -> None:
    """Remove the flag from vanished objects that their catalog lists again; `rows` ascend."""
    vanished = rows[read_array(root, "state/listing", rows) == Listing.VANISHED] if rows.size else rows
    names = _catalog_names(root)
    if vanished.size and update.catalog in names:
        in_catalog = read_array(root, "state/catalog", vanished) == names.index(update.catalog)
        if in_catalog.any():
            require_array(root, "state/listing").oindex[vanished[in_catalog]] = Listing.LISTED


def _parse_ids(texts: pd.Series[str]) -> _Rows:
    return np.array([int(text) for text in texts if WHOLE_ID.fullmatch(text)], dtype=np.int64)


def _catalog_names(root: zarr.Group) -> list[str]:
    return [entry["name"] for entry in read_attributes(root)["catalogs"]]


def _catalog_index(root: zarr.Group, update: CatalogUpdate) -> int:
    catalogs, names = list(read_attributes(root)["catalogs"]), _catalog_names(root)
    entry = {"name": update.catalog, **update.provenance}
    if update.catalog not in names:
        root.attrs["catalogs"] = [*catalogs, entry]
        return len(names)
    index = names.index(update.catalog)
    # replace the entry of a file that changed; a service keeps its entry when its address changes
    if update.provenance.get("sha256") != catalogs[index].get("sha256"):
        catalogs[index] = entry
        root.attrs["catalogs"] = catalogs
    return index

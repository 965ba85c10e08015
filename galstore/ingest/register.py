"""Registering: a catalog's new objects get their rows, once; cutouts come later.

Every delivery of a catalog is compared with what the cube holds: new objects are appended, changed labels become a new
version of the label view, rows that cannot be kept are listed with their reason, and objects that a whole delivery no
longer has are flagged as vanished. Each page is one commit, and a last one closes the delivery; a delivery that brings
nothing new commits nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.commits import commit
from galstore.cube.index.lookup import index_objects, open_index
from galstore.cube.labels import keep_label_versions, update_labels
from galstore.cube.layout import lengthen
from galstore.ingest.seen_rows import Roll
from galstore.survey.catalog_files.reader import read_catalog_pages
from galstore.survey.row_checks import PreparedCatalog, prepare_catalog, require_kept_rows
from galstore.survey.skyserver import SkyServer
from galstore.survey.skyserver_sql import count_catalog, query_catalog
from schemas.catalog import CATALOG_COLUMNS, LABEL_COLUMNS
from schemas.cube import LABEL_VIEW, REJECTED_COLUMNS, Listing
from schemas.errors import CatalogError, ServiceError
from schemas.rejections import REJECTED_TABLE_COLUMNS, RejectReason
from schemas.selection import QUERY_COLUMNS, Selection

WHOLE_ID = re.compile(r"\d{1,18}|[0-8]\d{18}")
"""Decimal numbers below 9 x 10^18, which fit into 64 bits."""


def _no_rows() -> pd.DataFrame:
    return pd.DataFrame(columns=list(REJECTED_TABLE_COLUMNS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What registering a catalog, or pages of it, did: `n_delivered = n_new + n_known + n_rejected`.

    `n_relabelled` of the known ones got other labels; `n_vanished` objects are in the cube and no longer in the
    catalog.
    """

    n_new: int = 0
    n_known: int = 0
    n_relabelled: int = 0
    n_vanished: int = 0
    rejected: pd.DataFrame = field(default_factory=_no_rows)
    ignored_columns: tuple[str, ...] = ()

    @property
    def n_rejected(self) -> int:
        return len(self.rejected)

    @property
    def n_delivered(self) -> int:
        return self.n_new + self.n_known + self.n_rejected

    @property
    def rejected_by_reason(self) -> dict[str, int]:
        """Rejected rows by column and reason."""
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
class Delivery:
    """One delivery of a catalog.

    Attributes
    ----------
    catalog
        Name of the catalog, kept once in the cube's `catalogs` and by index for each object.
    provenance
        Where it came from (service, selection, file, hash), kept with its name.
    whole
        It has every row of the catalog, so that objects which it lacks have vanished.
    run_id
        Label changes of one run make one version of the label view.
    """

    catalog: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False
    run_id: str = ""


def register_survey(
    path: str,
    service: SkyServer,
    selection: Selection,
    *,
    survey: str,
    columns: Sequence[str] | None = None,
    limit: int = 0,
    page_rows: int = 50_000,
    whole: bool = True,
    run_id: str = "",
) -> Registration:
    """Query a survey's catalog page by page and register it.

    Parameters
    ----------
    path
        Folder of the cube.
    survey
        Name under which the objects are kept.
    columns, limit, page_rows
        As `query_catalog` takes them; every column of the paper's query by default.
    whole
        The selection is all that the catalog has of the survey, so that objects which it lacks have vanished; with a
        limit it never is.

    Raises
    ------
    CatalogError
        The selection is empty.
    ServiceError
        The service fails, or delivers fewer rows than it counts.
    """
    wanted = tuple(columns) if columns is not None else tuple(QUERY_COLUMNS)
    provenance = {"service": service.base_url, "data_release": service.data_release, "selection": selection.name}
    delivery = Delivery(catalog=survey, provenance=provenance, whole=whole and not limit, run_id=run_id)
    n_counted = count_catalog(service, selection)
    n_expected = min(limit, n_counted) if limit else n_counted
    if n_expected == 0:
        raise CatalogError(
            f"the catalog of {survey} has no rows under selection '{selection.name}': check survey.selection"
        )
    pages = query_catalog(service, selection, columns=wanted, limit=limit, page_rows=page_rows)
    return _register_pages(path, delivery, pages, origin=f"the catalog of {survey}", n_expected=n_expected)


def register_file(
    path: str, catalog: Path, *, name: str = "", page_rows: int = 50_000, run_id: str = ""
) -> tuple[Registration, pd.DataFrame]:
    """Register a user's catalog file, page by page.

    Parameters
    ----------
    path
        Place of the cube.
    catalog
        The file, of any format that `read_catalog_pages` reads.
    name
        Under which the objects are kept; by default the file's name without its ending.

    Returns
    -------
    Registration
        What was new, known and rejected.
    DataFrame
        object_id, ra, dec of the rows that are kept, in the order of the file.
    """
    provenance = {"file": catalog.name, "sha256": file_digest(catalog)}
    delivery = Delivery(catalog=name or catalog.stem, provenance=provenance, whole=True, run_id=run_id)
    kept: list[pd.DataFrame] = []
    done = _register_pages(
        path,
        delivery,
        read_catalog_pages(catalog, page_rows=page_rows),
        origin=str(catalog),
        on_rows=lambda rows: kept.append(rows[["object_id", "ra", "dec"]]),
    )
    # an id that comes again on a later page was rejected there
    return done, pd.concat(kept).drop_duplicates("object_id", ignore_index=True)


def file_digest(file: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises
    ------
    CatalogError
        The file cannot be read.
    """
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise CatalogError(
            f"catalog {file} cannot be read ({error.strerror}): give the path of a file with object_id, ra, dec"
        ) from error


def _register_pages(
    path: str,
    delivery: Delivery,
    pages: Iterable[pd.DataFrame],
    *,
    origin: str,
    n_expected: int | None = None,
    on_rows: Callable[[pd.DataFrame], None] = lambda _: None,
) -> Registration:
    done, first_row, roll = Registration(), 0, Roll()
    for page in pages:
        prepared = prepare_catalog(page, origin=origin, first_row=first_row)
        first_row += len(page)
        on_rows(prepared.rows)
        done += register_page(path, delivery, prepared, roll)
    if n_expected is not None and done.n_delivered < n_expected:
        raise ServiceError(
            f"{origin} counts {n_expected} rows but delivered {done.n_delivered}: the service cuts long answers "
            "silently; lower survey.page_rows and run again"
        )
    n_vanished = close_delivery(path, delivery, done.rejected, roll)
    require_kept_rows(done.n_new + done.n_known, done.rejected, origin=origin)
    keep_label_versions(path)
    return done + Registration(n_vanished=n_vanished)


def register_page(path: str, delivery: Delivery, prepared: PreparedCatalog, roll: Roll | None = None) -> Registration:
    """Register one page of a delivery, in one commit: new objects are appended, changed labels updated.

    Everything else that the cube knows of an object stays as it was delivered first.

    Parameters
    ----------
    path
        Place of the cube.
    delivery
        Which delivery the page belongs to.
    prepared
        The page.
    roll
        The rows that earlier pages had; this page's are added. A row that comes again is rejected.
    """
    roll = roll or Roll()

    def write(session: icechunk.Session) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Registration]:
        root = zarr.open_group(session.store, mode="a")
        known, n_known = open_index(root, "id"), int(_array(root, "catalog/object_id").shape[0])
        rows = known.rows_of(prepared.rows["object_id"].to_numpy(dtype=np.int64))
        again = roll.has_named(rows)
        # an object whose row cannot be kept this time is still in the catalog
        at_fault = known.rows_of(_whole_ids(prepared.rejected["object_id"]))
        at_fault = at_fault[at_fault >= 0]
        is_new = rows < 0
        n_new = int(is_new.sum())
        if n_new:
            _append(root, prepared.rows[is_new], delivery, first=n_known)
            rows[is_new] = n_known + np.arange(n_new)
        old = ~is_new & ~again
        _relist(root, delivery, np.union1d(rows[old], at_fault))
        n_relabelled = update_labels(session, root, rows[old], prepared.rows[old], run_id=delivery.run_id)
        repeated = _as_repeated(prepared, again)
        registration = Registration(
            n_new=n_new,
            n_known=int(old.sum()),
            n_relabelled=n_relabelled,
            rejected=pd.concat([part for part in (prepared.rejected, repeated) if len(part)] or [_no_rows()]),
            ignored_columns=prepared.ignored_columns,
        )
        return rows, at_fault, registration

    metadata = {"operation": "register", "catalog": delivery.catalog, "run": delivery.run_id}
    rows, at_fault, registration = commit(path, write, message=f"register {delivery.catalog}", metadata=metadata)
    roll.name(rows, at_fault=at_fault)
    return registration


def close_delivery(path: str, delivery: Delivery, rejected: pd.DataFrame, roll: Roll) -> int:
    """Keep the list of rejected rows, and flag what a whole delivery no longer has; returns how many are flagged."""

    def write(session: icechunk.Session) -> int:
        root = zarr.open_group(session.store, mode="a")
        index = _catalog_index(root, delivery)
        _keep_rejected(root, index, rejected, replace=delivery.whole)
        if not delivery.whole or not roll.n_named:
            # a catalog of which nothing can be read says nothing about what it lacks
            return 0
        ours = np.asarray(_array(root, "state/catalog")[:]) == index
        column = _array(root, "state/listing")
        vanished = np.flatnonzero(ours & ~roll.listed(ours.size))
        newly = vanished[np.asarray(column.oindex[vanished]) != Listing.VANISHED]
        if newly.size:
            column.oindex[newly] = Listing.VANISHED
        return int(vanished.size)

    metadata = {"operation": "close delivery", "catalog": delivery.catalog, "run": delivery.run_id}
    return commit(path, write, message=f"close delivery of {delivery.catalog}", metadata=metadata)


def _append(root: zarr.Group, new: pd.DataFrame, delivery: Delivery, *, first: int) -> None:
    last = first + len(new)
    lengthen(root, last)
    _array(root, "state/catalog")[first:last] = _catalog_index(root, delivery)
    index_objects(root, first, new)
    for group, names in (("catalog", ("object_id", *CATALOG_COLUMNS)), (f"labels/{LABEL_VIEW}", LABEL_COLUMNS)):
        for name in names:
            if name in new:
                _array(root, f"{group}/{name}")[first:last] = new[name].to_numpy()


def _relist(root: zarr.Group, delivery: Delivery, rows: npt.NDArray[np.int64]) -> None:
    """Take the flag from vanished objects that are back in the catalog that brought them; `rows` ascend."""
    column = _array(root, "state/listing")
    back = rows[np.asarray(column.oindex[rows]) == Listing.VANISHED] if rows.size else rows
    names = _catalog_names(root)
    if back.size and delivery.catalog in names:
        ours = np.asarray(_array(root, "state/catalog").oindex[back]) == names.index(delivery.catalog)
        if ours.any():
            column.oindex[back[ours]] = Listing.LISTED


def _whole_ids(texts: pd.Series[Any]) -> npt.NDArray[np.int64]:
    """Those of some ids, as they were delivered, that are whole numbers of 64 bits."""
    return np.array([int(text) for text in texts if WHOLE_ID.fullmatch(text)], dtype=np.int64)


def _as_repeated(prepared: PreparedCatalog, again: npt.NDArray[np.bool_]) -> pd.DataFrame:
    ids = prepared.rows.loc[again, "object_id"].astype(str)
    reason = RejectReason.REPEATED_ID.name.lower()
    return pd.DataFrame({"row": -1, "object_id": ids, "column": "object_id", "reason": reason, "value": ids})


def _keep_rejected(root: zarr.Group, catalog: int, rejected: pd.DataFrame, *, replace: bool) -> None:
    """Put a delivery's rejected rows in place of those of the catalog's last one, or of the same objects alone."""
    held = {column.name: np.asarray(_array(root, f"rejected/{column.name}")[:]) for column in REJECTED_COLUMNS}
    new: dict[str, npt.NDArray[Any]] = {
        "catalog": np.full(len(rejected), catalog),
        "row": rejected["row"].to_numpy(dtype=np.int64),
        "reason": np.array([RejectReason[name.upper()] for name in rejected["reason"]], dtype=np.uint8),
        **{name: _packed(rejected[name], held[name].shape[1]) for name in ("object_id", "column", "value")},
    }
    superseded = held["catalog"] == catalog
    if not replace:
        told_again = {one.tobytes() for one in new["object_id"]}
        superseded &= np.array([one.tobytes() in told_again for one in held["object_id"]], dtype=bool)
    if all(np.array_equal(held[name][superseded], new[name]) for name in new):
        return
    for name, values in new.items():
        array = _array(root, f"rejected/{name}")
        merged = np.concatenate([held[name][~superseded], values.astype(array.dtype)])
        array.resize(merged.shape)
        array[:] = merged


def _packed(texts: pd.Series[Any], width: int) -> npt.NDArray[np.uint8]:
    packed = np.zeros((len(texts), width), dtype=np.uint8)
    for padded, text in zip(packed, texts, strict=True):
        # cut between characters, not inside one
        raw = str(text).encode()[:width].decode(errors="ignore").encode()
        padded[: len(raw)] = np.frombuffer(raw, dtype=np.uint8)
    return packed


def _array(root: zarr.Group, name: str) -> Any:
    return root[name]


def _catalog_names(root: zarr.Group) -> list[str]:
    held: Any = root.attrs["catalogs"]
    return [entry["name"] for entry in held]


def _catalog_index(root: zarr.Group, delivery: Delivery) -> int:
    held: Any = root.attrs["catalogs"]
    catalogs, names = list(held), _catalog_names(root)
    if delivery.catalog not in names:
        root.attrs["catalogs"] = [*catalogs, {"name": delivery.catalog, **delivery.provenance}]
        return len(names)
    index = names.index(delivery.catalog)
    # a file that changed under its name; where a service's address changes, its catalog is still the same
    if delivery.provenance.get("sha256") != catalogs[index].get("sha256"):
        catalogs[index] = {"name": delivery.catalog, **delivery.provenance}
        root.attrs["catalogs"] = catalogs
    return index

"""Registering: a catalog's new objects get their rows, once; cutouts come later."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from galstore.catalog import PreparedCatalog, prepare_catalog
from galstore.commits import transaction
from galstore.cube import lengthen
from galstore.services.catalogfile import read_catalog_file
from galstore.services.skyserver import SkyServer, count_catalog, query_catalog
from schemas.catalog import CATALOG_COLUMNS, LABEL_COLUMNS
from schemas.cube import LABEL_VIEW
from schemas.errors import CatalogError, ServiceError
from schemas.selection import QUERY_COLUMNS, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What registering a catalog, or pages of it, did: `n_delivered = n_new + n_known + n_rejected`."""

    n_new: int = 0
    n_known: int = 0
    rejected: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["row", "object_id", "column", "reason"])
    )
    ignored_columns: tuple[str, ...] = ()

    @property
    def n_rejected(self) -> int:
        return len(self.rejected)

    @property
    def n_delivered(self) -> int:
        return self.n_new + self.n_known + self.n_rejected

    @property
    def rejected_by_reason(self) -> dict[str, int]:
        """Rejected rows by column and kind of reason."""
        kinds = self.rejected["column"] + " " + self.rejected["reason"].str.split(":").str[0]
        return {str(kind): int(n) for kind, n in kinds.value_counts().items()}

    def __add__(self, other: Registration) -> Registration:
        rejected = pd.concat([part for part in (self.rejected, other.rejected) if len(part)] or [self.rejected])
        return Registration(
            n_new=self.n_new + other.n_new,
            n_known=self.n_known + other.n_known,
            rejected=rejected.reset_index(drop=True),
            ignored_columns=tuple(dict.fromkeys((*self.ignored_columns, *other.ignored_columns))),
        )


def register_survey(
    path: str,
    service: SkyServer,
    selection: Selection,
    *,
    survey: str,
    columns: Sequence[str] | None = None,
    limit: int = 0,
    page_rows: int = 50_000,
) -> Registration:
    """Query a survey's catalog page by page and register what is new, one commit a page.

    Parameters
    ----------
    path
        Folder of the cube.
    survey
        Name under which the objects are kept.
    columns, limit, page_rows
        As `query_catalog` takes them; every column of the paper's query by default.

    Raises
    ------
    CatalogError
        The selection is empty.
    ServiceError
        The service fails, or delivers fewer rows than it counts.
    """
    wanted = tuple(columns) if columns is not None else tuple(QUERY_COLUMNS)
    provenance = {"service": service.base_url, "data_release": service.data_release, "selection": selection.name}
    done = Registration()
    for page in query_catalog(service, selection, columns=wanted, limit=limit, page_rows=page_rows):
        prepared = prepare_catalog(page, origin=f"the catalog of {survey}")
        done += _register_prepared(path, prepared, catalog=survey, provenance=provenance)
    n_counted = count_catalog(service, selection)
    n_expected = min(limit, n_counted) if limit else n_counted
    if done.n_delivered < n_expected:
        raise ServiceError(
            f"the survey at {service.base_url} counts {n_expected} rows but delivered {done.n_delivered}: it cuts long "
            "answers silently; lower survey.page_rows and run again"
        )
    if n_expected == 0:
        raise CatalogError(
            f"the catalog of {survey} has no rows under selection '{selection.name}': check survey.selection"
        )
    return done


def register_file(path: str, catalog: Path) -> tuple[Registration, pd.DataFrame]:
    """Register a user's catalog file.

    Returns
    -------
    Registration
        What was new, known and rejected.
    DataFrame
        object_id, ra, dec of the rows that are kept, in the order of the file.
    """
    prepared = prepare_catalog(read_catalog_file(catalog), origin=str(catalog))
    provenance = {"file": catalog.name, "sha256": hashlib.sha256(catalog.read_bytes()).hexdigest()}
    done = _register_prepared(path, prepared, catalog=catalog.stem, provenance=provenance)
    return done, prepared.rows[["object_id", "ra", "dec"]]


def _register_prepared(
    path: str, prepared: PreparedCatalog, *, catalog: str, provenance: Mapping[str, Any]
) -> Registration:
    n_new = append_objects(path, prepared.rows, catalog=catalog, provenance=provenance)
    return Registration(
        n_new=n_new,
        n_known=len(prepared.rows) - n_new,
        rejected=prepared.rejected,
        ignored_columns=prepared.ignored_columns,
    )


def append_objects(path: str, rows: pd.DataFrame, *, catalog: str, provenance: Mapping[str, Any]) -> int:
    """Append the objects that the cube does not hold yet, in one commit; the others keep their rows as they are.

    Parameters
    ----------
    path
        Folder of the cube.
    rows
        Rows of a prepared catalog: `object_id` unique, types as `schemas.catalog` has them.
    catalog
        Name of the catalog, kept once in the cube's `catalogs` and by index for each object.
    provenance
        Where the catalog came from (service, selection, file, hash), kept with its name.

    Returns
    -------
    int
        How many were new.
    """
    with transaction(path, f"register {catalog}", {"operation": "register", "catalog": catalog}) as session:
        root = zarr.open_group(session.store, mode="a")
        known = np.asarray(_array(root, "catalog/object_id")[:])
        new = rows[~rows["object_id"].isin(known)]
        if new.empty:
            return 0
        first, last = known.size, known.size + len(new)
        lengthen(root, last)
        _array(root, "state/catalog")[first:last] = _catalog_index(root, catalog, provenance)
        for group, names in (("catalog", ("object_id", *CATALOG_COLUMNS)), (f"labels/{LABEL_VIEW}", LABEL_COLUMNS)):
            for name in names:
                if name in new:
                    _array(root, f"{group}/{name}")[first:last] = new[name].to_numpy()
    return len(new)


def _array(root: zarr.Group, name: str) -> Any:
    return root[name]


def _catalog_index(root: zarr.Group, catalog: str, provenance: Mapping[str, Any]) -> int:
    catalogs: Any = root.attrs["catalogs"]
    names = [entry["name"] for entry in catalogs]
    if catalog not in names:
        root.attrs["catalogs"] = [*catalogs, {"name": catalog, **provenance}]
        return len(names)
    return names.index(catalog)

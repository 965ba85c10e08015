"""Registering: a catalog's new objects get their rows, once; cutouts come later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import zarr

from galstore.commits import transaction
from galstore.cube import lengthen
from schemas.catalog import CATALOG_COLUMNS, LABEL_COLUMNS
from schemas.cube import LABEL_VIEW


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What registering a catalog did."""

    n_delivered: int
    n_new: int

    @property
    def n_known(self) -> int:
        return self.n_delivered - self.n_new


def register_objects(path: str, rows: pd.DataFrame, *, catalog: str, provenance: dict[str, Any]) -> Registration:
    """Append the objects that the cube does not hold yet, in one commit; the others keep their rows as they are.

    Parameters
    ----------
    path
        Folder of the cube.
    rows
        A prepared catalog: one row an object, `object_id` unique.
    catalog
        Name of the catalog, kept once in the cube's `catalogs` and by index for each object.
    provenance
        Where the catalog came from (service, query, file, hash), kept with its name.
    """
    with transaction(path, f"register {catalog}", {"operation": "register", "catalog": catalog}) as session:
        root = zarr.open_group(session.store, mode="a")
        known = np.asarray(root["catalog/object_id"][:])  # type: ignore[index]
        new = rows[~rows["object_id"].isin(known)]
        if len(new):
            index = _catalog_index(root, catalog, provenance)
            first, last = known.size, known.size + len(new)
            lengthen(root, last)
            root["state/catalog"][first:last] = index  # type: ignore[index]
            for group, names in (("catalog", ("object_id", *CATALOG_COLUMNS)), (f"labels/{LABEL_VIEW}", LABEL_COLUMNS)):
                for name in names:
                    if name in new:
                        root[f"{group}/{name}"][first:last] = new[name].to_numpy()  # type: ignore[index]
    return Registration(n_delivered=len(rows), n_new=len(new))


def _catalog_index(root: zarr.Group, catalog: str, provenance: dict[str, Any]) -> int:
    catalogs: list[dict[str, Any]] = list(root.attrs["catalogs"])  # type: ignore[arg-type]
    names = [entry["name"] for entry in catalogs]
    if catalog not in names:
        root.attrs["catalogs"] = [*catalogs, {"name": catalog, **provenance}]  # type: ignore[dict-item]
        return len(names)
    return names.index(catalog)

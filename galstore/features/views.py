"""Features of objects: columns of the catalog, and columns that are computed from them and kept in the cube.

`/features/<name>@<version>/<column>` holds what was computed, `n_computed` of the group how far. The catalog never
changes under an object, so that only objects that came since have to be computed. What is not kept yet is computed
while it is read, by the same formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.commits import commit
from galstore.cube.layout import ensure_feature_arrays
from galstore.cube.reader import Cube
from schemas.cube import CATALOG_CHUNK_ROWS
from schemas.errors import FeatureError
from schemas.features import FEATURE_VIEWS, LABEL_VIEWS, FeatureColumn, FeatureView


def read_features(cube: Cube, rows: npt.NDArray[np.int64], view: FeatureView) -> pd.DataFrame:
    """Features of some objects, in the order of `rows`.

    Returns
    -------
    DataFrame
        One column for each of the view, null (NaN) where the catalog has none or the value is out of range.

    Raises
    ------
    FeatureError
        The view is one of images, or the cube keeps another definition under its name.
    """
    require_same_definition(cube, view)
    if view.level:
        raise FeatureError(f"{view.ref} is a level of the images, not a table: read its pixels (Cube.read_pixels)")
    rows = np.asarray(rows, dtype=np.int64)
    is_kept = bool(rows.size) and int(rows.max()) < _n_computed(cube, view)
    kept = {c.name: f"features/{view.ref}/{c.name}" for c in view.columns if c.is_derived and is_kept}
    inputs = {name: f"catalog/{name}" for c in view.columns if c.name not in kept for name in c.inputs}
    read = cube.read_values([*inputs.values(), *kept.values()], rows)
    return pd.DataFrame(
        {
            c.name: read[kept[c.name]] if c.name in kept else evaluate(c, {n: read[inputs[n]] for n in c.inputs})
            for c in view.columns
        }
    )


def evaluate(column: FeatureColumn, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """A column's values by its formula, in float64 and rounded once; out of range is null.

    Examples
    --------
    >>> inputs = {"petroR90_r": np.array([6.0, 6.0]), "petroR50_r": np.array([2.0, 0.0])}
    >>> evaluate(FEATURE_VIEWS["structure@1"].columns[2], inputs).tolist()
    [3.0, nan]
    """
    wide = {name: np.asarray(values, dtype=np.float64) for name, values in inputs.items()}
    with np.errstate(all="ignore"):
        values = (
            wide[column.name]
            if not column.is_derived
            else np.asarray(pd.DataFrame(wide).eval(column.expression, engine="python"), dtype=np.float64)
        )
        inside = (values >= column.valid_min) & (values <= column.valid_max)
        return np.where(inside, values, np.nan).astype(column.dtype)


def compute_features(path: str, view: FeatureView, *, on_rows: Callable[[int], None] = lambda _: None) -> int:
    """Compute a view for objects that came since the last time, in blocks, and keep it; returns how many they are.

    Parameters
    ----------
    path
        Place of the cube.
    view
        One with computed columns.
    on_rows
        Called with the number of objects of each block, after its commit.
    """
    if not view.is_derived:
        raise FeatureError(f"{view.ref} is read from the catalog or the images as it is: there is nothing to compute")
    n_done = 0
    while True:

        def write(session: icechunk.Session) -> int:
            root = zarr.open_group(session.store, mode="a")
            keep_definition(root, path, view)
            group: Any = root[f"features/{view.ref}"]
            status: Any = root["state/status"]
            first, n_objects = int(group.attrs["n_computed"]), int(status.shape[0])
            last = min(first + CATALOG_CHUNK_ROWS, n_objects)
            if first == last:
                return 0
            inputs = {name: np.asarray(_array(root, f"catalog/{name}")[first:last]) for name in view.inputs}
            for column in view.columns:
                if column.is_derived:
                    group[column.name][first:last] = evaluate(column, {name: inputs[name] for name in column.inputs})
            group.attrs["n_computed"] = last
            return last - first

        n = commit(path, write, message=f"compute {view.ref}", metadata={"operation": "compute", "view": view.ref})
        if not n:
            return n_done
        n_done += n
        on_rows(n)


def keep_definition(root: zarr.Group, path: str, view: FeatureView) -> None:
    """Note a view's definition in the cube, inside a commit, unless it is noted.

    Raises
    ------
    FeatureError
        Another definition is noted under this name and version.
    """
    kept: Any = root.get(f"features/{view.ref}")
    if kept is not None:
        _require(kept.attrs.get("fingerprint"), path, view)
        return
    ensure_feature_arrays(root, view)


def require_same_definition(cube: Cube, view: FeatureView) -> None:
    """Refuse a view that the cube knows by another definition."""
    if view.ref in cube.group_names("features"):
        _require(cube.group_attributes(f"features/{view.ref}").get("fingerprint"), cube.path, view)


def views_of(cube: Cube) -> list[dict[str, Any]]:
    """Every view with its columns, and how many objects have their computed columns kept in this cube."""
    n = cube.n_objects
    return [
        {
            **view.definition(), "ref": view.ref, "description": view.description,
            "n_computed": _n_computed(cube, view) if view.is_derived else n, "n_objects": n,
        }
        for view in FEATURE_VIEWS.values()
    ]  # fmt: skip


def label_views_of(cube: Cube) -> list[dict[str, Any]]:
    """Every label view with its labels, its source, and the version of its values in this cube."""
    return [
        {
            "ref": view.ref, "description": view.description, "source": view.source, "columns": list(view.columns),
            "version": cube.read_label_versions(view.group)[-1]["version"],
        }
        for view in LABEL_VIEWS.values()
    ]  # fmt: skip


def _require(kept: Any, path: str, view: FeatureView) -> None:
    if kept != view.fingerprint:
        raise FeatureError(
            f"{view.ref} has fingerprint {view.fingerprint} in this galstore and {kept} in the cube at {path}: a "
            f"definition never changes, so give the new one the version {view.version + 1}"
        )


def _n_computed(cube: Cube, view: FeatureView) -> int:
    if not view.is_derived or view.ref not in cube.group_names("features"):
        return 0
    return int(cube.group_attributes(f"features/{view.ref}").get("n_computed", 0))


def _array(root: zarr.Group, name: str) -> Any:
    return root[name]

"""Features of objects: columns of the catalog, and columns computed from them and stored in the cube.

`/features/<name>@<version>/<column>` holds the computed values of the first `n_computed` objects. The catalog of an
object never changes, so only new objects have to be computed. Values that are not stored are computed when read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.arrays import Values, read_array, require_array, require_group
from galstore.cube.commits import commit
from galstore.cube.layout import ensure_feature_arrays
from galstore.cube.reader import Cube
from schemas.cube import CATALOG_CHUNK_ROWS
from schemas.errors import FeatureError
from schemas.features import FEATURE_VIEWS, LABEL_VIEWS, FeatureColumn, FeatureView


def read_features(cube: Cube, rows: npt.NDArray[np.int64], view: FeatureView) -> pd.DataFrame:
    """Return the columns of a table view, in the order of `rows`; missing and out-of-range values are NaN.

    Raises
    ------
    FeatureError
        The view contains images, or the cube stores another definition of it.
    """
    if view.ref in cube.group_names("features"):
        _require_same_definition(cube.group_attributes(f"features/{view.ref}").get("fingerprint"), cube.path, view)
    if view.level:
        raise FeatureError(f"{view.ref} is a level of the images, not a table: use Cube.read_pixels")
    rows = np.asarray(rows, dtype=np.int64)
    is_stored = bool(rows.size) and int(rows.max()) < _n_computed(cube, view)
    stored = {c.name: f"features/{view.ref}/{c.name}" for c in view.columns if c.is_derived and is_stored}
    inputs = {name: f"catalog/{name}" for c in view.columns if c.name not in stored for name in c.inputs}
    values = cube.read_values([*inputs.values(), *stored.values()], rows)
    computed = {name: values[path] for name, path in inputs.items()}
    return pd.DataFrame(
        {c.name: values[stored[c.name]] if c.name in stored else evaluate(c, computed) for c in view.columns}
    )


def evaluate(column: FeatureColumn, catalog: Mapping[str, Values]) -> Values:
    """Evaluate the expression of a column in float64; out-of-range values become NaN."""
    inputs = {name: catalog[name] for name in column.inputs}
    wide = {name: np.asarray(values, dtype=np.float64) for name, values in inputs.items()}
    with np.errstate(all="ignore"):
        values = (
            np.asarray(pd.DataFrame(wide).eval(column.expression, engine="python"), dtype=np.float64)
            if column.is_derived
            else wide[column.name]
        )
        inside = (values >= column.valid_min) & (values <= column.valid_max)
        return np.where(inside, values, np.nan).astype(column.dtype)


def compute_features(path: str, view: FeatureView, *, on_rows: Callable[[int], None] = lambda _: None) -> int:
    """Compute and store a view for new objects; return their number, and call `on_rows` with it after each commit.

    Raises
    ------
    FeatureError
        The view lacks computed columns, or the cube stores another definition of it.
    """
    if not view.is_derived:
        raise FeatureError(f"{view.ref} has no computed columns: it is read from the catalog or the images")

    def write(session: icechunk.Session) -> int:
        root = zarr.open_group(session.store, mode="a")
        store_definition(root, path, view)
        group = require_group(root, f"features/{view.ref}")
        first = int(group.attrs["n_computed"])  # type: ignore[arg-type]
        last = min(first + CATALOG_CHUNK_ROWS, int(require_array(root, "state/status").shape[0]))
        if first == last:
            return 0
        inputs = {name: read_array(root, f"catalog/{name}", slice(first, last)) for name in view.inputs}
        for column in view.columns:
            if column.is_derived:
                require_array(group, column.name)[first:last] = evaluate(column, inputs)
        group.attrs["n_computed"] = last
        return last - first

    metadata = {"operation": "compute", "view": view.ref}
    n_total = 0
    while n := commit(path, write, message=f"compute {view.ref}", metadata=metadata):
        n_total += n
        on_rows(n)
    return n_total


def store_definition(root: zarr.Group, path: str, view: FeatureView) -> None:
    """Store the definition of a view as part of a commit; raise a `FeatureError` if another one is stored."""
    group = root.get(f"features/{view.ref}")
    if group is None:
        ensure_feature_arrays(root, view)
    else:
        _require_same_definition(group.attrs.get("fingerprint"), path, view)


def describe_views(cube: Cube) -> list[dict[str, object]]:
    """Return each feature view's definition and number of objects with stored values, as JSON values."""
    n_objects = cube.n_objects
    return [
        {
            **view.definition(),
            "ref": view.ref,
            "description": view.description,
            "n_computed": _n_computed(cube, view) if view.is_derived else n_objects,
            "n_objects": n_objects,
        }
        for view in FEATURE_VIEWS.values()
    ]


def describe_label_views(cube: Cube) -> list[dict[str, object]]:
    """Return labels, source and version in the cube of each label view, as JSON values."""
    return [
        {
            "ref": view.ref,
            "description": view.description,
            "source": view.source,
            "columns": list(view.columns),
            "version": cube.read_label_versions(view.group)[-1]["version"],
        }
        for view in LABEL_VIEWS.values()
    ]


def _require_same_definition(stored: object, path: str, view: FeatureView) -> None:
    if stored != view.fingerprint:
        raise FeatureError(
            f"{view.ref} has fingerprint {view.fingerprint} in this galstore and {stored} in the cube at {path}: a "
            f"definition never changes, so give the new one the version {view.version + 1}"
        )


def _n_computed(cube: Cube, view: FeatureView) -> int:
    if not view.is_derived or view.ref not in cube.group_names("features"):
        return 0
    return int(cube.group_attributes(f"features/{view.ref}").get("n_computed", 0))

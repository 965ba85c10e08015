"""Labels: values that may change. A catalog with changed labels makes a new version of their view.

A superseded version remains readable as the snapshot of its tag (`label_tag`). Expiry of old snapshots spares tags.
"""

from __future__ import annotations

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.arrays import read_attributes, require_array, require_group
from galstore.cube.commits import open_repository, write_lock
from galstore.cube.reader import open_cube
from schemas.cube import LABEL_VIEW


def update_labels(
    session: icechunk.Session, root: zarr.Group, rows: npt.NDArray[np.int64], labels: pd.DataFrame, *, run_id: str
) -> int:
    """Write changed labels into the view, inside a commit, and return the number of changed objects.

    All changes of one run make one version; the snapshot that the session started from keeps the superseded one.
    `labels` has one line for each of `rows`. Columns that are not labels are ignored; NaN removes a label.
    """
    view = require_group(root, f"labels/{LABEL_VIEW}")
    names = [name for name in view.array_keys() if name in labels]
    order = np.argsort(rows)
    rows, labels = rows[order], labels.iloc[order]
    changed = np.zeros(rows.size, dtype=bool)
    for name in names if rows.size else ():
        array = require_array(view, name)
        new = labels[name].to_numpy(dtype=array.dtype)
        old = np.asarray(array[int(rows[0]) : int(rows[-1]) + 1])[rows - rows[0]]
        differs = (old != new) & ~(np.isnan(old) & np.isnan(new))
        if differs.any():
            array.oindex[rows[differs]] = new[differs]
        changed |= differs
    n_changed = int(changed.sum())
    if n_changed:
        _add_version(view, n_changed, run_id, superseded=session.snapshot_id)
    return n_changed


def _add_version(view: zarr.Group, n_changed: int, run_id: str, *, superseded: str) -> None:
    versions = list(read_attributes(view)["versions"])
    last = versions[-1]
    if run_id and last.get("run") == run_id:
        versions[-1] = {**last, "n_changed": last["n_changed"] + n_changed}
    else:
        number = last["version"] + 1
        versions.append({"version": number, "run": run_id, "n_changed": n_changed, "supersedes": superseded})
    view.attrs.update({"version": versions[-1]["version"], "versions": versions})


def label_tag(view: str, version: int) -> str:
    """Return the name of the tag on the last snapshot with a superseded version of a label view.

    Examples
    --------
    >>> label_tag("galspec", 1)
    'labels-galspec@1'
    """
    return f"labels-{view}@{version}"


def tag_label_versions(path: str) -> None:
    """Tag the snapshots of superseded versions that have no tag yet."""
    versions = open_cube(path).read_label_versions(LABEL_VIEW)
    superseded = {label_tag(LABEL_VIEW, entry["version"] - 1): entry["supersedes"] for entry in versions[1:]}
    if not superseded.keys() - open_repository(path).list_tags():
        return
    with write_lock(path):
        repository = open_repository(path)
        for tag in superseded.keys() - repository.list_tags():
            try:
                repository.create_tag(tag, snapshot_id=superseded[tag])
            except icechunk.IcechunkError:
                # on an object store another run may have created the same tag first
                if tag not in repository.list_tags():
                    raise

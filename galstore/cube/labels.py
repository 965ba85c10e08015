"""Labels: values that change while pixels do not. A delivery that changes some makes a new version of their view.

A version that was superseded stays readable as the snapshot that its tag (`label_tag`) names; expiring old snapshots
spares tags.
"""

from __future__ import annotations

from typing import Any

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from galstore.cube.commits import open_repository, write_lock
from galstore.cube.reader import open_cube
from schemas.cube import LABEL_VIEW


def update_labels(
    session: icechunk.Session, root: zarr.Group, rows: npt.NDArray[np.int64], labels: pd.DataFrame, *, run_id: str
) -> int:
    """Put changed labels into the view, inside a commit.

    Parameters
    ----------
    session
        The commit's session; the snapshot that it started from keeps the superseded version.
    root
        Its root group.
    rows
        Row of each object, shape (object,).
    labels
        One row an object; columns that are no labels are left alone. NaN takes a label back.
    run_id
        All changes of one run make one version.

    Returns
    -------
    int
        How many objects changed.
    """
    view: Any = root[f"labels/{LABEL_VIEW}"]
    names = [name for name in view.array_keys() if name in labels]
    order = np.argsort(rows)
    rows, labels = rows[order], labels.iloc[order]
    changed = np.zeros(rows.size, dtype=bool)
    for name in names if rows.size else ():
        array = view[name]
        delivered = labels[name].to_numpy(dtype=array.dtype)
        held = np.asarray(array[int(rows[0]) : int(rows[-1]) + 1])[rows - rows[0]]
        differs = (held != delivered) & ~(np.isnan(held) & np.isnan(delivered))
        if differs.any():
            array.oindex[rows[differs]] = delivered[differs]
        changed |= differs
    n_changed = int(changed.sum())
    if n_changed:
        _count_version(session, view, n_changed, run_id)
    return n_changed


def label_tag(view: str, version: int) -> str:
    """Name of the tag on the last snapshot that holds a superseded version of a label view.

    Examples
    --------
    >>> label_tag("galspec", 1)
    'labels-galspec@1'
    """
    return f"labels-{view}@{version}"


def keep_label_versions(path: str) -> None:
    """Tag the snapshots of superseded versions, unless they are."""
    versions: Any = open_cube(path).read_label_versions(LABEL_VIEW)
    superseded = {label_tag(LABEL_VIEW, entry["version"] - 1): entry["supersedes"] for entry in versions[1:]}
    if not superseded.keys() - open_repository(path).list_tags():
        return
    with write_lock(path):
        repository = open_repository(path)
        for tag in superseded.keys() - repository.list_tags():
            try:
                repository.create_tag(tag, snapshot_id=superseded[tag])
            except icechunk.IcechunkError:
                # on an object store another run may have been first, with the same snapshot
                if tag not in repository.list_tags():
                    raise


def _count_version(session: icechunk.Session, view: Any, n_changed: int, run_id: str) -> None:
    versions: Any = list(view.attrs["versions"])
    last = versions[-1]
    if run_id and last.get("run") == run_id:
        versions[-1] = {**last, "n_changed": last["n_changed"] + n_changed}
    else:
        number = last["version"] + 1
        versions.append({"version": number, "run": run_id, "n_changed": n_changed, "supersedes": session.snapshot_id})
    view.attrs.update({"version": versions[-1]["version"], "versions": versions})

"""Content hash of a training set: SHA-256 of ids, split, labels, features and delivered images, ordered by id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from galstore.cube.arrays import Values
from galstore.cube.reader import Cube
from galstore.features.views import read_features
from schemas.features import FeatureView


def hash_content(
    cube: Cube,
    rows: Values,
    object_ids: Values,
    split: Values,
    labels: Mapping[str, Values],
    views: Sequence[FeatureView],
) -> str:
    """Return the content hash of a training set, the same on any machine; arrays have the shape (n,)."""
    order = np.argsort(object_ids, kind="stable")
    digest = hashlib.sha256()

    def add(name: str, values: Values, dtype: str) -> None:
        digest.update(f"{name}:{dtype}:{values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values[order], dtype=dtype).tobytes())

    add("object_id", object_ids, "<i8")
    add("split", split, "<i1")
    for name in sorted(labels):
        add(name, _canonical_nan(labels[name]), "<f8")
    for view in sorted(views, key=lambda view: view.ref):
        digest.update(f"{view.ref}:{view.fingerprint}\n".encode())
        if view.level:
            add("body_sha256", cube.read_state("body_sha256")[rows], "|u1")
            add("pixel_scale", _canonical_nan(cube.read_state("pixel_scale")[rows]), "<f8")
        else:
            for column, values in read_features(cube, rows, view).items():
                add(str(column), _canonical_nan(values.to_numpy()), "<f8")
    return digest.hexdigest()


def _canonical_nan(values: Values) -> npt.NDArray[np.float64]:
    """Replace the many bit patterns of NaN by one."""
    return np.where(np.isnan(values), np.nan, values).astype(np.float64)

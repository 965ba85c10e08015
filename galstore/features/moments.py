"""Means and standard deviations of features for normalisation, by exact sums that do not depend on order."""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum, sqrt

import numpy as np
import numpy.typing as npt

from galstore.cube.blocks import blocks_with
from galstore.cube.reader import Cube
from galstore.features.views import read_features
from schemas.cube import LEVEL
from schemas.features import FeatureView

Moments = dict[str, object]
"""Values of `mean`, `std` (ddof 0), `n` and, for images, `unit`; images have one mean and std per band."""


def compute_moments(cube: Cube, rows: npt.NDArray[np.int64], views: Iterable[FeatureView]) -> dict[str, Moments]:
    """Return the moments of each feature at `rows`, by `view` (images) or `view/column`."""
    moments: dict[str, Moments] = {}
    for view in views:
        if view.level:
            moments[view.ref] = _image_moments(cube, rows, view.level)
            continue
        for column, values in read_features(cube, rows, view).items():
            finite = values[values.notna()].to_numpy(dtype=np.float64)
            mean = fsum(finite) / finite.size if finite.size else None
            std = None if mean is None else sqrt(fsum((finite - mean) ** 2) / finite.size)
            moments[f"{view.ref}/{column}"] = {"mean": mean, "std": std, "n": int(finite.size)}
    return moments


def _image_moments(cube: Cube, rows: npt.NDArray[np.int64], level: int) -> Moments:
    array, scale = cube.array(LEVEL[level].path), LEVEL[level].scale_factor
    selected = np.zeros(cube.n_objects, dtype=bool)
    selected[rows] = True
    sums, squares, n = [0, 0, 0], [0, 0, 0], 0
    for block in blocks_with(selected):
        stored = np.asarray(array[block.rows])[selected[block.rows]].astype(np.uint64)
        n += stored[..., 0].size
        for band in range(3):
            sums[band] += int(stored[..., band].sum())
            squares[band] += int((stored[..., band] ** 2).sum())
    # integers until the last step: n * sum(x^2) - sum(x)^2
    stds = [sqrt(n * square - total * total) / n for total, square in zip(sums, squares, strict=True)]
    means = [total / n * scale for total in sums]
    return {"mean": means, "std": [std * scale for std in stds], "n": n, "unit": "count"}

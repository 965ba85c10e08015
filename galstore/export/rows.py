"""Some rows of an array of the cube, read chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr


def read_rows(array: zarr.Array[Any], rows: npt.NDArray[np.int64], *, stride: int = 0) -> npt.NDArray[Any]:
    """Some rows of an array; what is read at once never exceeds a stride, however far apart the rows are.

    Parameters
    ----------
    array
        Shape (object, ...).
    rows
        Row numbers, shape (n,), ascending.
    stride
        Rows that are read at once; 0 = one chunk.

    Returns
    -------
    ndarray
        Shape (n, ...).
    """
    stride = max(stride, int(array.chunks[0]))
    values = np.empty((rows.size, *array.shape[1:]), dtype=array.dtype)
    for part in _parts(rows // stride):
        inside = rows[part]
        first, last = int(inside[0]), int(inside[-1])
        values[part] = np.asarray(array[first : last + 1])[inside - first]
    return values


def in_steps(n: int, step: int) -> Iterator[slice]:
    """Slices of `step` that cover 0 to `n`.

    Examples
    --------
    >>> list(in_steps(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _parts(groups: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Slices of equal values of an ascending array; none of an empty one."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    for start, stop in pairwise([*starts.tolist(), groups.size]):
        yield slice(start, stop)

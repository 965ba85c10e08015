"""Reading of selected rows of a Zarr array with bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from galstore.cube.arrays import AnyArray, Values


def read_sparse_rows(array: AnyArray, rows: npt.NDArray[np.int64], *, stride: int = 0) -> Values:
    """Read rows of an array, one stride of the array at a time.

    Parameters
    ----------
    array
        Shape (object, ...).
    rows
        Row numbers, shape (n,), ascending.
    stride
        Maximum number of rows in memory besides the result; at least one chunk.
    """
    stride = max(stride, int(array.chunks[0]))
    values = np.empty((rows.size, *array.shape[1:]), dtype=array.dtype)
    starts = np.flatnonzero(np.diff(rows // stride, prepend=-1))
    for start, stop in pairwise([*starts.tolist(), rows.size]):
        inside = rows[start:stop]
        first, last = int(inside[0]), int(inside[-1])
        values[start:stop] = np.asarray(array[first : last + 1])[inside - first]
    return values


def iter_slices(n: int, step: int) -> Iterator[slice]:
    """Yield slices of length `step` that cover `range(n)`; the last one may be shorter."""
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))

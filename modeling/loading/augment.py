"""Augmentation: a galaxy turned or mirrored has the same label."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numba
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

N_VIEWS = 8
"""Members of D4, the symmetries of a square. A view is a number of three bits: 1 mirrors x, 2 mirrors y, and 4 then
swaps y and x."""


def dihedral(batch: Tensor, view: int) -> Tensor:
    """One of the eight views of D4 of every image.

    Parameters
    ----------
    batch
        (n, c, y, x) with y and x of one size.
    view
        0 (as it is) to 7.

    Returns
    -------
    Tensor
        (n, c, y, x); view 0 shares the memory of `batch`.

    Raises
    ------
    ValueError
        There is no such view.

    Examples
    --------
    >>> import torch
    >>> image = torch.tensor([[[[1, 2], [3, 4]]]])
    >>> dihedral(image, 1).flatten().tolist()
    [2, 1, 4, 3]
    >>> dihedral(image, 4).flatten().tolist()
    [1, 3, 2, 4]
    """
    if not 0 <= view < N_VIEWS:
        raise ValueError(f"view {view} is not one of the eight of D4: give 0 to 7")
    mirrored = [axis for bit, axis in ((1, 3), (2, 2)) if view & bit]
    turned = batch.flip(mirrored) if mirrored else batch
    return turned.transpose(2, 3) if view & 4 else turned


def inverse_view(view: int) -> int:
    """The view that undoes a view.

    Examples
    --------
    >>> inverse_view(1), inverse_view(5)
    (1, 6)
    """
    # mirrors undo themselves; once y and x are swapped, the mirror of x has become the mirror of y
    return view if not view & 4 else 4 | (view & 1) << 1 | (view & 2) >> 1


def plan_views(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """In which view each image of a shuffled batch is seen.

    Every image gets one of the eight views with equal chance. Since a batch is shuffled anyway, its images come sorted
    by view: eight slices to copy where a view drawn for each place would need a gather.

    Parameters
    ----------
    n
        Images in the batch.
    rng
        Drawn from; the same state gives the same plan.

    Returns
    -------
    ndarray
        (n,), ascending.
    """
    return np.repeat(np.arange(N_VIEWS), rng.multinomial(n, [1 / N_VIEWS] * N_VIEWS))


def write_views(
    counts: NDArray[np.uint8],
    views: NDArray[np.int64],
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
    out: NDArray[np.float32],
    n_threads: int = 1,
) -> None:
    """Write each image in its view of D4 as `scale * count + offset`: one pass over memory.

    Parameters
    ----------
    counts
        (n, y, x, band), y and x of one size, C-contiguous.
    views
        (n,), as of `dihedral`.
    scale, offset
        (band,) each.
    out
        Like `counts`.
    n_threads
        That share the images.
    """
    _, side, _, n_bands = counts.shape
    length = side * side * n_bands
    # where the first pixel of each view comes from, and how far the next one in y and in x is from it
    steps = np.array([_steps_of(view, side, n_bands) for view in range(N_VIEWS)])[views]
    # over a whole row, so that the loop over unmirrored rows has no bands in it and the compiler vectorises it
    by_row = np.tile(scale, side), np.tile(offset, side)

    def write(part: slice) -> None:
        n = part.stop - part.start
        _write_images(counts[part].reshape(n, length), steps[part], *by_row, n_bands, out[part].reshape(n, length))

    if n_threads == 1 or len(counts) < n_threads:
        write(slice(0, len(counts)))
        return
    # Python's threads: numba's own parallel loops change the number of threads that torch works with
    edges = np.linspace(0, len(counts), n_threads + 1).astype(np.int64).tolist()
    for done in [_writers().submit(write, slice(start, stop)) for start, stop in pairwise(edges)]:
        done.result()


def _steps_of(view: int, side: int, n_bands: int) -> tuple[int, int, int]:
    row = side * n_bands
    first = (row - n_bands if view & 1 else 0) + ((side - 1) * row if view & 2 else 0)
    along_source_x, along_source_y = -n_bands if view & 1 else n_bands, -row if view & 2 else row
    return (first, along_source_x, along_source_y) if view & 4 else (first, along_source_y, along_source_x)


@cache
def _writers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="views")


@numba.njit(nogil=True, cache=True)
def _write_images(
    counts: NDArray[np.uint8],
    steps: NDArray[np.int64],
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
    n_bands: int,
    out: NDArray[np.float32],
) -> None:
    row = scale.size
    for i in range(len(counts)):
        source, (first, along_y, along_x) = counts[i], (steps[i, 0], steps[i, 1], steps[i, 2])
        for y in range(row // n_bands):
            start, target = first + y * along_y, out[i, y * row : (y + 1) * row]
            if along_x == n_bands:
                for k in range(row):
                    target[k] = source[start + k] * scale[k] + offset[k]
            else:
                for x in range(row // n_bands):
                    for band in range(n_bands):
                        target[x * n_bands + band] = source[start + x * along_x + band] * scale[band] + offset[band]

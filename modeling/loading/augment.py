"""Augmentation: a galaxy turned or mirrored has the same label."""

from __future__ import annotations

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


# in one thread: numba's parallel loops change the number of threads that torch works with
@numba.njit(nogil=True, cache=True)
def write_views(
    counts: NDArray[np.uint8], views: NDArray[np.int64], table: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Write each image in its view of D4, every count replaced by its value in a table: one pass over memory.

    Parameters
    ----------
    counts
        (n, y, x, band), y and x of one size.
    views
        (n,), as of `dihedral`.
    table
        (band, 256).
    out
        Like `counts`.
    """
    n_images, side, _, n_bands = counts.shape
    for i in range(n_images):
        view = views[i]
        for y in range(side):
            for x in range(side):
                from_y, from_x = (x, y) if view & 4 else (y, x)
                if view & 2:
                    from_y = side - 1 - from_y
                if view & 1:
                    from_x = side - 1 - from_x
                for band in range(n_bands):
                    out[i, y, x, band] = table[band, counts[i, from_y, from_x, band]]

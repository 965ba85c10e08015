"""Augmentation: a galaxy turned or mirrored has the same label."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
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


def plan_views(n: int, rng: np.random.Generator) -> Iterator[tuple[slice, int]]:
    """Which images of a shuffled batch are seen in which view.

    Every image gets one of the eight views with equal chance. Since a batch is shuffled anyway, its images come sorted
    by view: eight slices to copy where a view drawn for each place would need a gather.

    Parameters
    ----------
    n
        Images in the batch.
    rng
        Drawn from; the same state gives the same plan.

    Yields
    ------
    rows, view
        Slices that are not empty, in order, together 0 to n.
    """
    start = 0
    for view, count in enumerate(rng.multinomial(n, [1 / N_VIEWS] * N_VIEWS).tolist()):
        if count:
            yield slice(start, start + count), view
        start += count

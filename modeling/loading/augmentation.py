"""Augmentation by rotations and reflections, which do not change a galaxy's label."""

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
"""Number of members of D4, the symmetry group of a square. A view is a number of three bits: 1 mirrors x, 2 mirrors y,
and 4 then swaps y and x."""
UInt8s = NDArray[np.uint8]
Floats = NDArray[np.float32]

_WORD_BANDS = 3
"""Number of bands for which a pixel is read and written as one word."""


def dihedral(batch: Tensor, view: int) -> Tensor:
    """Return one of the eight views of D4, 0 (unchanged) to 7, of every image.

    The batch is (n, c, y, x) with y and x of equal length; view 0 shares its memory.

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
        raise ValueError(f"view {view} is not one of the 8 views of D4: give 0 to 7")
    mirrored = [axis for bit, axis in ((1, 3), (2, 2)) if view & bit]
    turned = batch.flip(mirrored) if mirrored else batch
    return turned.transpose(2, 3) if view & 4 else turned


def plan_views(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a view for each of the n images of a shuffled batch, (n,).

    The eight views are equally likely. Views are sorted, which is allowed because the batch is shuffled: eight slices
    are copied instead of a gather.
    """
    return np.repeat(np.arange(N_VIEWS), rng.multinomial(n, [1 / N_VIEWS] * N_VIEWS))


def write_views(
    counts: UInt8s, views: NDArray[np.int64], scale: Floats, offset: Floats, out: Floats, n_threads: int = 1
) -> None:
    """Write each image in its view of D4 as `scale * count + offset`, in one pass over memory.

    Parameters
    ----------
    counts
        (n, y, x, band) with y and x of equal length, C-contiguous.
    views
        (n,), as for `dihedral`.
    scale, offset
        (band,) each.
    out
        Same shape as `counts`.
    """
    n_images, side, _, n_bands = counts.shape
    length = side * side * n_bands
    # source of the first pixel of each view, and steps to the next source pixel in y and in x
    steps = np.array([_source_steps(view, side) for view in range(N_VIEWS)])[views]
    # over a whole row: the inner loop is then free of bands and can be vectorised
    by_row = np.tile(scale, side), np.tile(offset, side)
    words = _as_words(counts.reshape(-1), max(0, n_images - 1), side * side) if n_bands == _WORD_BANDS else None

    def write(part: slice) -> None:
        n, n_done = part.stop - part.start, 0
        row = np.empty(side * n_bands + 1, dtype=np.uint8)
        source, target = counts[part].reshape(n, length), out[part].reshape(n, length)
        if words is not None:
            _write_words(source, words[part], steps[part], *by_row, row, _as_words(row, 1, side)[0], target)
            n_done = len(words[part])
        _write_bytes(source[n_done:], steps[part][n_done:], *by_row, row, n_bands, target[n_done:])

    if n_threads == 1 or len(counts) < n_threads:
        write(slice(0, len(counts)))
        return
    # Python's threads: parallel loops of numba change the number of threads of torch
    edges = np.linspace(0, len(counts), n_threads + 1).astype(np.int64).tolist()
    for future in [_writers().submit(write, slice(start, stop)) for start, stop in pairwise(edges)]:
        future.result()


def _source_steps(view: int, side: int) -> tuple[int, int, int]:
    first = (side - 1 if view & 1 else 0) + ((side - 1) * side if view & 2 else 0)
    along_source_x, along_source_y = -1 if view & 1 else 1, -side if view & 2 else side
    return (first, along_source_x, along_source_y) if view & 4 else (first, along_source_y, along_source_x)


def _as_words(flat: NDArray[np.uint8], n_images: int, n_pixels: int) -> NDArray[np.uint32]:
    """View 3-byte pixels as overlapping 4-byte words, (image, pixel).

    This takes a third of the reads and writes of single bytes. One more byte must follow the last pixel.
    """
    strides = (n_pixels * _WORD_BANDS, _WORD_BANDS)
    return np.ndarray((n_images, n_pixels), dtype=np.uint32, buffer=flat, strides=strides)


@cache
def _writers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="views")


@numba.njit(nogil=True, cache=True)
def _normalise(row: UInt8s, scale: Floats, offset: Floats, out: Floats) -> None:
    for k in range(scale.size):
        out[k] = np.float32(row[k]) * scale[k] + offset[k]


@numba.njit(nogil=True, cache=True)
def _write_words(
    counts: UInt8s,
    words: NDArray[np.uint32],
    steps: NDArray[np.int64],
    scale: Floats,
    offset: Floats,
    row: UInt8s,
    row_words: NDArray[np.uint32],
    out: Floats,
) -> None:
    length, side = scale.size, row_words.size
    for i in range(len(words)):
        first, along_y, along_x = steps[i, 0], steps[i, 1], steps[i, 2]
        for y in range(side):
            start = first + y * along_y
            if along_x == 1:
                source = counts[i, start * 3 : start * 3 + length]
            else:
                for x in range(side):
                    # in order: the fourth byte of each word is overwritten by the next word
                    row_words[x] = words[i, start + x * along_x]
                source = row[:length]
            _normalise(source, scale, offset, out[i, y * length : (y + 1) * length])


@numba.njit(nogil=True, cache=True)
def _write_bytes(
    counts: UInt8s, steps: NDArray[np.int64], scale: Floats, offset: Floats, row: UInt8s, n_bands: int, out: Floats
) -> None:
    length = scale.size
    side = length // n_bands
    for i in range(len(counts)):
        first, along_y, along_x = steps[i, 0], steps[i, 1], steps[i, 2]
        for y in range(side):
            for x in range(side):
                pixel = (first + y * along_y + x * along_x) * n_bands
                for band in range(n_bands):
                    row[x * n_bands + band] = counts[i, pixel + band]
            _normalise(row, scale, offset, out[i, y * length : (y + 1) * length])

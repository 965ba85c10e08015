"""Pixels: where training and scoring take images from, in one of three ways with one order of objects.

*Resident on the device*, *resident in the memory of the host*, or *streamed*: blocks of the cube are read and decoded
by threads ahead of the network, and forgotten after their last image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.loading.normalisation import MOMENT_BYTES, Normalisation, PixelMoments
from schemas.cube import BLOCK_ROWS
from schemas.errors import TrainingError
from schemas.recipes import Residence

WINDOW_BLOCKS = 8
"""Blocks whose objects are shuffled together: 400 MB at 128 px. As many again are read ahead."""

DECODING_THREADS = 2
"""Decoding gives the interpreter's lock away."""

MOST_HOST_SHARE = 0.5
MOST_DEVICE_SHARE = 0.5
"""Share of the free memory that resident pixels may take."""

Order = Sequence[NDArray[np.int64]]
"""Objects of each batch, by their place among the source's objects."""


class Pixels(Protocol):
    """Images of some objects, (object, y, x, band) counts: uint8, or float32 at 16 px and below."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each object in its cube, shape (object,)."""

    def batches(self, order: Order, then: Order = ()) -> Iterator[Tensor]:
        """The images of each batch, (n, y, x, band); the next batch overwrites them.

        What will be asked for `then` may be read in advance.
        """


class ResidentPixels:
    """Pixels that stay in memory, the device's or the host's.

    Parameters
    ----------
    pixels
        (object, y, x, band), uint8 or float32.
    rows
        Of the objects in their cube, (object,); by default they are counted from 0.
    """

    def __init__(self, pixels: Tensor, rows: NDArray[np.int64] | None = None) -> None:
        self._pixels = pixels
        self.rows = np.arange(len(pixels)) if rows is None else rows

    @property
    def shape(self) -> tuple[int, int, int, int]:
        n, side_y, side_x, n_bands = self._pixels.shape
        return n, side_y, side_x, n_bands

    @property
    def dtype(self) -> torch.dtype:
        return self._pixels.dtype

    def batches(self, order: Order, then: Order = ()) -> Iterator[Tensor]:  # noqa: ARG002 - all is here already
        largest = max((len(chosen) for chosen in order), default=0)
        counts = torch.empty((largest, *self.shape[1:]), dtype=self.dtype, device=self._pixels.device)
        for chosen in order:
            batch = counts[: len(chosen)]
            if self._pixels.device.type == "cpu":
                # torch would do it in threads that then wait in loops on the cores that write the floats
                every = np.arange(len(chosen))
                _copy_images(self._pixels.flatten(1).numpy(), chosen, every, batch.flatten(1).numpy())
            else:
                torch.index_select(self._pixels, 0, torch.from_numpy(chosen).to(self._pixels.device), out=batch)
            yield batch


class StreamedPixels:
    """Pixels that are read from the cube while they are used.

    Memory holds the blocks of the batch under way and `2 * WINDOW_BLOCKS` that follow, whatever the number of objects;
    it is used again and again, since fresh memory costs about as much as decoding into it.

    Parameters
    ----------
    read
        Reads the images of some ascending rows of one block into an array (n, y, x, band); called in several threads.
    rows
        Of the objects in their cube, (object,).
    side_px, dtype, n_bands
        Of the level that is read.
    n_threads
        That read.
    """

    def __init__(
        self,
        read: Callable[[NDArray[np.int64], NDArray[Any]], object],
        rows: NDArray[np.int64],
        *,
        side_px: int,
        dtype: torch.dtype,
        n_bands: int,
        n_threads: int = DECODING_THREADS,
    ) -> None:
        self._read = read
        self.rows = rows
        self.shape = (rows.size, side_px, side_px, n_bands)
        self.dtype = dtype
        self._n_threads = n_threads
        self._blocks = rows // BLOCK_ROWS
        # objects of each block, by their place, in ascending order of rows
        by_row = np.argsort(rows, kind="stable")
        numbers, starts = np.unique(self._blocks[by_row], return_index=True)
        self._members = dict(zip(numbers.tolist(), np.split(by_row, starts[1:]), strict=True))
        self._place_in_block = np.empty(rows.size, dtype=np.int64)
        for members in self._members.values():
            self._place_in_block[members] = np.arange(members.size)
        self._largest = max(map(len, self._members.values()), default=0)
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[int, Future[Tensor]] = {}
        self._free: list[Tensor] = []

    def batches(self, order: Order, then: Order = ()) -> Iterator[Tensor]:
        needed = [list(dict.fromkeys(self._blocks[chosen].tolist())) for chosen in order]
        last_use = {block: step for step, blocks in enumerate(needed) for block in blocks}
        ahead, self._begun = {block: one for block, one in self._begun.items() if block in last_use}, {}
        to_read = iter(block for block in _in_order_of_use(needed) if block not in ahead)
        afterwards = iter(_in_order_of_use([self._blocks[chosen].tolist() for chosen in then]))
        largest = max((len(chosen) for chosen in order), default=0)
        counts = torch.empty((largest, *self.shape[1:]), dtype=self.dtype)
        goes_on = False
        try:
            for step, (chosen, blocks) in enumerate(zip(order, needed, strict=True)):
                room = len(blocks) + 2 * WINDOW_BLOCKS
                while len(ahead) + len(self._begun) < room or not ahead.keys() >= set(blocks):
                    if (block := next(to_read, None)) is not None:
                        ahead[block] = self._submit(block)
                    elif (block := next(afterwards, None)) is not None:
                        self._begun[block] = self._submit(block)
                    else:
                        break
                batch = counts[: len(chosen)]
                for block in blocks:
                    places = np.flatnonzero(self._blocks[chosen] == block)
                    images = ahead[block].result()
                    _copy_images(
                        images.flatten(1).numpy(), self._place_in_block[chosen[places]], places,
                        batch.flatten(1).numpy(),
                    )  # fmt: skip
                    if last_use[block] == step:
                        self._free.append(ahead.pop(block).result())
                yield batch
            goes_on = bool(then)
        finally:
            if not goes_on:
                self._stop()

    def _submit(self, block: int) -> Future[Tensor]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._n_threads, thread_name_prefix="pixels")
        return self._pool.submit(self._read_block, block)

    def _read_block(self, block: int) -> Tensor:
        try:
            images = self._free.pop()
        except IndexError:
            images = torch.empty((self._largest, *self.shape[1:]), dtype=self.dtype)
        rows = self.rows[self._members[block]]
        self._read(rows, images[: rows.size].numpy())
        return images

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool, self._begun, self._free = None, {}, []


def _in_order_of_use(needed: Sequence[Sequence[int]]) -> list[int]:
    return list(dict.fromkeys(block for blocks in needed for block in blocks))


# numpy and torch would gather into a fresh array first
@numba.njit(nogil=True, cache=True)
def _copy_images(
    images: NDArray[Any], chosen: NDArray[np.int64], places: NDArray[np.int64], batch: NDArray[Any]
) -> None:
    for i in range(chosen.size):
        source, target = images[chosen[i]], batch[places[i]]
        for k in range(source.size):
            target[k] = source[k]


def place_pixels(pixels: NDArray[Any], device: torch.device, rows: NDArray[np.int64] | None = None) -> ResidentPixels:
    """Put pixels where batches are gathered from them fastest.

    Parameters
    ----------
    pixels
        (object, y, x, band), uint8 or float32. On the CPU, copied only where they are read-only.
    device
        Where the network is. A GPU holds the pixels where they take at most half of its free memory (142,000 galaxies
        of 128 px: 7 GB); else they stay in the memory of the CPU and batch after batch crosses over.
    rows
        As of `ResidentPixels`.
    """
    # torch warns of memory that it may not write to, as of a file opened to be read: such pixels are copied
    resident = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    if device.type == "cuda" and resident.nbytes <= MOST_DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        resident = resident.to(device)
    return ResidentPixels(resident, rows)


def choose_residence(n_bytes: int, wanted: Residence = "auto") -> Residence:
    """Whether pixels are held in memory or streamed: by what is free, unless it was said.

    Parameters
    ----------
    n_bytes
        Of all the pixels.
    wanted
        'resident', 'streamed' or 'auto'.

    Raises
    ------
    TrainingError
        Resident pixels were asked for that are larger than all of the machine's memory.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    if wanted == "resident" and n_bytes > page * os.sysconf("SC_PHYS_PAGES"):
        raise TrainingError(
            f"the pixels take {n_bytes / 1e9:.1f} GB, more than this machine's memory: use train.pixels = "
            '"streamed" or "auto", or a smaller network.level'
        )
    if wanted != "auto":
        return wanted
    return "resident" if n_bytes <= MOST_HOST_SHARE * page * os.sysconf("SC_AVPHYS_PAGES") else "streamed"


def plan_order(rows: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """Objects in the order in which an epoch meets them: a pure function of rows, seed and epoch.

    Blocks of the cube come in random order, and objects in random order within each window of `WINDOW_BLOCKS` blocks,
    so that a streamed epoch reads each block once. Sets of no more blocks than that are shuffled as a whole.

    Parameters
    ----------
    rows
        Of the objects in their cube, (object,).

    Returns
    -------
    ndarray
        Places among `rows`, (object,), each once.
    """
    rng = np.random.default_rng((seed, epoch))
    blocks = rows // BLOCK_ROWS
    numbers = rng.permutation(np.unique(blocks))
    # which window each block is in, then objects window by window, shuffled within
    window_of = np.empty(int(numbers.max()) + 1, dtype=np.int64)
    window_of[numbers] = np.arange(numbers.size) // WINDOW_BLOCKS
    shuffled = rng.permutation(rows.size)
    return shuffled[np.argsort(window_of[blocks[shuffled]], kind="stable")]


def measure_normalisation(pixels: Pixels) -> Normalisation:
    """Mean and standard deviation of each band, measured block by block; for 8-bit counts the same from every source.

    Raises
    ------
    TrainingError
        A band is constant or not finite.
    """
    n_rows = max(1, MOMENT_BYTES // (int(np.prod(pixels.shape[1:])) * 8))
    in_order = np.argsort(pixels.rows, kind="stable")
    order = [in_order[first : first + n_rows] for first in range(0, in_order.size, n_rows)]
    return Normalisation.from_moments(sum((PixelMoments.of(one) for one in pixels.batches(order)), PixelMoments()))

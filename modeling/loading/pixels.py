"""Sources of pixels for training and scoring: resident on the device, resident in host memory, or streamed.

Streamed blocks of the cube are read and decoded by threads ahead of the network, and dropped after their last image.
The order of objects is the same for all sources.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeAlias

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
"""Blocks whose objects are shuffled together: 400 MB at 128 px. The same number is read ahead."""
DECODING_THREADS = 2
"""Decoding releases the GIL."""
MAX_HOST_MEMORY_SHARE = 0.5
MAX_DEVICE_MEMORY_SHARE = 0.5
"""Maximum share of the free memory for resident pixels."""
Order = Sequence[NDArray[np.int64]]
"""Objects of each batch, as indices into the source's objects."""
Counts: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
"""Counts of images, (object, y, x, band)."""


class Pixels(Protocol):
    """Source of images, (object, y, x, band) counts: uint8, or float32 at 16 px and below."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row of each object in its cube, (object,)."""

    def batches(self, order: Order, next_order: Order = ()) -> Iterator[Tensor]:
        """Yield the images of each batch, (n, y, x, band); the next batch overwrites them.

        Images of `next_order`, the order of the next call, may be read in advance.
        """


class ResidentPixels:
    """Pixels, (object, y, x, band), in the memory of the device or of the host; by default from rows 0, 1, 2, ..."""

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

    def batches(self, order: Order, next_order: Order = ()) -> Iterator[Tensor]:  # noqa: ARG002 - nothing to read
        largest = max((len(chosen) for chosen in order), default=0)
        counts = torch.empty((largest, *self.shape[1:]), dtype=self.dtype, device=self._pixels.device)
        for chosen in order:
            batch = counts[: len(chosen)]
            if self._pixels.device.type == "cpu":
                # torch's threads would busy-wait on the cores that write the floats
                _copy_images(self._pixels.flatten(1).numpy(), chosen, np.arange(len(chosen)), batch.flatten(1).numpy())
            else:
                torch.index_select(self._pixels, 0, torch.from_numpy(chosen).to(self._pixels.device), out=batch)
            yield batch


class StreamedPixels:
    """Pixels read from the cube during their use.

    Memory holds the blocks of the current batch and the `2 * WINDOW_BLOCKS` that follow, for any number of objects. It
    is reused, since allocating fresh memory takes about as long as decoding into it.

    Parameters
    ----------
    read
        Reads the images of ascending rows of one block into an array (n, y, x, band); called in several threads.
    rows
        Rows of the objects in their cube, (object,).
    """

    def __init__(
        self,
        read: Callable[[NDArray[np.int64], Counts], object],
        rows: NDArray[np.int64],
        *,
        side_px: int,
        dtype: torch.dtype,
        n_bands: int,
        n_threads: int = DECODING_THREADS,
    ) -> None:
        self._read, self.rows, self.dtype, self._n_threads = read, rows, dtype, n_threads
        self.shape = (rows.size, side_px, side_px, n_bands)
        self._blocks = rows // BLOCK_ROWS
        # indices of the objects of each block, in ascending order of rows
        by_row = np.argsort(rows, kind="stable")
        numbers, starts = np.unique(self._blocks[by_row], return_index=True)
        self._members = dict(zip(numbers.tolist(), np.split(by_row, starts[1:]), strict=True))
        self._place_in_block = np.empty(rows.size, dtype=np.int64)
        for members in self._members.values():
            self._place_in_block[members] = np.arange(members.size)
        self._largest = max(map(len, self._members.values()), default=0)
        self._pool: ThreadPoolExecutor | None = None
        self._started: dict[int, Future[Tensor]] = {}
        self._free: list[Tensor] = []

    def batches(self, order: Order, next_order: Order = ()) -> Iterator[Tensor]:
        needed = [list(dict.fromkeys(self._blocks[chosen].tolist())) for chosen in order]
        last_use = {block: step for step, blocks in enumerate(needed) for block in blocks}
        ahead, self._started = {block: read for block, read in self._started.items() if block in last_use}, {}
        to_read = iter(block for block in _in_order_of_use(needed) if block not in ahead)
        next_blocks = iter(_in_order_of_use([self._blocks[chosen].tolist() for chosen in next_order]))
        largest = max((len(chosen) for chosen in order), default=0)
        counts = torch.empty((largest, *self.shape[1:]), dtype=self.dtype)
        keep_reading = False
        try:
            for step, (chosen, blocks) in enumerate(zip(order, needed, strict=True)):
                room = len(blocks) + 2 * WINDOW_BLOCKS
                while len(ahead) + len(self._started) < room or not ahead.keys() >= set(blocks):
                    if (block := next(to_read, None)) is not None:
                        ahead[block] = self._submit(block)
                    elif (block := next(next_blocks, None)) is not None:
                        self._started[block] = self._submit(block)
                    else:
                        break
                batch = counts[: len(chosen)]
                for block in blocks:
                    places = np.flatnonzero(self._blocks[chosen] == block)
                    images, within = ahead[block].result().flatten(1).numpy(), self._place_in_block[chosen[places]]
                    _copy_images(images, within, places, batch.flatten(1).numpy())
                    if last_use[block] == step:
                        self._free.append(ahead.pop(block).result())
                yield batch
            keep_reading = bool(next_order)
        finally:
            if not keep_reading:
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
        self._pool, self._started, self._free = None, {}, []


def _in_order_of_use(needed: Sequence[Sequence[int]]) -> list[int]:
    return list(dict.fromkeys(block for blocks in needed for block in blocks))


# numpy and torch would first gather into a new array
@numba.njit(nogil=True, cache=True)
def _copy_images(images: Counts, chosen: NDArray[np.int64], places: NDArray[np.int64], batch: Counts) -> None:
    for i in range(chosen.size):
        source, target = images[chosen[i]], batch[places[i]]
        for k in range(source.size):
            target[k] = source[k]


def place_pixels(pixels: Counts, device: torch.device, rows: NDArray[np.int64] | None = None) -> ResidentPixels:
    """Place pixels, (object, y, x, band), in the memory from which batches are gathered fastest.

    A GPU holds the pixels if they take at most half of its free memory (142,000 galaxies of 128 px: 7 GB); otherwise
    they stay in host memory and are copied batch by batch. On the CPU, only read-only arrays are copied.
    """
    # torch warns of read-only memory, such as a memory-mapped file: it is copied
    resident = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    if device.type == "cuda" and resident.nbytes <= MAX_DEVICE_MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        resident = resident.to(device)
    return ResidentPixels(resident, rows)


def choose_residence(n_bytes: int, wanted: Residence = "auto") -> Residence:
    """Choose between resident and streamed pixels of a size in bytes, for 'auto' by the free memory.

    Raises
    ------
    TrainingError
        'resident' pixels exceed the memory of the machine.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    if wanted == "resident" and n_bytes > page * os.sysconf("SC_PHYS_PAGES"):
        raise TrainingError(
            f"the pixels take {n_bytes / 1e9:.1f} GB, more than this machine's memory: use train.pixels = "
            '"streamed" or "auto", or a smaller network.level'
        )
    if wanted != "auto":
        return wanted
    return "resident" if n_bytes <= MAX_HOST_MEMORY_SHARE * page * os.sysconf("SC_AVPHYS_PAGES") else "streamed"


def plan_order(rows: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the objects in an epoch, a pure function of rows in the cube, seed and epoch.

    Blocks of the cube are shuffled, and objects are shuffled within each window of `WINDOW_BLOCKS` blocks, so that a
    streamed epoch reads each block once. Sets of at most `WINDOW_BLOCKS` blocks are shuffled as a whole. The result has
    indices into `rows`, (object,), each once.
    """
    rng = np.random.default_rng((seed, epoch))
    blocks = rows // BLOCK_ROWS
    numbers = rng.permutation(np.unique(blocks))
    # window of each block, then objects sorted by window, shuffled within
    window_of = np.empty(int(numbers.max()) + 1, dtype=np.int64)
    window_of[numbers] = np.arange(numbers.size) // WINDOW_BLOCKS
    shuffled = rng.permutation(rows.size)
    return shuffled[np.argsort(window_of[blocks[shuffled]], kind="stable")]


def measure_normalisation(pixels: Pixels) -> Normalisation:
    """Measure mean and standard deviation of each band in blocks; for 8-bit counts identical for all sources."""
    n_rows = max(1, MOMENT_BYTES // (int(np.prod(pixels.shape[1:])) * 8))
    in_order = np.argsort(pixels.rows, kind="stable")
    order = [in_order[first : first + n_rows] for first in range(0, in_order.size, n_rows)]
    return Normalisation.from_moments(sum(map(PixelMoments.of, pixels.batches(order)), PixelMoments()))

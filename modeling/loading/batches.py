"""Training batches: shuffled, augmented and normalised images on the device.

Order and augmentation are pure functions of (seed, epoch, step), for resident and streamed pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.loading.augmentation import dihedral, plan_views, write_views
from modeling.loading.normalisation import Normalisation
from modeling.loading.pixels import Pixels, plan_order
from modeling.loading.ranks import Ranks


class FloatBuffer:
    """Reused float32 buffer for normalised batches of at most `shape`, (n, y, x, band).

    New arrays and separate passes for cast, subtraction and product limit a loader to 8,500 images of 128 px per
    second. Here the copy into the buffer casts, and one `addcmul` normalises. On a CPU, one pass augments, casts and
    normalises 8-bit images.
    """

    def __init__(self, normalisation: Normalisation, shape: tuple[int, int, int, int], device: torch.device) -> None:
        self._buffer = torch.empty(shape, dtype=torch.float32, device=device)
        _, side_y, side_x, n_bands = shape
        mean = torch.tensor(normalisation.mean_counts, dtype=torch.float64)
        scale = 1 / torch.tensor(normalisation.std_counts, dtype=torch.float64)
        self._by_band = scale.float().numpy(), (-mean * scale).float().numpy()
        # repeated over one image: half the time of broadcasting three bands
        spread = (side_y, side_x, n_bands)
        self._scale = scale.float().to(device).expand(spread).reshape(1, -1)
        self._offset = (-mean * scale).float().to(device).expand(spread).reshape(1, -1)

    def images(self, n: int) -> Tensor:
        """Return the first n places of the buffer as (n, band, y, x), channels last, to be filled with counts."""
        return self._buffer[:n].permute(0, 3, 1, 2)

    def write(self, counts: Tensor, views: NDArray[np.int64], n_threads: int | None = None) -> Tensor:
        """Fill the first places of the buffer with augmented and normalised images.

        Counts are (n, y, x, band) on any device, views of D4 (n,) ascending. The result is (n, band, y, x), channels
        last. By default the number of threads on a CPU is torch's.
        """
        n = len(counts)
        if counts.dtype == torch.uint8 and counts.device.type == self._buffer.device.type == "cpu":
            n_threads = n_threads or torch.get_num_threads()
            write_views(counts.numpy(), views, *self._by_band, self._buffer[:n].numpy(), n_threads)
            return self.images(n)
        images, source = self.images(n), counts.permute(0, 3, 1, 2)
        numbers, starts = (found.tolist() for found in np.unique(views, return_index=True))
        for view, start, stop in zip(numbers, starts, [*starts[1:], n], strict=True):
            images[start:stop] = dihedral(source[start:stop], view)
        return self.normalise(n)

    def normalise(self, n: int) -> Tensor:
        """Normalise the counts in the first n places in place: (n, band, y, x)."""
        flat = self._buffer[:n].view(n, -1)
        torch.addcmul(self._offset, flat, self._scale, out=flat)
        return self.images(n)


class TrainingBatches:
    """Shuffled, augmented and normalised batches.

    Parameters
    ----------
    labels
        (object, n_targets) standardised, float32, on the training device.
    batch_size
        Maximum batch size. An epoch is cut into equal parts, so that each object is used once per epoch and no last
        batch is too small for batch normalisation.
    ranks
        Processes that share each batch.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: Tensor,
        *,
        normalisation: Normalisation,
        batch_size: int,
        seed: int,
        ranks: Ranks | None = None,
    ) -> None:
        self._pixels, self._labels, self._seed, self._ranks = pixels, labels, seed, ranks or Ranks()
        n_objects, side_y, side_x, n_bands = pixels.shape
        # at least two objects per batch: batch normalisation needs a variance
        self._n_steps = max(1, min(math.ceil(n_objects / batch_size), n_objects // 2))
        largest = math.ceil(n_objects / self._n_steps)
        self._floats = FloatBuffer(normalisation, (largest, side_y, side_x, n_bands), labels.device)

    def __len__(self) -> int:
        return self._n_steps

    def order(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the objects of each batch of an epoch, a pure function of (seed, epoch)."""
        return np.array_split(plan_order(self._pixels.rows, self._seed, epoch), self._n_steps)

    def epoch(
        self, epoch: int, *, first_step: int = 0, another_follows: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch, starting at a step.

        Streamed pixels start to read the next epoch if another one follows. Images are (n, band, y, x) float32,
        channels last, and overwritten by the next batch. Labels are (n, n_targets) float32 of the whole batch, even if
        several ranks share its images.
        """
        order = self.order(epoch)[first_step:]
        next_order = self.order(epoch + 1) if another_follows else []
        batches = self._pixels.batches(self._local(order), next_order=self._local(next_order))
        for step, (chosen, counts) in enumerate(zip(order, batches, strict=True), first_step):
            rng = np.random.default_rng((self._seed, epoch, step))
            images = self._floats.write(counts, plan_views(len(chosen), rng)[self._ranks.local_slice(len(chosen))])
            yield images, self._labels[torch.from_numpy(chosen).to(self._labels.device)]

    def _local(self, order: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        return [chosen[self._ranks.local_slice(len(chosen))] for chosen in order]

"""Training batches: images in a shuffled order, turned, mirrored and normalised on the device.

The order of the objects and every draw of the augmentation are pure functions of (seed, epoch, step), whichever way the
pixels come.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.loading.augment import dihedral, plan_views, write_views
from modeling.loading.normalisation import Normalisation
from modeling.loading.pixels import Pixels, plan_order
from modeling.loading.ranks import Ranks


class FloatBuffer:
    """One reused float32 buffer in which batches are normalised.

    A new array for each batch and one pass each for the cast, the subtraction and the product cap any loader at
    8,500 images of 128 px a second. Here the cast is the copy into the buffer, and one `addcmul` does the rest; on a
    CPU one pass turns, casts and normalises 8-bit images.

    Parameters
    ----------
    normalisation
        Of the bands.
    shape
        (n, y, x, band) of the largest batch.
    device
        Where batches are used.
    """

    def __init__(self, normalisation: Normalisation, shape: tuple[int, int, int, int], device: torch.device) -> None:
        self._buffer = torch.empty(shape, dtype=torch.float32, device=device)
        _, side_y, side_x, n_bands = shape
        mean = torch.tensor(normalisation.mean_counts, dtype=torch.float64)
        scale = 1 / torch.tensor(normalisation.std_counts, dtype=torch.float64)
        self._by_band = scale.float().numpy(), (-mean * scale).float().numpy()
        # repeated over one image: whole rows take half the time that broadcasting three bands takes
        spread = (side_y, side_x, n_bands)
        self._scale = scale.float().to(device).expand(spread).reshape(1, -1)
        self._offset = (-mean * scale).float().to(device).expand(spread).reshape(1, -1)

    def images(self, n: int) -> Tensor:
        """The first n places of the buffer as (n, band, y, x), channels last, to be filled with counts."""
        return self._buffer[:n].permute(0, 3, 1, 2)

    def write(self, counts: Tensor, views: NDArray[np.int64], n_threads: int | None = None) -> Tensor:
        """Fill the first places with normalised images, each in its view.

        Parameters
        ----------
        counts
            (n, y, x, band), on any device.
        views
            Of D4, (n,), ascending.
        n_threads
            That write on a CPU; as many as torch has by default.

        Returns
        -------
        Tensor
            (n, band, y, x), channels last.
        """
        n = len(counts)
        if counts.dtype == torch.uint8 and counts.device.type == self._buffer.device.type == "cpu":
            n_threads = n_threads or torch.get_num_threads()
            write_views(counts.numpy(), views, *self._by_band, self._buffer[:n].numpy(), n_threads)
            return self.images(n)
        images, source = self.images(n), counts.permute(0, 3, 1, 2)
        numbers, starts = np.unique(views, return_index=True)
        for view, start, stop in zip(numbers.tolist(), starts.tolist(), [*starts.tolist()[1:], n], strict=True):
            images[start:stop] = dihedral(source[start:stop], view)
        return self.normalise(n)

    def normalise(self, n: int) -> Tensor:
        """Turn the counts in the first n places into normalised values, in place: (n, band, y, x)."""
        flat = self._buffer[:n].view(n, -1)
        torch.addcmul(self._offset, flat, self._scale, out=flat)
        return self.images(n)


class TrainingBatches:
    """Shuffled, augmented and normalised batches.

    Parameters
    ----------
    pixels
        Where images come from.
    labels
        (object, n_targets) standardised, float32, on the device of training.
    normalisation
        Of the bands.
    batch_size
        Largest batch. An epoch is cut into equal parts no larger than this, so that every object is seen once an epoch
        and no left-over batch is too small for batch normalisation.
    seed
        Of the order and of the augmentation.
    ranks
        Processes that share each batch: this one takes its part.
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
        self._ranks = ranks or Ranks()
        self._pixels = pixels
        self._labels = labels
        self._seed = seed
        n_objects, side_y, side_x, n_bands = pixels.shape
        # at least two objects a batch: of one, batch normalisation knows no variance
        self._n_steps = max(1, min(math.ceil(n_objects / batch_size), n_objects // 2))
        largest = math.ceil(n_objects / self._n_steps)
        self._floats = FloatBuffer(normalisation, (largest, side_y, side_x, n_bands), labels.device)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._n_steps

    def order(self, epoch: int) -> list[NDArray[np.int64]]:
        """Objects of each batch of an epoch: a pure function of (seed, epoch)."""
        return np.array_split(plan_order(self._pixels.rows, self._seed, epoch), self._n_steps)

    def epoch(
        self, epoch: int, *, first_step: int = 0, another_follows: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch, from one of its steps on.

        Parameters
        ----------
        another_follows
            The next epoch comes after this one: streamed pixels begin to read it.

        Yields
        ------
        images
            (n, band, y, x) float32, channels last. The next batch overwrites them.
        labels
            (n, n_targets) float32, of the whole batch, also where several ranks share its images.
        """
        order = self.order(epoch)[first_step:]
        parts = [self._ranks.part(len(chosen)) for chosen in order]
        mine = self._pixels.batches(
            self._mine(order), then=self._mine(self.order(epoch + 1) if another_follows else [])
        )
        for step, (chosen, part, counts) in enumerate(zip(order, parts, mine, strict=True), first_step):
            rng = np.random.default_rng((self._seed, epoch, step))
            images = self._floats.write(counts, plan_views(len(chosen), rng)[part])
            yield images, self._labels[torch.from_numpy(chosen).to(self._labels.device)]

    def _mine(self, order: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        """What this rank takes of each batch."""
        return [chosen[self._ranks.part(len(chosen))] for chosen in order]

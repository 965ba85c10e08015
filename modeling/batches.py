"""Training batches from pixels that stay in memory, the CPU's or the GPU's.

The order of the rows and every draw of the augmentation are pure functions of (seed, epoch, step).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.augment import dihedral, plan_views
from modeling.normalisation import Normalisation


class FloatBuffer:
    """One reused float32 buffer in which batches are normalised.

    A new array for each batch and one pass each for the cast, the subtraction and the product cap any loader at
    8,500 images of 128 px a second. Here the cast is the copy into the buffer, and one `addcmul` does the rest.

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
        # repeated over one image: whole rows take half the time that broadcasting three bands takes
        spread = (side_y, side_x, n_bands)
        self._scale = scale.float().to(device).expand(spread).reshape(1, -1)
        self._offset = (-mean * scale).float().to(device).expand(spread).reshape(1, -1)

    def images(self, n: int) -> Tensor:
        """The first n places of the buffer as (n, band, y, x), channels last, to be filled with counts."""
        return self._buffer[:n].permute(0, 3, 1, 2)

    def normalise(self, n: int) -> Tensor:
        """Turn the counts in the first n places into normalised values, in place: (n, band, y, x)."""
        flat = self._buffer[:n].view(n, -1)
        torch.addcmul(self._offset, flat, self._scale, out=flat)
        return self.images(n)


class TrainingBatches:
    """Shuffled, augmented and normalised batches of resident pixels.

    Parameters
    ----------
    pixels
        (object, y, x, band), uint8 or float32 counts, on the device of training or, where they do not fit there, in
        the memory of the CPU.
    labels
        (object, n_targets) standardised, float32, on the device of training.
    normalisation
        Of the bands.
    batch_size
        Largest batch. An epoch is cut into equal parts no larger than this, so that every row is seen once an epoch
        and no left-over batch is too small for batch normalisation.
    seed
        Of the order and of the augmentation.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        *,
        normalisation: Normalisation,
        batch_size: int,
        seed: int,
    ) -> None:
        self._pixels = pixels
        self._labels = labels
        self._seed = seed
        # at least two rows a batch: of one, batch normalisation knows no variance
        self._n_steps = max(1, min(math.ceil(len(pixels) / batch_size), len(pixels) // 2))
        largest = math.ceil(len(pixels) / self._n_steps)
        _, side_y, side_x, n_bands = pixels.shape
        self._floats = FloatBuffer(normalisation, (largest, side_y, side_x, n_bands), labels.device)
        self._counts = torch.empty((largest, side_y, side_x, n_bands), dtype=pixels.dtype, device=pixels.device)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._n_steps

    def order(self, epoch: int) -> list[NDArray[np.int64]]:
        """Rows of each batch of an epoch: a pure function of (seed, epoch)."""
        rows = np.random.default_rng((self._seed, epoch)).permutation(len(self._pixels))
        return np.array_split(rows, self._n_steps)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch.

        Yields
        ------
        images
            (n, band, y, x) float32, channels last. The next batch overwrites them.
        labels
            (n, n_targets) float32.
        """
        for step, chosen in enumerate(self.order(epoch)):
            rng = np.random.default_rng((self._seed, epoch, step))
            n, rows = len(chosen), torch.from_numpy(chosen)
            counts = torch.index_select(self._pixels, 0, rows.to(self._pixels.device), out=self._counts[:n])
            images, source = self._floats.images(n), counts.permute(0, 3, 1, 2)
            for places, view in plan_views(n, rng):
                images[places] = dihedral(source[places], view)
            yield self._floats.normalise(n), self._labels.index_select(0, rows.to(self._labels.device))


def place_pixels(pixels: NDArray[Any], device: torch.device) -> Tensor:
    """Put pixels where batches are gathered from them fastest.

    Parameters
    ----------
    pixels
        (object, y, x, band), uint8 or float32. On the CPU, copied only where they are read-only.
    device
        Where the network is. A GPU holds the pixels where they take at most half of its free memory (142,000 galaxies
        of 128 px: 7 GB); else they stay in the memory of the CPU and batch after batch crosses over.
    """
    # torch warns of memory that it may not write to, as of a file opened to be read: such pixels are copied
    resident = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    if device.type == "cuda" and resident.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
        return resident.to(device)
    return resident

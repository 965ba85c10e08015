"""Normalisation of counts and labels, measured on training rows alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import TrainingError

MOMENT_BYTES = 8 << 20
"""Size of a block of pixels as float64, bytes: large enough to be fast, small compared with any level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelMoments:
    """Sums for mean and standard deviation; those of two parts add up with `+`."""

    n: int = 0
    total: tuple[float, ...] = ()
    total_square: tuple[float, ...] = ()

    @classmethod
    def of(cls, pixels: Tensor) -> PixelMoments:
        """Sum over all axes but the last, in float64: exact for 8-bit counts, and so independent of the block size."""
        flat = pixels.reshape(-1, pixels.shape[-1]).double()
        return cls(n=len(flat), total=tuple(flat.sum(0).tolist()), total_square=tuple(flat.square().sum(0).tolist()))

    def __add__(self, other: PixelMoments) -> PixelMoments:
        if not self.n:
            return other
        return PixelMoments(
            n=self.n + other.n,
            total=tuple(a + b for a, b in zip(self.total, other.total, strict=True)),
            total_square=tuple(a + b for a, b in zip(self.total_square, other.total_square, strict=True)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """Mean and standard deviation of each band, in counts (0-255), in the order of the `band` axis."""

    mean_counts: tuple[float, ...]
    std_counts: tuple[float, ...]

    @classmethod
    def from_moments(cls, moments: PixelMoments) -> Normalisation:
        """Compute mean and standard deviation from the sums over all training pixels.

        Raises
        ------
        TrainingError
            A band is constant or not finite.
        """
        mean = tuple(total / moments.n for total in moments.total)
        variance = [square / moments.n - m * m for square, m in zip(moments.total_square, mean, strict=True)]
        for band, value in enumerate(variance):
            # written so that NaN fails too
            if not value > 1e-12:
                raise TrainingError(
                    f"band {band} of the training pixels has variance {value:g}, expected a positive number: the "
                    "images are constant or not finite; check that their cutouts were stored"
                )
        return cls(mean_counts=mean, std_counts=tuple(math.sqrt(value) for value in variance))


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScale:
    """Mean and standard deviation of the training labels, in the unit of the label.

    Networks are trained on (label - mean) / std, since a float32 around 8.9 wastes digits on the mean.
    """

    mean: float
    std: float

    @classmethod
    def of(cls, labels: NDArray[np.float64]) -> LabelScale:
        """Measure the scale of training labels, (object,), finite; raise `TrainingError` if all are equal."""
        std = float(np.std(labels))
        if not std > 0:
            raise TrainingError(
                f"all {len(labels)} training labels equal {labels[0]:g}: expected labels that differ; check the "
                "column of the target"
            )
        return cls(mean=float(np.mean(labels)), std=std)

    def standardise(self, labels: NDArray[np.float64]) -> NDArray[np.float32]:
        return ((labels - self.mean) / self.std).astype(np.float32)

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.float64]:
        return standardised.astype(np.float64) * self.std + self.mean

"""Scoring: predictions of a network, averaged over views of each image."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.augment import dihedral
from modeling.batches import FloatBuffer, Normalisation, place_pixels
from modeling.networks import GalaxyNetwork


@torch.inference_mode()
def predict_views(
    network: GalaxyNetwork,
    pixels: Tensor,
    *,
    normalisation: Normalisation,
    views: int,
    batch_size: int,
    device: torch.device,
) -> Tensor:
    """Standardised predictions of every view of every image: (view, object), float32, on the CPU."""
    network.eval()
    predicted = torch.empty((views, len(pixels)), dtype=torch.float32, device=device)
    _, side_y, side_x, n_bands = pixels.shape
    floats = FloatBuffer(normalisation, (min(batch_size, len(pixels)), side_y, side_x, n_bands), device)
    for start in range(0, len(pixels), batch_size):
        counts = pixels[start : start + batch_size]
        floats.images(len(counts)).copy_(counts.permute(0, 3, 1, 2))
        images = floats.normalise(len(counts))
        for view in range(views):
            turned = dihedral(images, view).contiguous(memory_format=torch.channels_last)
            predicted[view, start : start + batch_size] = network(turned)[:, 0]
    return predicted.cpu()

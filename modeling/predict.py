"""Scoring: a network's predictions, averaged over the views of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.augment import N_VIEWS, dihedral
from modeling.batches import FloatBuffer, place_pixels
from modeling.model import Model
from modeling.networks import GalaxyNetwork, choose_device
from modeling.normalisation import Normalisation
from schemas.errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model says about objects, in the unit of its target, and how it sees them."""

    mean: NDArray[np.float64]
    """Over the views."""
    view_spread: NDArray[np.float64]
    """Standard deviation over the views: how far the answer depends on orientation. NaN where one view was taken."""
    embedding: NDArray[np.float32]
    """(object, feature): features of the body, averaged over each image and over the views, so that a turned galaxy has
    the same ones."""


def predict(
    model: Model,
    pixels: NDArray[Any],
    *,
    views: Literal[1, 8] = 8,
    batch_size: int = 256,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> Prediction:
    """Score images.

    Parameters
    ----------
    model
        A trained or loaded model. Its scale rule is not checked here: see `Model.require_scale`.
    pixels
        (object, y, x, band) counts at the model's level: uint8 or float32. None of them may be NaN.
    views
        8: mean over all of D4, so that a turned or mirrored galaxy gets the same value. 1: the image as it is.
    batch_size
        Images that are scored together; it does not change the answer on a CPU beyond 1e-5 label units. On a GPU the
        body runs in bfloat16, and the answer moves by its rounding.
    device
        'auto' is the GPU where there is one.

    Returns
    -------
    Prediction
        (object,) each, and the embedding (object, feature).

    Raises
    ------
    StoreError
        Pixels of another level or another number of bands than the model was trained on.

    Notes
    -----
    Views are averaged in float32 before the mean of the labels is added: at 8.9, bfloat16 has steps of 0.06 dex.
    """
    _check_pixels(model, pixels)
    if views not in (1, N_VIEWS):
        raise ValueError(f"views = {views}: give 8 (all of D4) or 1 (the image as it is)")
    where = choose_device(device)
    network = model.network.to(where).to(memory_format=torch.channels_last)
    scale = model.config.label_scale
    pooled = torch.zeros((len(pixels), network.n_features), dtype=torch.float32, device=where)
    if not len(pixels):
        return Prediction(mean=np.empty(0), view_spread=np.empty(0), embedding=pooled.cpu().numpy())
    by_view = predict_views(
        network, pixels, normalisation=model.config.normalisation, views=views, batch_size=batch_size, device=where,
        pooled=pooled,
    )  # fmt: skip
    spread = by_view.std(dim=0, correction=0).numpy().astype(np.float64) * scale.std
    return Prediction(
        mean=scale.restore(by_view.mean(dim=0).numpy()),
        view_spread=spread if views > 1 else np.full(len(pixels), np.nan),
        embedding=(pooled / views).cpu().numpy(),
    )


@torch.inference_mode()
def predict_views(
    network: GalaxyNetwork,
    pixels: NDArray[Any] | Tensor,
    *,
    normalisation: Normalisation,
    views: int,
    batch_size: int,
    device: torch.device,
    pooled: Tensor | None = None,
) -> Tensor:
    """Standardised predictions of each view of each image.

    Parameters
    ----------
    network
        On `device`; put into evaluation mode.
    pixels
        (object, y, x, band) counts; at least one object.
    normalisation
        Of the bands.
    views
        So many of the views of D4, from view 0 on.
    batch_size
        Images at a time.
    device
        Where the network is.
    pooled
        (object, feature) on `device`: the body's averaged features of each view are added to it.

    Returns
    -------
    Tensor
        (view, object) float32, on the CPU.
    """
    network.eval()
    resident = pixels if isinstance(pixels, Tensor) else place_pixels(pixels, torch.device("cpu"))
    n, side_y, side_x, n_bands = resident.shape
    floats = FloatBuffer(normalisation, (min(batch_size, n), side_y, side_x, n_bands), device)
    predicted = torch.empty((views, n), dtype=torch.float32, device=device)
    for start in range(0, n, batch_size):
        counts = resident[start : start + batch_size]
        floats.images(len(counts)).copy_(counts.permute(0, 3, 1, 2))
        images = floats.normalise(len(counts))
        for view in range(views):
            turned = dihedral(images, view).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                labels, features = network.predict_and_pool(turned)
            predicted[view, start : start + batch_size] = labels[:, 0]
            if pooled is not None:
                pooled[start : start + batch_size] += features
    return predicted.cpu()


def _check_pixels(model: Model, pixels: NDArray[Any]) -> None:
    side, n_bands = model.config.level, len(model.config.bands)
    if pixels.ndim != 4 or pixels.shape[1:] != (side, side, n_bands):
        raise StoreError(
            f"pixels have shape {pixels.shape}; model {model.config.model_id} reads (object, {side}, {side}, "
            f"{n_bands}): take them from level {side}"
        )

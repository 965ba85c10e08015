"""Predictions of a network, averaged over the views of each image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from threading import Barrier
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.loading.augmentation import N_VIEWS
from modeling.loading.batches import FloatBuffer
from modeling.loading.normalisation import Normalisation
from modeling.loading.pixels import Counts, Pixels, place_pixels
from modeling.models.model import Model
from modeling.models.networks import GalaxyNetwork, choose_device, split_gaussian
from schemas.errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predictions for objects, in the unit of the target; arrays are (object,)."""

    mean: NDArray[np.float64]
    """Mean over the views."""
    view_spread: NDArray[np.float64]
    """Standard deviation over the views, a measure of the dependence on orientation. NaN for a single view."""
    embedding: NDArray[np.float32]
    """Features of the body, averaged over image and views, (object, feature); invariant to rotations by 90 degrees."""
    sigma: NDArray[np.float64]
    """Predicted standard deviation of the error; NaN if the network was not trained to predict it."""
    ensemble_spread: NDArray[np.float64]
    """Standard deviation over the members of an ensemble; NaN for a single model."""
    further: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Predictions of the further targets by column, in their units."""


def predict(
    model: Model,
    pixels: Counts,
    *,
    views: Literal[1, 8] = 8,
    batch_size: int = 256,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> Prediction:
    """Score images, (object, y, x, band) counts at the model's level, without NaN.

    Parameters
    ----------
    model
        Trained or loaded model. Its scale rule is not checked: see `Model.require_scale`.
    views
        8: mean over D4, invariant to rotations by 90 degrees and reflections. 1: the unchanged image.
    batch_size
        Number of images scored together; it changes results by less than 1e-5 label units on a CPU. On a GPU the body
        runs in bfloat16, and results change by its rounding.

    Raises
    ------
    StoreError
        Pixels have another level or number of bands than the training images.

    Notes
    -----
    Views are averaged in float32 before the mean label is added: at 8.9, the spacing of bfloat16 is 0.06 dex.
    """
    source = place_pixels(pixels, torch.device("cpu"))
    return predict_pixels(model, source, views=views, batch_size=batch_size, device=device)


def predict_pixels(
    model: Model,
    pixels: Pixels,
    *,
    views: Literal[1, 8] = 8,
    batch_size: int = 256,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> Prediction:
    """Score images of any source, as `predict` does."""
    _check_pixels(model, pixels)
    if views not in (1, N_VIEWS):
        raise ValueError(f"views = {views}: give 8 (all of D4) or 1 (the unchanged image)")
    torch_device = choose_device(device)
    network = model.network.to(torch_device).to(memory_format=torch.channels_last)
    config, n = model.config, pixels.shape[0]
    scale = config.label_scale
    pooled = torch.zeros((n, network.n_features), dtype=torch.float32, device=torch_device)
    if not n:
        empty, features = np.empty(0), pooled.cpu().numpy()
        return Prediction(mean=empty, view_spread=empty, embedding=features, sigma=empty, ensemble_spread=empty)
    by_view = predict_views(
        network,
        pixels,
        normalisation=config.normalisation,
        views=views,
        batch_size=batch_size,
        device=torch_device,
        pooled=pooled,
    )
    mean = by_view.mean(dim=0).numpy()
    spread = by_view[:, :, 0].std(dim=0, correction=0).numpy().astype(np.float64) * scale.std
    unknown = np.full(n, np.nan)
    return Prediction(
        mean=scale.restore(mean[:, 0]),
        view_spread=spread if views > 1 else unknown,
        embedding=(pooled / views).cpu().numpy(),
        sigma=_sigma(by_view) * scale.std if config.gives_sigma else unknown,
        ensemble_spread=unknown,
        further={
            name: config.label_scales[column].restore(mean[:, column])
            for column, name in enumerate(config.targets[1:], start=1)
        },
    )


def combine_predictions(predictions: Sequence[Prediction]) -> Prediction:
    """Combine the predictions of the members of an ensemble for the same objects; a single one is returned unchanged.

    `mean` and `further` are means over the members (`further`: common targets only), `ensemble_spread` is the
    standard deviation of their means, `view_spread` the root mean square of their spreads. `sigma` is the standard
    deviation of the mixture of the members' normal distributions, sqrt(mean(sigma^2 + mean^2) - mean^2), as in
    Lakshminarayanan et al. (2017), section 2.4; NaN unless all members predict sigma. `embedding` is the first
    member's, since embeddings of different networks cannot be averaged.
    """
    if len(predictions) == 1:
        return predictions[0]
    means = np.stack([member.mean for member in predictions])
    spread = means.std(axis=0)
    common = [name for name in predictions[0].further if all(name in member.further for member in predictions)]
    return Prediction(
        mean=means.mean(axis=0),
        view_spread=np.sqrt(np.mean([member.view_spread**2 for member in predictions], axis=0)),
        embedding=predictions[0].embedding,
        sigma=np.sqrt(np.mean([member.sigma**2 for member in predictions], axis=0) + spread**2),
        ensemble_spread=spread,
        further={name: np.mean([member.further[name] for member in predictions], axis=0) for name in common},
    )


def _sigma(by_view: Tensor) -> NDArray[np.float64]:
    """Return the root of the mean variance over the views of the first target, in standardised units."""
    n_views, n_objects, n_outputs = by_view.shape
    _, log_variance = split_gaussian(by_view.reshape(-1, n_outputs))
    variance = torch.exp(log_variance[:, 0].double()).reshape(n_views, n_objects).mean(dim=0)
    return np.asarray(variance.sqrt().numpy(), dtype=np.float64)


@torch.inference_mode()
def predict_views(
    network: GalaxyNetwork,
    pixels: Pixels,
    *,
    normalisation: Normalisation,
    views: int,
    batch_size: int,
    device: torch.device,
    pooled: Tensor | None = None,
) -> Tensor:
    """Return the outputs of the network for each view of each image, (view, object, output) float32, on the CPU.

    The network, on `device`, is set to evaluation mode. Views are those of D4 from view 0 on. The averaged features of
    each view are added to `pooled`, (object, feature) on `device`.
    """
    network.eval()
    n, side_y, side_x, n_bands = pixels.shape
    predicted = torch.empty((views, n, network.n_outputs), dtype=torch.float32, device=device)
    in_order = np.argsort(pixels.rows, kind="stable")
    order = [in_order[start : start + batch_size] for start in range(0, n, batch_size)]
    n_threads = torch.get_num_threads() if device.type == "cpu" else 1
    shape = (math.ceil(min(batch_size, n) / n_threads), side_y, side_x, n_bands)
    buffers = [FloatBuffer(normalisation, shape, device) for _ in range(n_threads)]

    @torch.inference_mode()
    def score(floats: FloatBuffer, chosen: NDArray[np.int64], counts: Tensor) -> None:
        places = torch.from_numpy(chosen).to(device)
        for view in range(views):
            images = floats.write(counts, np.full(len(counts), view), n_threads=1)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                outputs, features = network.predict_and_pool(images)
            predicted[view, places] = outputs
            if pooled is not None:
                pooled[places] += features

    for chosen, counts in zip(order, pixels.batches(order), strict=True):
        if n_threads == 1:
            score(buffers[0], chosen, counts)
            continue
        parts = zip(buffers, np.array_split(chosen, n_threads), counts.tensor_split(n_threads), strict=True)
        for future in [_network_threads(n_threads).submit(score, *part) for part in parts if len(part[1])]:
            future.result()
    return predicted.cpu()


@cache
def _network_threads(n: int) -> ThreadPoolExecutor:
    """Return threads that each run torch on one core.

    They synchronise once per batch, torch's own threads in every layer: 1.4 times as fast, and less sensitive to other
    load on a core.
    """
    all_started = Barrier(n)

    def begin() -> None:
        torch.set_num_threads(1)
        # the first query fixes the number of this thread
        torch.get_num_threads()
        all_started.wait()

    pool = ThreadPoolExecutor(n, thread_name_prefix="network", initializer=begin)
    for ready in [pool.submit(torch.get_num_threads) for _ in range(n)]:
        ready.result()
    # set_num_threads in a thread also changes the default of later threads: restore it
    torch.set_num_threads(n)
    return pool


def _check_pixels(model: Model, pixels: Pixels) -> None:
    side, n_bands = model.config.level, len(model.config.bands)
    if pixels.shape[1:] != (side, side, n_bands):
        raise StoreError(
            f"pixels have shape {pixels.shape}, model {model.config.model_id} expects (object, {side}, {side}, "
            f"{n_bands}): read them from level {side}"
        )

"""Scoring: a network's predictions, averaged over the views of each image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from threading import Barrier
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.loading.augment import N_VIEWS
from modeling.loading.batches import FloatBuffer
from modeling.loading.normalisation import Normalisation
from modeling.loading.pixels import Pixels, place_pixels
from modeling.models.model import Model
from modeling.models.networks import GalaxyNetwork, choose_device, split_gaussian
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
    sigma: NDArray[np.float64]
    """Standard deviation of the error as the network sees it, over the views; NaN where it was not trained to."""
    ensemble_spread: NDArray[np.float64]
    """Standard deviation over the members of an ensemble; NaN for one model."""
    further: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Mean of each further target, in its unit."""


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
    """Score images of any source, as of `predict`."""
    _check_pixels(model, pixels)
    if views not in (1, N_VIEWS):
        raise ValueError(f"views = {views}: give 8 (all of D4) or 1 (the image as it is)")
    where = choose_device(device)
    network = model.network.to(where).to(memory_format=torch.channels_last)
    config, n = model.config, pixels.shape[0]
    scale = config.label_scale
    pooled = torch.zeros((n, network.n_features), dtype=torch.float32, device=where)
    if not n:
        nothing = np.empty(0)
        return Prediction(
            mean=nothing, view_spread=nothing, embedding=pooled.cpu().numpy(), sigma=nothing, ensemble_spread=nothing
        )
    by_view = predict_views(
        network, pixels, normalisation=config.normalisation, views=views, batch_size=batch_size, device=where,
        pooled=pooled,
    )  # fmt: skip
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
            name: one.restore(mean[:, column])
            for column, (name, one) in enumerate(zip(config.targets, config.label_scales, strict=True))
            if column
        },
    )


def combine_predictions(predictions: Sequence[Prediction]) -> Prediction:
    """The prediction of an ensemble from those of its members, for the same objects; one alone is returned as it is.

    Parameters
    ----------
    predictions
        Of each member, in label units.

    Returns
    -------
    Prediction
        `mean` and `further` are means over the members (further targets that all members have), `ensemble_spread` the
        standard deviation of their means, `view_spread` the root of their mean squared spreads. `sigma` is that of the
        mixture of the members' normal distributions, sqrt(mean(sigma^2 + mean^2) - mean^2), as in Lakshminarayanan et
        al. (2017), section 2.4; NaN unless every member predicts one. `embedding` is the first member's:
        those of different networks have no axes in common.

    Raises
    ------
    ValueError
        No predictions.
    """
    if not predictions:
        raise ValueError("an ensemble without members predicts nothing: give at least one prediction")
    if len(predictions) == 1:
        return predictions[0]
    means = np.stack([one.mean for one in predictions])
    spread = means.std(axis=0)
    common = [name for name in predictions[0].further if all(name in one.further for one in predictions)]
    return Prediction(
        mean=means.mean(axis=0),
        view_spread=np.sqrt(np.mean([one.view_spread**2 for one in predictions], axis=0)),
        embedding=predictions[0].embedding,
        sigma=np.sqrt(np.mean([one.sigma**2 for one in predictions], axis=0) + spread**2),
        ensemble_spread=spread,
        further={name: np.mean([one.further[name] for one in predictions], axis=0) for name in common},
    )


def _sigma(by_view: Tensor) -> NDArray[np.float64]:
    """Root of the mean variance over the views of the first target, in its standard deviations."""
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
    """Outputs of the network for each view of each image.

    Parameters
    ----------
    network
        On `device`; put into evaluation mode.
    pixels
        Images of at least one object.
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
        (view, object, output) float32, on the CPU.
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
        for done in [_network_threads(n_threads).submit(score, *part) for part in parts if len(part[1])]:
            done.result()
    return predicted.cpu()


@cache
def _network_threads(n: int) -> ThreadPoolExecutor:
    """Threads in each of which torch computes by itself.

    They wait for each other once a batch, where torch's own threads do so in every layer: 1.4 times as fast, and a
    core that has something else to do for a moment holds up no other.
    """
    all_there = Barrier(n)

    def begin() -> None:
        torch.set_num_threads(1)
        # asked once, a thread keeps its number
        torch.get_num_threads()
        all_there.wait()

    pool = ThreadPoolExecutor(n, thread_name_prefix="network", initializer=begin)
    for ready in [pool.submit(torch.get_num_threads) for _ in range(n)]:
        ready.result()
    # a thread's own number is also what threads that are yet to come start with
    torch.set_num_threads(n)
    return pool


def _check_pixels(model: Model, pixels: Pixels) -> None:
    side, n_bands = model.config.level, len(model.config.bands)
    if pixels.shape[1:] != (side, side, n_bands):
        raise StoreError(
            f"pixels have shape {pixels.shape}; model {model.config.model_id} reads (object, {side}, {side}, "
            f"{n_bands}): take them from level {side}"
        )

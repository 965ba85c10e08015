"""Training of a network on arrays: one loop, from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from modeling.batches import TrainingBatches, place_pixels
from modeling.losses import rmse_loss
from modeling.metrics import Regression
from modeling.networks import GalaxyNetwork, build_network, choose_device, load_pretrained_weights
from modeling.normalisation import LabelScale, Normalisation
from modeling.predict import predict_views
from schemas.errors import TrainingError
from schemas.recipes import NetworkSection, TrainSection

WARM_UP = 0.3
"""Share of the steps in which the learning rate rises. Not 1/k: in a run of k steps, torch then divides by zero."""

AVERAGED_SHARE = 0.1
"""The weights that are kept average over about this share of the run's steps."""

BODY_RATE = 0.1
"""Learning rate of a body that starts from trained weights, relative to the head's, which starts from random ones."""

VALIDATION_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One line of the training log. RMSE and NMAD are of the validation rows, one view each, in the label's unit."""

    epoch: int
    """From 1."""
    seconds: float
    """Of the training steps, validation left out."""
    images_per_s: float
    train_loss: float
    """Mean over the batches, in standard deviations of the label."""
    rmse: float
    nmad: float
    learning_rate: float
    """At the end of the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedNetwork:
    """What training leaves behind: the averaged weights of the best epoch, and what is needed to use them."""

    network: GalaxyNetwork
    """On the CPU, in evaluation mode."""
    normalisation: Normalisation
    label_scale: LabelScale
    log: tuple[EpochRecord, ...]
    best_epoch: int
    """From 1; the one with the lowest validation RMSE."""


def train_network(
    *,
    pixels: NDArray[Any],
    labels: NDArray[np.float64],
    validation_pixels: NDArray[Any],
    validation_labels: NDArray[np.float64],
    network: NetworkSection,
    train: TrainSection,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainedNetwork:
    """Train a network, and keep the epoch that does best on the validation rows.

    AdamW under a one-cycle schedule (Smith & Topin 2019) on the RMSE of standardised labels; images are turned
    and mirrored at random. What is validated and kept is a moving average of the weights.

    Parameters
    ----------
    pixels, validation_pixels
        (object, y, x, band) counts at `network.level`: uint8, or float32 at 16 px and below.
    labels, validation_labels
        (object,) float64, without NaN.
    network, train
        Sections of the recipe.
    on_epoch
        Called after each epoch.

    Returns
    -------
    TrainedNetwork
        On a CPU, the same arrays, sections and number of threads give the same bits.

    Raises
    ------
    TrainingError
        Rows that do not fit together, labels that are NaN or all equal, too few rows, or a loss that diverges.
    WeightsError
        The weights to start from are missing or damaged.
    """
    _check_rows("training", pixels, labels, level=network.level)
    _check_rows("validation", validation_pixels, validation_labels, level=network.level)
    device = choose_device(train.device)
    label_scale = LabelScale.of(labels)
    resident, resident_validation = place_pixels(pixels, device), place_pixels(validation_pixels, device)
    normalisation = Normalisation.of(resident)
    targets = torch.from_numpy(label_scale.standardise(labels))[:, None].to(device)
    batches = TrainingBatches(
        resident,
        targets,
        normalisation=normalisation,
        batch_size=train.batch_size,
        seed=train.seed,
    )
    n_steps = train.epochs * len(batches)
    log: list[EpochRecord] = []
    best_epoch, best_rmse = 0, float("inf")

    # dropout and first weights draw from torch's generator: seeded here, and put back as it was afterwards
    with torch.random.fork_rng():
        torch.manual_seed(train.seed)
        trained = build_network(network)
        load_pretrained_weights(trained, network)
        trained.to(device).to(memory_format=torch.channels_last)
        averaging = AveragedModel(trained, multi_avg_fn=_moving_average(n_steps), use_buffers=True)
        averaged = cast(GalaxyNetwork, averaging.module)
        body_rate = train.learning_rate * (1 if network.weights == "none" else BODY_RATE)
        optimizer = torch.optim.AdamW(
            [{"params": trained.body.parameters()}, {"params": trained.head.parameters()}],
            lr=train.learning_rate,
            weight_decay=train.weight_decay,
            betas=(0.9, 0.99),
        )
        schedule = OneCycleLR(optimizer, [body_rate, train.learning_rate], total_steps=n_steps, pct_start=WARM_UP)

        for epoch in range(1, train.epochs + 1):
            started = time.perf_counter()
            trained.train()
            total_loss = torch.zeros((), device=device)
            for images, true in batches.epoch(epoch):
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                    predicted = trained(images)
                loss = rmse_loss(predicted, true)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                averaging.update_parameters(trained)
                total_loss += loss.detach()
            # one look an epoch: reading the loss of each step would make the GPU wait
            train_loss = total_loss.item() / len(batches)
            seconds = time.perf_counter() - started
            if not np.isfinite(train_loss):
                raise _diverged(epoch, train)

            standardised = predict_views(
                averaged,
                resident_validation,
                normalisation=normalisation,
                views=1,
                batch_size=VALIDATION_BATCH,
                device=device,
            )[0].numpy()
            if not np.isfinite(standardised).all():
                raise _diverged(epoch, train)
            validation = Regression.of(validation_labels, label_scale.restore(standardised))
            if validation.rmse < best_rmse:
                best_epoch, best_rmse = epoch, validation.rmse
                best_weights = {name: value.clone() for name, value in averaged.state_dict().items()}
            log.append(
                EpochRecord(
                    epoch=epoch,
                    seconds=seconds,
                    images_per_s=len(labels) / seconds,
                    train_loss=train_loss,
                    rmse=validation.rmse,
                    nmad=validation.nmad,
                    learning_rate=float(schedule.get_last_lr()[-1]),
                )
            )
            if on_epoch is not None:
                on_epoch(log[-1])

    trained.load_state_dict(best_weights)
    return TrainedNetwork(
        network=trained.cpu().eval(),
        normalisation=normalisation,
        label_scale=label_scale,
        log=tuple(log),
        best_epoch=best_epoch,
    )


def _moving_average(n_steps: int) -> Any:
    # an average over k steps decays by 1 - 1/k; a run of a few steps is hardly averaged at all
    decay = 1 - 1 / max(1.0, AVERAGED_SHARE * n_steps)
    return get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch leaves it without types


def _diverged(epoch: int, train: TrainSection) -> TrainingError:
    return TrainingError(
        f"the loss is no longer a number in epoch {epoch} of {train.epochs}: lower train.learning_rate "
        f"(now {train.learning_rate:g}) by a factor of 3 to 10, or check the pixels for NaN"
    )


def _check_rows(name: str, pixels: NDArray[Any], labels: NDArray[np.float64], *, level: int) -> None:
    if pixels.ndim != 4 or pixels.shape[1:3] != (level, level) or labels.shape != pixels.shape[:1]:
        raise TrainingError(
            f"{name} pixels have shape {pixels.shape} and labels {labels.shape}: expected (object, {level}, {level}, "
            f"band) and (object,), as network.level = {level}"
        )
    if pixels.dtype not in (np.uint8, np.float32):
        raise TrainingError(f"{name} pixels are {pixels.dtype}: expected counts as uint8 or float32")
    n_without = int(np.count_nonzero(~np.isfinite(labels)))
    if n_without:
        raise TrainingError(f"{n_without} of {len(labels)} {name} rows have no label (NaN): leave them out")
    if len(labels) < 2:
        raise TrainingError(
            f"{len(labels)} {name} rows: expected at least 2; give the survey more objects or the split another share"
        )

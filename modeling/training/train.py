"""Training loop of a network."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from modeling.evaluation.metrics import Regression
from modeling.loading.batches import TrainingBatches
from modeling.loading.normalisation import LabelScale, Normalisation
from modeling.loading.pixels import Counts, Pixels, measure_normalisation, place_pixels
from modeling.loading.ranks import Ranks, current_ranks
from modeling.models.networks import GalaxyNetwork, build_network, choose_device, load_pretrained_weights
from modeling.models.training_log import EpochRecord
from modeling.scoring.predict import predict_views
from modeling.training.losses import gaussian_loss, rmse_loss
from modeling.training.resume import ResumeFile, RunState
from modeling.training.schedules import freeze_body, plan_optimisation
from schemas.errors import TrainingError
from schemas.fingerprints import fingerprint
from schemas.recipes import NetworkSection, TrainSection

AVERAGED_SHARE = 0.1
"""Share of the steps over which the moving average of the weights extends."""
VALIDATION_BATCH = 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedNetwork:
    """Result of a training: the network of the best epoch with its normalisation, label scales and log."""

    network: GalaxyNetwork
    """On the CPU, in evaluation mode."""
    normalisation: Normalisation
    label_scales: tuple[LabelScale, ...]
    log: tuple[EpochRecord, ...]
    best_epoch: int
    """Epoch (from 1) with the lowest validation RMSE of the first target."""


def train_network(
    *,
    pixels: Counts | Pixels,
    labels: NDArray[np.float64],
    validation_pixels: Counts | Pixels,
    validation_labels: NDArray[np.float64],
    network: NetworkSection,
    train: TrainSection,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    resume_path: Path | None = None,
) -> TrainedNetwork:
    """Train a network and return the epoch with the lowest validation error.

    Images are rotated and mirrored at random. `train.method` selects optimiser and schedule
    (`modeling.training.schedules`). With 'one_cycle', a moving average of the weights is validated and returned.

    Parameters
    ----------
    pixels, validation_pixels
        (object, y, x, band) counts at `network.level`: uint8, or float32 at 16 px and below.
    labels, validation_labels
        (object,) without NaN, or (object, target) with NaN for missing labels. Each object needs one label, and each
        target at least one object.
    on_epoch
        Called after each epoch of this process.
    resume_path
        File for the state, written every `train.save_every_s` seconds. A killed run resumes from it; on a CPU the
        result is bit-identical to an uninterrupted run.

    Returns
    -------
    TrainedNetwork
        On a CPU, bit-identical for the same pixels (from any source), sections and number of threads.

    Raises
    ------
    TrainingError
        Pixels and labels do not match, labels are missing or all equal, rows are too few, or the loss diverges.
    WeightsError
        The pretrained weights are missing or damaged, or the saved state is damaged.
    """
    device, ranks = choose_device(train.device), current_ranks()
    true, validation_true = (a[:, None] if a.ndim == 1 else a for a in (labels, validation_labels))
    source = _check_rows("training", pixels, true, network, train, device)
    validation = _check_rows("validation", validation_pixels, validation_true, network, train, device)
    scales = tuple(LabelScale.of(column[np.isfinite(column)]) for column in true.T)
    standardised = np.stack([s.standardise(column) for s, column in zip(scales, true.T, strict=True)], axis=1)
    normalisation = measure_normalisation(source)
    batches = TrainingBatches(
        source,
        torch.from_numpy(standardised).to(device),
        normalisation=normalisation,
        batch_size=train.batch_size,
        seed=train.seed,
        ranks=ranks,
    )
    loss_of = gaussian_loss if train.loss == "gaussian" else rmse_loss
    n_outputs = len(scales) * (2 if train.loss == "gaussian" else 1)

    # initial weights and dropout draw from torch's generator: seeded here, and restored afterwards
    with torch.random.fork_rng():
        torch.manual_seed(train.seed)
        trained = build_network(network, n_targets=n_outputs)
        load_pretrained_weights(trained, network)
        ranks.synchronise_batch_norm(trained)
        trained.to(device).to(memory_format=torch.channels_last)
        averaging = AveragedModel(trained, multi_avg_fn=_moving_average(train, len(batches)), use_buffers=True)
        averaged, n_steps, pretrained = cast(GalaxyNetwork, averaging.module), len(batches), network.weights != "none"
        optimizer, schedule = plan_optimisation(trained, train, steps_per_epoch=n_steps, pretrained=pretrained)
        run = RunState(trained, averaging, optimizer, schedule, torch.zeros((), device=device))
        identity = fingerprint(network=network, train=train.identity(), labels=_digest(true), rows=_digest(source.rows))
        resume_file = None if resume_path is None else ResumeFile(resume_path, identity)
        if resume_file is not None and (state := resume_file.read()) is not None:
            run.restore(state)
        if not ranks.is_first:
            # dropout differs between ranks
            torch.manual_seed(hash((train.seed, ranks.rank, run.epoch, run.step)) % 2**63)
            resume_file = None

        while run.epoch <= train.epochs and not run.is_stale(train.patience):
            freeze_body(trained, train, epoch=run.epoch)
            speed = _train_epoch(
                run, batches, loss_of, ranks, resume_file, n_epochs=train.epochs, save_every_s=train.save_every_s
            )
            # read once per epoch: reading the loss of each step would make the GPU wait
            train_loss = run.total_loss.item() / len(batches)
            outputs = predict_views(
                averaged, validation, normalisation=normalisation, views=1, batch_size=VALIDATION_BATCH, device=device
            )[0, :, 0].numpy()
            if not (np.isfinite(train_loss) and np.isfinite(outputs).all()):
                raise TrainingError(
                    f"the loss is not finite in epoch {run.epoch} of {train.epochs}: lower train.learning_rate "
                    f"(now {train.learning_rate:g}) by a factor of 3 to 10, or check the pixels for NaN"
                )
            known = np.isfinite(validation_true[:, 0])
            result = Regression.of(validation_true[known, 0], scales[0].restore(outputs)[known])
            record = EpochRecord(
                epoch=run.epoch,
                train_loss=train_loss,
                rmse=result.rmse,
                nmad=result.nmad,
                learning_rate=float(schedule.get_last_lr()[-1]),
                **speed,
            )
            run.finish_epoch(record)
            if resume_file is not None:
                resume_file.write(run.to_dict())
            if ranks.is_first:
                _log.info("epoch %d of %d: %s", record.epoch, train.epochs, record.summary)
            if on_epoch is not None:
                on_epoch(record)

    trained.load_state_dict(run.best_weights)
    trained.requires_grad_(requires_grad=True)
    if resume_file is not None:
        resume_file.delete()
    return TrainedNetwork(
        network=trained.cpu().eval(),
        normalisation=normalisation,
        label_scales=scales,
        log=tuple(run.log),
        best_epoch=run.best_epoch,
    )


def _train_epoch(
    run: RunState,
    batches: TrainingBatches,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    ranks: Ranks,
    resume_file: ResumeFile | None,
    *,
    n_epochs: int,
    save_every_s: float,
) -> dict[str, float]:
    """Train the rest of an epoch and return its duration, images per second and share of time spent waiting."""
    run.network.train()
    started = requested = time.perf_counter()
    waited_s, n_images = 0.0, 0
    for images, targets in batches.epoch(run.epoch, first_step=run.step, another_follows=run.epoch < n_epochs):
        waited_s += time.perf_counter() - requested
        device_type = images.device.type
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=device_type == "cuda"):
            predicted = run.network(images)
        loss = loss_of(ranks.gather(predicted, len(targets)), targets)
        run.optimizer.zero_grad()
        torch.autograd.backward(loss)
        ranks.average_gradients(run.network)
        run.optimizer.step()
        run.schedule.step()
        run.averaging.update_parameters(run.network)
        run.total_loss += loss.detach()
        run.step += 1
        n_images += len(targets)
        if resume_file is not None and time.monotonic() - run.saved_s >= save_every_s:
            resume_file.write(run.to_dict())
        requested = time.perf_counter()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "images_per_s": n_images / seconds, "waiting_share": waited_s / seconds}


def _moving_average(train: TrainSection, steps_per_epoch: int) -> Callable[..., None]:
    # an average over k steps decays by 1 - 1/k; runs of a few steps are hardly averaged
    n_steps = train.epochs * steps_per_epoch
    decay = 1 - 1 / max(1.0, AVERAGED_SHARE * n_steps) if train.method == "one_cycle" else 0.0
    return cast(Callable[..., None], get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]  # untyped in torch


def _digest(values: NDArray[np.float64] | NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _check_rows(
    name: str,
    pixels: Counts | Pixels,
    labels: NDArray[np.float64],
    network: NetworkSection,
    train: TrainSection,
    device: torch.device,
) -> Pixels:
    """Return the pixels as a source, after checking them and the labels."""
    level = network.level
    if len(pixels.shape) != 4 or pixels.shape[1:3] != (level, level) or len(labels) != pixels.shape[0]:
        raise TrainingError(
            f"{name} pixels have shape {tuple(pixels.shape)} and labels {labels.shape[:1]}: expected (object, {level}, "
            f"{level}, band) and (object,), as network.level = {level}"
        )
    if isinstance(pixels, np.ndarray) and pixels.dtype not in (np.uint8, np.float32):
        raise TrainingError(f"{name} pixels are {pixels.dtype}: expected counts as uint8 or float32")
    if labels.shape[1] != len(train.targets):
        raise TrainingError(
            f"{name} labels have {labels.shape[1]} columns: expected one for each of {', '.join(train.targets)}"
        )
    known = np.isfinite(labels)
    n_without = int(np.count_nonzero(~known.any(axis=1)))
    if n_without:
        raise TrainingError(f"{n_without} of {len(labels)} {name} rows lack a label (NaN): leave them out")
    if len(labels) < 2:
        raise TrainingError(
            f"{len(labels)} {name} rows: expected at least 2; add objects to the survey or change the split"
        )
    for target, n_known in zip(train.targets, known.sum(axis=0).tolist(), strict=True):
        if not n_known:
            raise TrainingError(f"no {name} row has the label {target}: remove it from the targets of the recipe")
    return place_pixels(pixels, device) if isinstance(pixels, np.ndarray) else pixels

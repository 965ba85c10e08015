"""Training curves of a stored model: a figure, or event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from galstore.atomic_write import atomic_file
from schemas.errors import ExportError, TrainingError, WeightsError

if TYPE_CHECKING:
    from modeling.models.stored_model import StoredModel
    from modeling.models.training_log import EpochRecord

TAGS = {"train_loss": "train/loss", "rmse": "validation/rmse", "nmad": "validation/nmad"}
"""Tags of TensorBoard; the other numbers of an epoch go to `training/`."""
NOT_CURVES = ("epoch", "seconds")


def read_curve(model: StoredModel) -> tuple[EpochRecord, ...]:
    """Return the epochs of a stored model's training, in order.

    Raises
    ------
    WeightsError
        The log is damaged, or from another version.
    TrainingError
        No epoch was logged.
    """
    model.require_sound("config.json", "training_log.jsonl")
    if not model.log:
        raise TrainingError(f"model {model.model_id} has 0 epochs in its training log: train it again to draw a curve")
    from modeling.models.training_log import EpochRecord

    try:
        return tuple(EpochRecord(**record) for record in model.log)
    except TypeError as error:
        raise WeightsError(
            f"the training log of model {model.model_id} has other columns than those of this version ({error}): "
            f"read {model.folder / 'training_log.jsonl'} directly"
        ) from error


def write_training_curve(path: Path, model: StoredModel) -> None:
    """Write a PNG file of RMSE and NMAD against epochs, atomically."""
    log = read_curve(model)
    from modeling.figures.predictions import draw_training
    from modeling.figures.style import figure_png

    image = figure_png(draw_training(log, best_epoch=model.config["best_epoch"]))
    with atomic_file(path) as draft:
        draft.write_bytes(image)


def write_tensorboard(folder: Path, log: Sequence[EpochRecord]) -> int:
    """Write a training log as event files, with one point per epoch and number; return the number of points.

    Parameters
    ----------
    folder
        Folder of this training alone: TensorBoard names a curve after its folder.
    log
        Epochs in order. TensorBoard's wall clock starts at zero and counts the seconds of the training steps.

    Raises
    ------
    ExportError
        The library is not installed, or the folder holds event files, which would show every point twice.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ExportError(
            "event files need the library tensorboard, which is not installed: pip install 'galstore[tensorboard]'"
        ) from error
    if any(folder.glob("events.out.tfevents.*")):
        raise ExportError(f"{folder} already holds event files: delete them, or give another folder")
    wall_s, n_points = 0.0, 0
    writer = SummaryWriter(str(folder))
    try:
        for record in log:
            wall_s += record.seconds
            for name, value in asdict(record).items():
                if name not in NOT_CURVES and isinstance(value, int | float):
                    writer.add_scalar(TAGS.get(name, f"training/{name}"), value, record.epoch, walltime=wall_s)
                    n_points += 1
    finally:
        writer.close()
    return n_points

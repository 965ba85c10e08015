"""Training curves of a stored model: a figure, or event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import ExportError, TrainingError, WeightsError

if TYPE_CHECKING:
    from modeling.models.stored_model import StoredModel
    from modeling.models.training_log import EpochRecord

TAGS = {"train_loss": "train/loss", "rmse": "validation/rmse", "nmad": "validation/nmad"}
"""Groups of TensorBoard's page; every other number of an epoch goes to `training/`."""

NOT_CURVES = ("epoch", "seconds")


def read_curve(model: StoredModel) -> tuple[EpochRecord, ...]:
    """The epochs of a stored model's training, in order.

    Raises
    ------
    WeightsError
        The log is damaged, or another version's.
    TrainingError
        No epoch was logged.
    """
    model.require_sound("config.json", "training_log.jsonl")
    if not model.log:
        raise TrainingError(f"model {model.model_id} has no epoch in its training log: there is no curve to draw")
    from modeling.models.training_log import EpochRecord

    try:
        return tuple(EpochRecord(**record) for record in model.log)
    except TypeError as error:
        raise WeightsError(
            f"the training log of model {model.model_id} has other columns than this version's ({error}): read "
            f"{model.folder / 'training_log.jsonl'} as it is"
        ) from error


def write_training_curve(path: Path, model: StoredModel) -> None:
    """Draw RMSE and NMAD against epochs into a PNG file, whole or not at all."""
    log = read_curve(model)
    from modeling.figures.predictions import draw_training, figure_png

    image = figure_png(draw_training(log, best_epoch=model.config["best_epoch"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(image)
    draft.replace(path)


def write_tensorboard(folder: Path, log: Sequence[EpochRecord]) -> int:
    """Write a training log as event files, one point for each epoch and number.

    Parameters
    ----------
    folder
        Of this training alone: TensorBoard calls a curve by its folder.
    log
        The epochs in order. TensorBoard's wall clock runs from zero: an epoch stands where the training was, in
        seconds of its steps.

    Returns
    -------
    int
        Points that were written.

    Raises
    ------
    ExportError
        The library is not installed, or event files are there already, beside which every point would show twice.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ExportError(
            "event files need the library tensorboard, which is not installed: pip install 'galstore[tensorboard]'"
        ) from error
    if any(folder.glob("events.out.tfevents.*")):
        raise ExportError(f"{folder} holds event files already: delete them, or give another folder")
    wall_s, n_points = 0.0, 0
    writer: Any = SummaryWriter(str(folder))
    try:
        for record in log:
            wall_s += record.seconds
            for name, number in _numbers(record).items():
                writer.add_scalar(TAGS.get(name, f"training/{name}"), number, record.epoch, walltime=wall_s)
                n_points += 1
    finally:
        writer.close()
    return n_points


def _numbers(record: EpochRecord) -> dict[str, float]:
    return {
        name: value
        for name, value in asdict(record).items()
        if name not in NOT_CURVES and isinstance(value, int | float)
    }

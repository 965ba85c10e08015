"""Training log: one record for each epoch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One line of the training log. RMSE and NMAD are of the validation rows, one view each, in the label's unit."""

    epoch: int
    """From 1."""
    seconds: float
    """Of the training steps since the run was last started, validation left out."""
    images_per_s: float
    train_loss: float
    """Mean over the batches, of standardised labels."""
    rmse: float
    nmad: float
    learning_rate: float
    """At the end of the epoch."""
    waiting_share: float = 0.0
    """Share of the seconds in which the network waited for images."""


def read_training_log(folder: Path) -> tuple[EpochRecord, ...]:
    """The epochs of a model's training, in order."""
    lines = (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(EpochRecord(**json.loads(line)) for line in lines)

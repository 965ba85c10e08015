"""Training log: one record per epoch."""

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
    """Duration of the training steps since the last start of the run, without validation."""
    images_per_s: float
    train_loss: float
    """Mean over the batches, in standardised labels."""
    rmse: float
    nmad: float
    learning_rate: float
    """At the end of the epoch."""
    waiting_share: float = 0.0
    """Share of `seconds` spent waiting for images."""

    @property
    def summary(self) -> str:
        return f"validation RMSE {self.rmse:.4f}, NMAD {self.nmad:.4f}, {self.images_per_s:.0f} images/s"


def read_training_log(folder: Path) -> tuple[EpochRecord, ...]:
    lines = (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(EpochRecord(**json.loads(line)) for line in lines)

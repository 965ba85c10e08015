"""State of a running training on disk, from which a killed run continues to the same weights."""

from __future__ import annotations

import logging
import pickle
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from galstore.atomic_write import atomic_file
from modeling.models.networks import GalaxyNetwork
from modeling.models.training_log import EpochRecord
from schemas.errors import WeightsError

TrainingState: TypeAlias = dict[str, Any]
"""Tensors and plain values by name."""
_PARTS = ("network", "averaging", "optimizer", "schedule")
_VALUES = ("epoch", "step", "best_weights", "best_epoch", "best_rmse")

_log = logging.getLogger(__name__)


class RunState:
    """Changing state of a training, which is saved and restored."""

    def __init__(
        self,
        network: GalaxyNetwork,
        averaging: AveragedModel,
        optimizer: Optimizer,
        schedule: LRScheduler,
        zero: Tensor,
    ) -> None:
        self.network, self.averaging, self.optimizer, self.schedule = network, averaging, optimizer, schedule
        self.epoch, self.step = 1, 0
        self.total_loss = zero
        self.log: list[EpochRecord] = []
        self.best_epoch, self.best_rmse = 0, float("inf")
        self.best_weights: dict[str, Tensor] = {}
        self.saved_s = time.monotonic()

    def is_stale(self, patience: int) -> bool:
        """Return True if `patience` epochs have passed since the best one; 0 disables the check."""
        return bool(patience and self.log and self.epoch - 1 - self.best_epoch >= patience)

    def finish_epoch(self, record: EpochRecord) -> None:
        """Store the result of an epoch and advance to the next."""
        self.log.append(record)
        if record.rmse < self.best_rmse:
            self.best_epoch, self.best_rmse = record.epoch, record.rmse
            self.best_weights = {name: value.clone() for name, value in self.averaging.module.state_dict().items()}
        self.epoch, self.step = self.epoch + 1, 0
        self.total_loss.zero_()

    def to_dict(self) -> TrainingState:
        """Return all values that the next step depends on."""
        self.saved_s = time.monotonic()
        device = self.total_loss.device
        return {
            **{name: getattr(self, name).state_dict() for name in _PARTS},
            **{name: getattr(self, name) for name in _VALUES},
            "total_loss": self.total_loss,
            "log": [asdict(record) for record in self.log],
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0),
        }

    def restore(self, state: TrainingState) -> None:
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        for name in _VALUES:
            setattr(self, name, state[name])
        self.total_loss.copy_(state["total_loss"])
        self.log = [EpochRecord(**record) for record in state["log"]]
        torch.set_rng_state(state["random"])
        if self.total_loss.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_random"], self.total_loss.device)


class ResumeFile:
    """File with the full state of a training; a file of another training, by its fingerprint, is ignored."""

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._identity = identity

    def write(self, state: TrainingState) -> None:
        with atomic_file(self._path) as draft:
            torch.save({"identity": self._identity, **state}, draft)

    def read(self) -> TrainingState | None:
        """Return the saved state, or None. Only tensors and plain values are unpickled.

        Raises
        ------
        WeightsError
            The file is damaged.
        """
        if not self._path.is_file():
            return None
        try:
            state: TrainingState = torch.load(self._path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise WeightsError(
                f"{self._path} is not the progress of a training ({str(error).splitlines()[0][:80]}): delete it to "
                "start the training again"
            ) from error
        if state.get("identity") != self._identity:
            _log.info("ignored %s of another training", self._path)
            return None
        _log.info("resume training from %s at epoch %s, step %s", self._path, state.get("epoch"), state.get("step"))
        return state

    def delete(self) -> None:
        self._path.unlink(missing_ok=True)

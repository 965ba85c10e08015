"""State of a running training on disk, from which a killed run continues to the same weights."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any, TypeAlias

import torch

from galstore.atomic_write import atomic_file
from schemas.errors import WeightsError

TrainingState: TypeAlias = dict[str, Any]
"""Tensors and plain values by name."""

_log = logging.getLogger(__name__)


class ResumeFile:
    """File with the full state of a training.

    Parameters
    ----------
    path
    identity
        Fingerprint of the training; a file of another training is ignored.
    """

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

"""Progress of a training on disk, from which a killed run goes on to the very same weights."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from schemas.errors import WeightsError


class SavedProgress:
    """One file with everything that the next step depends on.

    Parameters
    ----------
    path
        Of the file; its folder is there.
    identity
        Of the training: what is in the file counts only where it is the same.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._identity = identity

    def write(self, state: dict[str, Any]) -> None:
        """Replace what was saved; a kill leaves the one or the other."""
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        torch.save({"identity": self._identity, **state}, draft)
        draft.replace(self._path)

    def read(self) -> dict[str, Any] | None:
        """What was saved, or None. Nothing is unpickled but tensors and plain values.

        Raises
        ------
        WeightsError
            The file is damaged.
        """
        if not self._path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise WeightsError(
                f"{self._path} holds no progress of a training ({str(error).splitlines()[0][:80]}): delete it, and the "
                "training starts anew"
            ) from error
        return state if state.get("identity") == self._identity else None

    def clear(self) -> None:
        """Forget it, since the training is over."""
        self._path.unlink(missing_ok=True)

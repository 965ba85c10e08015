"""Model store: a folder of trained models, with names that models are promoted to.

`<id>/` is written by `modeling.models.checkpoint`. `promoted.json` maps names to models and has the history:

    {"names": {"champion": "3f2a90c1b7de"},
     "history": [{"name": "champion", "model_id": "3f2a90c1b7de", "replaced": null, "time": "2026-11-24T12:00:00Z"}]}

Torch is loaded by `open_model` only, so that lists of models are fast. Nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from galstore.atomic_write import atomic_file
from modeling.models.stored_model import StoredModel, read_json, read_stored_model
from schemas.errors import StoreBusyError, WeightsError

if TYPE_CHECKING:
    from modeling.models.model import Model

STORE = "models"
"""Name of the store's folder within the output folder of a run."""
CHAMPION = "champion"
PROMOTIONS = "promoted.json"
LOCK_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """Assignment of a name to a model."""

    name: str
    model_id: str
    replaced: str | None
    """Previous model of this name."""
    time: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotions:
    """Content of promoted.json."""

    names: dict[str, str] = field(default_factory=dict)
    history: tuple[Promotion, ...] = ()
    """Oldest first."""

    def names_of(self, model_id: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, promoted in self.names.items() if promoted == model_id))


def list_models(models: Path) -> tuple[StoredModel, ...]:
    """Return all models of a store, damaged ones last, by target and ascending validation RMSE."""

    def rank(model: StoredModel) -> tuple[bool, str, float, str]:
        rmse = model.validation.get("rmse")
        return not model.is_sound, model.target, math.inf if rmse is None else rmse, model.model_id

    return tuple(sorted((read_stored_model(models / model_id) for model_id in _model_ids(models)), key=rank))


def resolve_model_id(models: Path, named: str) -> str:
    """Return the full id of a model, given an id, the beginning of an id, or a promoted name.

    Raises
    ------
    WeightsError
        No model or several models match, or the model of the name was deleted.
    """
    ids = _model_ids(models)
    if named in ids:
        return named
    names = read_promotions(models).names
    if named in names:
        if names[named] not in ids:
            raise WeightsError(
                f"{named!r} is the name of model {names[named]}, which is not in {models}: promote another model with "
                f"`galstore models promote ID --as {named}`"
            )
        return names[named]
    candidates = [model_id for model_id in ids if named and model_id.startswith(named)]
    if len(candidates) > 1:
        raise WeightsError(f"{named!r} matches {len(candidates)} models ({', '.join(candidates)}): give more of the id")
    if not candidates:
        close = get_close_matches(named, [*names, *ids], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "`galstore models list` shows the models"
        raise WeightsError(f"model {named!r} is not in {models}: {hint}")
    return candidates[0]


def find_model(models: Path, named: str) -> StoredModel:
    return read_stored_model(models / resolve_model_id(models, named))


def open_model(models: Path, named: str) -> Model:
    """Load a model, found as by `resolve_model_id`."""
    found = find_model(models, named).require_sound("config.json", "model.safetensors")
    from modeling.models.checkpoint import load_model

    return load_model(found.folder)


def promote_model(models: Path, named: str, *, name: str = CHAMPION) -> Promotion:
    """Assign a name to a model; recipes may use it as `score.model`.

    Readers see the old names or the new ones. Concurrent promotions are all recorded in the history. An earlier
    promotion is returned if the model had the name already.

    Parameters
    ----------
    named
        As for `resolve_model_id`: 'challenger' promotes the model that has this name now.
    name
        Letters, digits, - and _ after a first letter; must not look like an id.

    Raises
    ------
    WeightsError
        No model or several models match, the model is damaged, or the name is not allowed.
    StoreBusyError
        Other processes held the lock for 10 s.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name) or re.fullmatch(r"[0-9a-f]+", name):
        raise WeightsError(
            f"{name!r} cannot be a model's name: expected letters, digits, - and _ after a first letter, as in "
            "'champion', and not only the characters of ids (0-9, a-f)"
        )
    model_id = find_model(models, named).require_sound().model_id
    if name in _model_ids(models):
        raise WeightsError(f"{name!r} is the id of a model in {models}: choose another name")
    try:
        with FileLock(models / f".{PROMOTIONS}.lock", timeout=LOCK_TIMEOUT_S):
            before = read_promotions(models)
            replaced = before.names.get(name)
            if replaced == model_id:
                return next(promotion for promotion in reversed(before.history) if promotion.name == name)
            time = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            promotion = Promotion(name=name, model_id=model_id, replaced=replaced, time=time)
            names, history = {**before.names, name: model_id}, (*before.history, promotion)
            _write_promotions(models, Promotions(names=names, history=history))
    except Timeout as error:
        raise StoreBusyError(
            f"another process has locked {models / PROMOTIONS} for {LOCK_TIMEOUT_S} s: check whether it hangs, then "
            "run the same command again"
        ) from error
    return promotion


def read_promotions(models: Path) -> Promotions:
    """Read the promoted names and their history; raise `WeightsError` if promoted.json is damaged."""
    path = models / PROMOTIONS
    try:
        values = read_json(path)
        names, history = values["names"], tuple(Promotion(**entry) for entry in values["history"])
        if names != {promotion.name: promotion.model_id for promotion in history}:
            raise ValueError("names and history differ")
    except FileNotFoundError:
        return Promotions()
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(
            f"{path} is damaged ({type(error).__name__}: {error}): repair it by hand, or delete it and promote again"
        ) from error
    return Promotions(names=names, history=history)


def _write_promotions(models: Path, promotions: Promotions) -> None:
    with atomic_file(models / PROMOTIONS) as draft, draft.open("w", encoding="utf-8") as file:
        json.dump(asdict(promotions), file, indent=2)
        file.write("\n")
        file.flush()
        # a rename that reaches the disk before the bytes would leave an empty file after a power cut
        os.fsync(file.fileno())


def _model_ids(models: Path) -> Sequence[str]:
    # hidden folders are drafts of models that are being written
    entries = models.iterdir() if models.is_dir() else ()
    ids = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not ids:
        raise WeightsError(f"{models} has no models yet: train one with `galstore train RECIPE`")
    return ids

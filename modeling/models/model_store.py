"""The model store: the folders of trained models, side by side, and the names that some of them are promoted to.

`<id>/` is written by `checkpoint`. `promoted.json` says which model a name stands for, and who stood there
before:

    {"names": {"champion": "3f2a90c1b7de"},
     "history": [{"name": "champion", "model_id": "3f2a90c1b7de", "replaced": null, "time": "2026-11-24T12:00:00Z"}]}

Torch is loaded only where a network is: a list of models answers at once. Nothing is ever unpickled.
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
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from modeling.models.stored_model import StoredModel, read_stored_model
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
    """A name was given to a model."""

    name: str
    model_id: str
    replaced: str | None
    """The model that had the name before."""
    time: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotions:
    """What promoted.json says."""

    names: dict[str, str] = field(default_factory=dict)
    history: tuple[Promotion, ...] = ()
    """The oldest first."""

    def names_of(self, model_id: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, promoted in self.names.items() if promoted == model_id))


def list_models(models: Path) -> tuple[StoredModel, ...]:
    """Every model of a store, damaged ones too: by target, the lowest validation RMSE first.

    Raises
    ------
    WeightsError
        There is none.
    """
    return tuple(sorted((read_stored_model(models / model_id) for model_id in _model_ids(models)), key=_rank))


def resolve_model_id(models: Path, named: str) -> str:
    """The whole id of a model.

    Parameters
    ----------
    models
        Folder of the store.
    named
        An id, the beginning of one, or a name that a model was promoted to.

    Raises
    ------
    WeightsError
        No such model, several that begin so, or a name whose model is gone.
    """
    ids = _model_ids(models)
    if named in ids:
        return named
    names = read_promotions(models).names
    if named in names:
        if names[named] not in ids:
            raise WeightsError(
                f"{named!r} stands for model {names[named]}, which is no longer in {models}: promote another one with "
                f"`galstore models promote ID --as {named}`"
            )
        return names[named]
    candidates = [model_id for model_id in ids if named and model_id.startswith(named)]
    if len(candidates) > 1:
        raise WeightsError(f"{named!r} begins {len(candidates)} models ({', '.join(candidates)}): give more of the id")
    if not candidates:
        close = get_close_matches(named, [*names, *ids], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "`galstore models list` shows what is there"
        raise WeightsError(f"model {named!r} is not in {models}: {hint}")
    return candidates[0]


def find_model(models: Path, named: str) -> StoredModel:
    """A model by id, beginning of an id, or promoted name; errors as of `resolve_model_id`."""
    return read_stored_model(models / resolve_model_id(models, named))


def open_model(models: Path, named: str) -> Model:
    """Load a model's network by id, beginning of an id, or promoted name.

    Raises
    ------
    WeightsError
        No such model, or a damaged one.
    """
    found = find_model(models, named).require_sound("config.json", "model.safetensors")
    from modeling.models.checkpoint import load_model

    return load_model(found.folder)


def promote_model(models: Path, named: str, *, name: str = CHAMPION) -> Promotion:
    """Let a name stand for a model; recipes may use it as `score.model`.

    Readers see the old names or the new ones, and of several who promote at once each one is in the history.

    Parameters
    ----------
    models
        Folder of the store.
    named
        As for `resolve_model_id`: 'challenger' promotes the model that this name stands for now.
    name
        Letters, digits, - and _, from a letter on; and nothing that could be taken for an id.

    Returns
    -------
    Promotion
        The one that is in force: an older one where the model had the name already.

    Raises
    ------
    WeightsError
        No such model, a damaged one, or a name that cannot be one.
    StoreBusyError
        Others kept promoting for 10 s.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name) or re.fullmatch(r"[0-9a-f]+", name):
        raise WeightsError(
            f"{name!r} cannot be a model's name: expected letters, digits, - and _ after a first letter, and not the "
            "look of an id (0-9, a-f alone), as in 'champion'"
        )
    model_id = find_model(models, named).require_sound().model_id
    if name in _model_ids(models):
        raise WeightsError(f"{name!r} is the id of a model in {models}: choose another name")
    try:
        with FileLock(models / f".{PROMOTIONS}.lock", timeout=LOCK_TIMEOUT_S):
            before = read_promotions(models)
            replaced = before.names.get(name)
            if replaced == model_id:
                return next(one for one in reversed(before.history) if one.name == name)
            time = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            promotion = Promotion(name=name, model_id=model_id, replaced=replaced, time=time)
            _write_promotions(
                models, Promotions(names={**before.names, name: model_id}, history=(*before.history, promotion))
            )
    except Timeout as error:
        raise StoreBusyError(
            f"another process has been promoting in {models} for {LOCK_TIMEOUT_S} s: see whether it hangs, then run "
            "the same command again"
        ) from error
    return promotion


def read_promotions(models: Path) -> Promotions:
    """The names in force and their history; none where nothing was promoted yet.

    Raises
    ------
    WeightsError
        promoted.json is damaged.
    """
    path = models / PROMOTIONS
    try:
        values = _read_json(path)
        names, history = values["names"], tuple(Promotion(**one) for one in values["history"])
        named_last = {one.name: one.model_id for one in history}
        if names != named_last:
            raise ValueError("names and history differ")
    except FileNotFoundError:
        return Promotions()
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(
            f"{path} does not say which models are promoted ({type(error).__name__}: {error}): mend it by hand, or "
            "delete it and promote again"
        ) from error
    return Promotions(names=names, history=history)


def _write_promotions(models: Path, promotions: Promotions) -> None:
    draft = models / f".{PROMOTIONS}.{os.getpid()}"
    with draft.open("w", encoding="utf-8") as file:
        json.dump(asdict(promotions), file, indent=2)
        file.write("\n")
        file.flush()
        # a rename that reaches the disk before the bytes would leave an empty file after a power cut
        os.fsync(file.fileno())
    draft.replace(models / PROMOTIONS)


def _model_ids(models: Path) -> Sequence[str]:
    # hidden folders are drafts of models that are being written
    ids = sorted(
        entry.name for entry in (models.iterdir() if models.is_dir() else ()) if entry.is_dir() and entry.name[0] != "."
    )
    if not ids:
        raise WeightsError(f"there are no models in {models} yet: `galstore train RECIPE` puts one there")
    return ids


def _rank(model: StoredModel) -> tuple[bool, str, float, str]:
    rmse = model.validation.get("rmse")
    return not model.is_sound, model.target, math.inf if rmse is None else rmse, model.model_id


def _read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values

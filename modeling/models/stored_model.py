"""One stored model, looked at without its weights: what it is, how well it does, and which of its files are damaged.

Torch is not loaded and nothing is unpickled: config, metrics and log are JSON, and only the header of the weights is
read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from schemas.errors import WeightsError

LISTED_KEYS: dict[str, type] = {
    "model_id": str,
    "targets": list,
    "level": int,
    "arch": str,
    "training_set": str,
    "best_epoch": int,
}
"""Of config.json, what a list of models and a training curve tell; `checkpoint` checks all of its keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """One model folder, read without its weights. What could not be read is empty, and named in `problems`."""

    model_id: str
    """Name of the folder."""
    folder: Path
    config: dict[str, Any]
    """As config.json has it."""
    metrics: dict[str, dict[str, float | None]]
    """By what they were measured on."""
    card: str
    """README.md."""
    log: tuple[dict[str, Any], ...]
    """One record for each epoch."""
    written: datetime
    """When the folder's files came there, UTC; told to people, never used to choose a model."""
    problems: dict[str, str] = field(default_factory=dict)
    """By file: what is wrong with it."""

    @property
    def is_sound(self) -> bool:
        return not self.problems

    @property
    def target(self) -> str:
        """The column that is scored; empty where config.json is damaged."""
        return self.config["targets"][0] if self.config else ""

    @property
    def validation(self) -> dict[str, float | None]:
        """Metrics on the validation objects, in the unit of the target; empty where there are none."""
        return self.metrics.get("validation", {})

    def require_sound(self, *files: str) -> StoredModel:
        """The same model, if these files (all of them, where none is named) can be read.

        Raises
        ------
        WeightsError
            Naming each of the files that cannot.
        """
        bad = {name: text for name, text in self.problems.items() if not files or name in files}
        if bad:
            told = "; ".join(f"{name} {text}" for name, text in bad.items())
            raise WeightsError(
                f"model {self.model_id} is damaged: {told}. Nothing of it was loaded; move {self.folder} away and "
                "train it again"
            )
        return self


def read_stored_model(folder: Path) -> StoredModel:
    """Look at one model folder. Weights are judged by their header, which says how long the file must be."""
    problems: dict[str, str] = {}

    def read(name: str, parse: Callable[[Path], Any], default: Any) -> Any:
        try:
            return parse(folder / name)
        except FileNotFoundError:
            problems[name] = "is missing"
        except OSError as error:
            problems[name] = f"cannot be read ({error.strerror})"
        except UnicodeDecodeError:
            problems[name] = "is not text"
        except json.JSONDecodeError as error:
            problems[name] = f"is not JSON ({error})"
        except (SafetensorError, ValueError, RecursionError) as error:
            problems[name] = str(error).splitlines()[0]
        return default

    config = read("config.json", lambda path: _parse_config(path, folder.name), {})
    metrics = read("metrics.json", _parse_metrics, {})
    read("model.safetensors", lambda path: _check_weights(path, folder.name), None)
    log = read("training_log.jsonl", _parse_log, ())
    card = read("README.md", lambda path: path.read_text(encoding="utf-8"), "")
    dated = folder if "config.json" in problems else folder / "config.json"
    return StoredModel(
        model_id=folder.name, folder=folder, config=config, metrics=metrics, card=card, log=log,
        written=datetime.fromtimestamp(dated.stat().st_mtime, UTC).replace(microsecond=0), problems=problems,
    )  # fmt: skip


def _parse_config(path: Path, model_id: str) -> dict[str, Any]:
    values = _read_object(path)
    for key, kind in LISTED_KEYS.items():
        if not isinstance(values.get(key), kind):
            raise ValueError(f"has {key} = {values.get(key)!r}, expected {kind.__name__}")  # noqa: TRY004 - of a file's content
    targets = values["targets"]
    if not targets or not all(isinstance(one, str) for one in targets):
        raise ValueError(f"has targets = {targets!r}, expected names of columns")
    if values["model_id"] != model_id:
        raise ValueError(f"is of model {values['model_id']}, but stands in folder {model_id}")
    return values


def _parse_metrics(path: Path) -> dict[str, dict[str, float | None]]:
    values = _read_object(path)
    for name, numbers in values.items():
        # R² is null where the truth does not vary
        if not isinstance(numbers, dict) or not all(
            one is None or isinstance(one, int | float) for one in numbers.values()
        ):
            raise ValueError(f"has {name} = {str(numbers)[:60]}, expected numbers by name")
    return values


def _parse_log(path: Path) -> tuple[dict[str, Any], ...]:
    return tuple(_as_object(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())


def _read_object(path: Path) -> dict[str, Any]:
    return _as_object(json.loads(path.read_text(encoding="utf-8")))


def _as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"holds {str(value)[:40]!r}, expected keys and values")  # noqa: TRY004 - of a file's content
    return value


def _check_weights(path: Path, model_id: str) -> None:
    try:
        with safe_open(path, framework="np") as weights:
            theirs = (weights.metadata() or {}).get("model_id")
    except SafetensorError as error:
        raise ValueError(f"is not a whole file of weights ({error})") from error
    if theirs != model_id:
        raise ValueError(f"holds weights of model {theirs}")

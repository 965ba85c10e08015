"""Metadata of a stored model, with a report of damaged files.

Torch is not loaded and nothing is unpickled: config, metrics and log are JSON, and only the header of the weights is
read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from safetensors import SafetensorError, safe_open

from schemas.errors import WeightsError

JsonObject: TypeAlias = dict[str, Any]
LISTED_KEYS: dict[str, type] = {
    **dict.fromkeys(("model_id", "arch", "training_set"), str),
    **dict.fromkeys(("level", "best_epoch"), int),
    "targets": list,
}
"""Keys of config.json that lists and training curves need; `load_model` checks all keys."""
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """One model folder, read without its weights. Unreadable parts are empty and listed in `problems`."""

    model_id: str
    folder: Path
    config: JsonObject
    metrics: dict[str, dict[str, float | None]]
    """Metrics by data set, such as `validation`."""
    card: str
    """Content of README.md."""
    log: tuple[JsonObject, ...]
    written: datetime
    """Modification time of the files, UTC. For display only, never used to choose a model."""
    problems: dict[str, str] = field(default_factory=dict)
    """Problem of each damaged file, by file name."""

    @property
    def is_sound(self) -> bool:
        return not self.problems

    @property
    def target(self) -> str:
        """Scored column; empty if config.json is damaged."""
        return self.config["targets"][0] if self.config else ""

    @property
    def validation(self) -> dict[str, float | None]:
        """Metrics on the validation objects, in the unit of the target; empty if unknown."""
        return self.metrics.get("validation", {})

    def require_sound(self, *files: str) -> StoredModel:
        """Return this model if the given files (default: all) can be read; else raise `WeightsError`."""
        problems = [f"{name} {text}" for name, text in self.problems.items() if not files or name in files]
        if problems:
            raise WeightsError(
                f"model {self.model_id} is damaged: {'; '.join(problems)}. The model was not loaded; move "
                f"{self.folder} away and train it again"
            )
        return self


def read_stored_model(folder: Path) -> StoredModel:
    """Read the metadata of one model folder. Of the weights only the header is checked, with the length it states."""
    problems: dict[str, str] = {}

    def read(name: str, parse: Callable[[Path], _Value], default: _Value) -> _Value:
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

    config: JsonObject = read("config.json", lambda path: _read_config(path, folder.name), {})
    metrics: dict[str, dict[str, float | None]] = read("metrics.json", _read_metrics, {})
    read("model.safetensors", lambda path: _check_weights(path, folder.name), None)
    log: list[JsonObject] = read("training_log.jsonl", _read_log, [])
    card = read("README.md", _read_text, "")
    dated = folder if "config.json" in problems else folder / "config.json"
    return StoredModel(
        model_id=folder.name,
        folder=folder,
        config=config,
        metrics=metrics,
        card=card,
        log=tuple(log),
        written=datetime.fromtimestamp(dated.stat().st_mtime, UTC).replace(microsecond=0),
        problems=problems,
    )


def read_json(path: Path) -> JsonObject:
    """Read a JSON file whose top level is an object; raise `ValueError` for other content."""
    return _parse_object(_read_text(path))


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _parse_object(text: str) -> JsonObject:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"holds {str(value)[:40]!r}, expected keys and values")  # noqa: TRY004 - a file's content
    return value


def _read_config(path: Path, model_id: str) -> JsonObject:
    values = read_json(path)
    for key, kind in LISTED_KEYS.items():
        if not isinstance(values.get(key), kind):
            raise ValueError(f"has {key} = {values.get(key)!r}, expected {kind.__name__}")  # noqa: TRY004 - a file's content
    targets = values["targets"]
    if not targets or not all(isinstance(name, str) for name in targets):
        raise ValueError(f"has targets = {targets!r}, expected column names")
    if values["model_id"] != model_id:
        raise ValueError(f"is of model {values['model_id']}, expected {model_id} as in the folder's name")
    return values


def _read_log(path: Path) -> list[JsonObject]:
    return list(map(_parse_object, _read_text(path).splitlines()))


def _read_metrics(path: Path) -> dict[str, dict[str, float | None]]:
    values = read_json(path)
    for name, numbers in values.items():
        # R² is null for constant labels
        if not isinstance(numbers, dict) or not all(isinstance(n, int | float | None) for n in numbers.values()):
            raise ValueError(f"has {name} = {str(numbers)[:60]}, expected numbers by name")
    return values


def _check_weights(path: Path, model_id: str) -> None:
    try:
        with safe_open(path, framework="np") as weights:
            found = (weights.metadata() or {}).get("model_id")
    except SafetensorError as error:
        raise ValueError(f"is not a complete file of weights ({error})") from error
    if found != model_id:
        raise ValueError(f"holds weights of model {found}")

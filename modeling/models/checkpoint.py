"""Checkpoints: a model as a folder of files that anyone can read, and that nothing is executed from.

`model.safetensors` weights · `config.json` what the model is · `metrics.json` how well it does · `training_log.jsonl`
one line for each epoch · `README.md` the model card · `support.safetensors` what it was trained on, where it is known.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from modeling.evaluation.calibration import Conformal
from modeling.evaluation.metrics import Regression
from modeling.loading.normalisation import LabelScale, Normalisation
from modeling.models.model import Model, ModelConfig
from modeling.models.networks import build_network
from modeling.models.training_log import EpochRecord
from modeling.outliers.ood_score import Support, read_support
from schemas.errors import WeightsError
from schemas.recipes import NetworkSection

SUPPORT = "support.safetensors"


def save_model(
    folder: Path, model: Model, *, metrics: Mapping[str, Regression], log: tuple[EpochRecord, ...] = ()
) -> None:
    """Write a model; whoever looks sees all of it or nothing.

    Parameters
    ----------
    folder
        Of this model alone; a model that is there already is replaced.
    model
        What to write.
    metrics
        By what they were measured on, as in {"validation": ...}.
    log
        Of the training.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # beside its final place, since a rename is atomic within one file system only
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new, old = draft / "new", draft / "old"
        new.mkdir()
        weights = {name: value.cpu().contiguous() for name, value in model.network.state_dict().items()}
        save_file(weights, new / "model.safetensors", metadata={"model_id": model.config.model_id})
        if model.support is not None:
            (new / SUPPORT).write_bytes(model.support.to_bytes())
        _write_json(new / "config.json", asdict(model.config))
        _write_json(new / "metrics.json", {name: _without_nan(asdict(result)) for name, result in metrics.items()})
        lines = [json.dumps(asdict(record)) + "\n" for record in log]
        (new / "training_log.jsonl").write_text("".join(lines), encoding="utf-8")
        (new / "README.md").write_text(_model_card(model.config, metrics), encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(draft)


def load_model(folder: Path) -> Model:
    """Read a model that `save_model` wrote. Nothing is unpickled.

    Raises
    ------
    WeightsError
        No model there, a key of config.json that is missing or unknown, or weights that are damaged or do not belong
        to the architecture.
    """
    config = _parse_config(_read_json(folder / "config.json"), folder / "config.json")
    section = NetworkSection.model_validate(
        {"arch": config.arch, "level": config.level, "dropout": config.dropout, "weights": "none"}
    )
    network = build_network(section, n_targets=config.n_outputs)
    path = folder / "model.safetensors"
    try:
        network.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise WeightsError(f"no weights at {path}: the folder is not a whole model; train it again") from error
    except (SafetensorError, RuntimeError) as error:
        raise WeightsError(
            f"{path} does not hold the weights of a {config.arch} ({str(error).splitlines()[0][:80]}): the file is "
            "damaged or from another model; train it again"
        ) from error
    support = None if config.support is None else _read_support(folder / SUPPORT, config)
    return Model(network=network.eval(), config=config, support=support)


def read_metrics(folder: Path) -> dict[str, Regression]:
    """What `save_model` was told about a model's performance."""
    results: dict[str, dict[str, Any]] = _read_json(folder / "metrics.json")
    # JSON has no NaN: R² is null where the truth does not vary
    return {
        name: Regression(**{**numbers, "r2": math.nan if numbers["r2"] is None else numbers["r2"]})
        for name, numbers in results.items()
    }


def _read_support(path: Path, config: ModelConfig) -> Support:
    support = read_support(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != config.support:
        raise WeightsError(
            f"{path} has SHA-256 {digest[:12]}..., config.json says {str(config.support)[:12]}...: it belongs to "
            "another model; train this one again"
        )
    return support


def _without_nan(numbers: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(number) else number for name, number in numbers.items()}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"no model at {path.parent}: {path.name} is missing; give a folder from training") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is not JSON ({error}): the file is damaged; train the model again") from error
    return value


def _parse_config(values: dict[str, Any], path: Path) -> ModelConfig:
    known = {field.name for field in fields(ModelConfig)}
    # models of earlier versions have no support, and saw SkyServer's cutouts
    missing, unknown = sorted(known - values.keys() - {"support", "composite"}), sorted(values.keys() - known)
    if missing or unknown:
        raise WeightsError(
            f"{path}: missing keys {missing}, unknown keys {unknown}; the model was written by another version of "
            "galstore or changed by hand: train it again, or use the version that wrote it"
        )
    nested = {
        "bands": tuple(values["bands"]),
        "dropout": tuple(values["dropout"]),
        "normalisation": Normalisation(**{name: tuple(v) for name, v in values["normalisation"].items()}),
        "targets": tuple(values["targets"]),
        "calibration": values["calibration"] and Conformal.from_dict(values["calibration"]),
        "label_scales": tuple(LabelScale(**one) for one in values["label_scales"]),
    }
    return ModelConfig(**{**values, **nested})


def _model_card(config: ModelConfig, metrics: Mapping[str, Regression]) -> str:
    environment = Environment(
        loader=PackageLoader("modeling"), undefined=StrictUndefined, trim_blocks=True, autoescape=False  # noqa: S701
    )  # fmt: skip
    return environment.get_template("model_card.md.j2").render(config=config, metrics=metrics)

"""Checkpoints: a trained model as a folder of files without executable content.

`model.safetensors` weights · `config.json` description · `metrics.json` metrics by data set · `training_log.jsonl`
one line per epoch · `README.md` model card · `support.safetensors` out-of-distribution detector, if it was fitted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from galstore.atomic_write import atomic_folder
from modeling.evaluation.intervals import ConformalIntervals
from modeling.evaluation.metrics import Regression
from modeling.loading.normalisation import LabelScale, Normalisation
from modeling.models.model import Model, ModelConfig
from modeling.models.networks import build_network
from modeling.models.stored_model import JsonObject, read_json
from modeling.models.training_log import EpochRecord
from modeling.outliers.detector_file import detector_to_bytes, read_ood_detector
from schemas.errors import WeightsError
from schemas.recipes import NetworkSection

OOD_DETECTOR = "support.safetensors"
_log = logging.getLogger(__name__)


def save_model(
    folder: Path, model: Model, *, metrics: Mapping[str, Regression], log: tuple[EpochRecord, ...] = ()
) -> None:
    """Write a model, with its metrics by data set, so that readers see a complete folder or none.

    The folder is for this model alone; an existing model is replaced.
    """
    with atomic_folder(folder) as draft:
        weights = {name: value.cpu().contiguous() for name, value in model.network.state_dict().items()}
        save_file(weights, draft / "model.safetensors", metadata={"model_id": model.config.model_id})
        if model.ood_detector is not None:
            (draft / OOD_DETECTOR).write_bytes(detector_to_bytes(model.ood_detector))
        _write_json(draft / "config.json", asdict(model.config))
        # JSON has no NaN: R² is null for constant labels
        by_set = {
            name: {key: None if math.isnan(value) else value for key, value in asdict(result).items()}
            for name, result in metrics.items()
        }
        _write_json(draft / "metrics.json", by_set)
        lines = [json.dumps(asdict(record)) + "\n" for record in log]
        (draft / "training_log.jsonl").write_text("".join(lines), encoding="utf-8")
        (draft / "README.md").write_text(_model_card(model.config, metrics), encoding="utf-8")
        old = draft.with_name(f"{draft.name}.old")
        if folder.exists():
            folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)
    _log.info("saved model %s in %s", model.config.model_id, folder)


def load_model(folder: Path) -> Model:
    """Read a model written by `save_model`. Nothing is unpickled.

    Raises
    ------
    WeightsError
        The folder does not hold a model, keys of config.json are missing or unknown, or the weights are damaged or
        belong to another architecture.
    """
    config = _read_config(folder / "config.json")
    section = NetworkSection.model_validate(
        {"arch": config.arch, "level": config.level, "dropout": config.dropout, "weights": "none"}
    )
    network = build_network(section, n_targets=config.n_outputs)
    path = folder / "model.safetensors"
    try:
        network.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist, so the model is incomplete: train it again") from error
    except (SafetensorError, RuntimeError) as error:
        raise WeightsError(
            f"{path} does not hold the weights of a {config.arch} ({str(error).splitlines()[0][:80]}): the file is "
            "damaged or from another model; train it again"
        ) from error
    detector, path = None, folder / OOD_DETECTOR
    if config.support is not None:
        detector = read_ood_detector(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != config.support:
            raise WeightsError(
                f"{path} has SHA-256 {digest[:12]}..., expected {config.support[:12]}... from config.json: it belongs "
                "to another model; train this one again"
            )
    _log.info("loaded model %s from %s", config.model_id, folder)
    return Model(network=network.eval(), config=config, ood_detector=detector)


def _write_json(path: Path, value: JsonObject) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def _read_config(path: Path) -> ModelConfig:
    try:
        values = read_json(path)
    except FileNotFoundError as error:
        raise WeightsError(f"no model at {path.parent}: {path.name} is missing; give a folder from training") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON ({error}): the file is damaged; train the model again") from error
    known = {field.name for field in fields(ModelConfig)}
    # models of earlier versions have no support, and were trained on SkyServer's cutouts
    missing, unknown = sorted(known - values.keys() - {"support", "composite"}), sorted(values.keys() - known)
    if missing or unknown:
        raise WeightsError(
            f"{path}: missing keys {missing}, unknown keys {unknown}; the model was written by another version of "
            "galstore or changed by hand: train it again, or use the version that wrote it"
        )
    nested = {
        **{name: tuple(values[name]) for name in ("bands", "dropout", "targets")},
        "normalisation": Normalisation(**{name: tuple(v) for name, v in values["normalisation"].items()}),
        "calibration": values["calibration"] and ConformalIntervals(**values["calibration"]),
        "label_scales": tuple(LabelScale(**scale) for scale in values["label_scales"]),
    }
    return ModelConfig(**{**values, **nested})


def _model_card(config: ModelConfig, metrics: Mapping[str, Regression]) -> str:
    loader = PackageLoader("modeling")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True)  # noqa: S701 - Markdown
    return environment.get_template("model_card.md.j2").render(config=config, metrics=metrics)

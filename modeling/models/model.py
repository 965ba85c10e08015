"""Models: a trained network with the description that scoring needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from modeling.evaluation.intervals import ConformalIntervals
from modeling.loading.normalisation import LabelScale, Normalisation
from modeling.models.networks import GalaxyNetwork
from modeling.outliers.detector_file import detector_to_bytes
from modeling.outliers.ood_score import OODDetector
from schemas.cutouts import Composite, CutoutScale, ScaleRule, require_same_scale


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Description of a model: architecture, input, origin and calibration."""

    model_id: str
    targets: tuple[str, ...]
    """Predicted columns, the scored one first; predictions have their units."""
    arch: str
    level: int
    """Side of the images, px."""
    bands: tuple[str, ...]
    dropout: tuple[float, float]
    scale_rule: str
    scale_arcsec: float
    """arcsec per pixel of the finest level, for `scale_rule` 'fixed'."""
    normalisation: Normalisation
    label_scales: tuple[LabelScale, ...]
    loss: str
    """Training loss; networks trained with 'gaussian' predict sigma too."""
    training_set: str
    """Hash of the training set."""
    snapshot: str
    """Commit of the cube that the training set was read from."""
    seed: int
    best_epoch: int
    versions: dict[str, str]
    """Versions of python, torch, torchvision and galstore."""
    calibration: ConformalIntervals | None = None
    """Intervals measured on the validation rows; None if they were too few."""
    composite: str = Composite.SKYSERVER.value
    """Colour composite of the cutouts: service, bands and stretch."""
    support: str | None = None
    """SHA-256 of support.safetensors; None without an out-of-distribution detector."""

    @property
    def target(self) -> str:
        """Scored column."""
        return self.targets[0]

    @property
    def label_scale(self) -> LabelScale:
        return self.label_scales[0]

    @property
    def scale(self) -> CutoutScale:
        rule, composite = ScaleRule(self.scale_rule), Composite(self.composite)
        return CutoutScale(rule=rule, arcsec_per_px=self.scale_arcsec, composite=composite)

    @property
    def gives_sigma(self) -> bool:
        return self.loss == "gaussian"

    @property
    def n_outputs(self) -> int:
        return len(self.targets) * (2 if self.gives_sigma else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network in evaluation mode and its description."""

    network: GalaxyNetwork
    config: ModelConfig
    ood_detector: OODDetector | None = None
    """Out-of-distribution detector; None if it was not fitted, or for models of older versions."""

    def with_intervals(self, calibration: ConformalIntervals) -> Model:
        return replace(self, config=replace(self.config, calibration=calibration))

    def with_ood_detector(self, detector: OODDetector) -> Model:
        digest = hashlib.sha256(detector_to_bytes(detector)).hexdigest()
        return replace(self, ood_detector=detector, config=replace(self.config, support=digest))

    def require_scale(self, scale: CutoutScale) -> None:
        """Raise `StoreError` unless cutouts of a cube have the scale and the composite of the training cutouts."""
        require_same_scale(scale, self.config.scale, found_in="the cube", expected_by=f"model {self.config.model_id}")

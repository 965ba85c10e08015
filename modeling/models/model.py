"""Models: a trained network with the description that scoring needs."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

from modeling.evaluation.calibration import Conformal
from modeling.loading.normalisation import LabelScale, Normalisation
from modeling.models.networks import GalaxyNetwork
from modeling.outliers.ood_score import Support
from schemas.cutouts import Composite, CutoutScale, ScaleRule
from schemas.errors import StoreError


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
    """Scale of each target."""
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
    calibration: Conformal | None = None
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
        """Scale of the scored column."""
        return self.label_scales[0]

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
    support: Support | None = None
    """Out-of-distribution detector; None if it was not fitted, or for models of older versions."""

    def with_calibration(self, calibration: Conformal) -> Model:
        return replace(self, config=replace(self.config, calibration=calibration))

    def with_support(self, support: Support) -> Model:
        """Return a copy with an out-of-distribution detector."""
        digest = hashlib.sha256(support.to_bytes()).hexdigest()
        return replace(self, support=support, config=replace(self.config, support=digest))

    def require_scale(self, scale: CutoutScale) -> None:
        """Check that cutouts have the scale and the composite of the training cutouts.

        Raises
        ------
        StoreError
            Another rule, another number of arcsec per pixel under the fixed rule, or another composite.
        """
        config = self.config
        if scale.composite != config.composite:
            raise StoreError(
                f"model {config.model_id} was trained on cutouts of composite {config.composite!r}, but these have "
                f"{scale.composite.value!r}, with other bands or another stretch: train on this cube, or score a cube "
                f"of composite {config.composite!r}"
            )
        is_same = scale.rule == config.scale_rule and (
            scale.rule != ScaleRule.FIXED or math.isclose(scale.arcsec_per_px, config.scale_arcsec, rel_tol=1e-6)
        )
        if not is_same:
            raise StoreError(
                f"model {config.model_id} was trained on cutouts of scale rule {config.scale_rule!r} "
                f"({config.scale_arcsec:g} arcsec/px), but these have {scale.rule.value!r} ({scale.arcsec_per_px:g} "
                "arcsec/px), so galaxies appear at another size: train on this cube, or score a cube of the same scale"
            )

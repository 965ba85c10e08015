"""Models: a trained network with everything that scoring needs to know about it."""

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
    """What a model is, where it comes from and what it may be applied to."""

    model_id: str
    targets: tuple[str, ...]
    """Columns that are predicted, the one that is scored first; predictions have their units."""
    arch: str
    level: int
    """Side of the images, px."""
    bands: tuple[str, ...]
    dropout: tuple[float, float]
    scale_rule: str
    scale_arcsec: float
    """arcsec per pixel of the finest level, where `scale_rule` is 'fixed'."""
    normalisation: Normalisation
    label_scales: tuple[LabelScale, ...]
    """Of each target."""
    loss: str
    """That it was trained by: a 'gaussian' one predicts sigma too."""
    training_set: str
    """Hash of the training set."""
    snapshot: str
    """Commit of the cube that the training set was read from."""
    seed: int
    best_epoch: int
    versions: dict[str, str]
    """Of python, torch, torchvision and galstore."""
    calibration: Conformal | None = None
    """Intervals that the validation rows teach; None where they were too few."""
    composite: str = Composite.SKYSERVER.value
    """Whose colours the cutouts have: another service's, or another stretch, is another image."""
    support: str | None = None
    """SHA-256 of support.safetensors; None where the model does not know its training support."""

    @property
    def target(self) -> str:
        """The column that is scored."""
        return self.targets[0]

    @property
    def label_scale(self) -> LabelScale:
        """Of the column that is scored."""
        return self.label_scales[0]

    @property
    def gives_sigma(self) -> bool:
        return self.loss == "gaussian"

    @property
    def n_outputs(self) -> int:
        """Of the network."""
        return len(self.targets) * (2 if self.gives_sigma else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network in evaluation mode and its description."""

    network: GalaxyNetwork
    config: ModelConfig
    support: Support | None = None
    """What it was trained on; None where that was not learnt, or by an older version."""

    def calibrated(self, calibration: Conformal) -> Model:
        """The same, with intervals."""
        return replace(self, config=replace(self.config, calibration=calibration))

    def supported(self, support: Support) -> Model:
        """The same, knowing what it was trained on."""
        digest = hashlib.sha256(support.to_bytes()).hexdigest()
        return replace(self, support=support, config=replace(self.config, support=digest))

    def require_scale(self, scale: CutoutScale) -> None:
        """Refuse cutouts of another scale rule or another composite than those that the network has seen.

        Raises
        ------
        StoreError
            Another rule, another number of arcsec per pixel under the fixed rule, or another composite.
        """
        ours = self.config
        if scale.composite != ours.composite:
            raise StoreError(
                f"model {ours.model_id} was trained on cutouts of composite {ours.composite!r}, these have "
                f"{scale.composite.value!r}: other bands and another stretch give one galaxy other colours; train on "
                "this cube, or score the other one"
            )
        same = scale.rule == ours.scale_rule and (
            scale.rule != ScaleRule.FIXED or math.isclose(scale.arcsec_per_px, ours.scale_arcsec, rel_tol=1e-6)
        )
        if not same:
            raise StoreError(
                f"model {ours.model_id} was trained on cutouts of scale rule {ours.scale_rule!r} "
                f"({ours.scale_arcsec:g} arcsec/px), these have {scale.rule.value!r} ({scale.arcsec_per_px:g} "
                "arcsec/px): galaxies would appear at another size; train on this cube, or score the other one"
            )

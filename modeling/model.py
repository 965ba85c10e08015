"""Models: a trained network with everything that scoring needs to know about it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from modeling.networks import GalaxyNetwork
from modeling.normalisation import LabelScale, Normalisation
from schemas.cutouts import CutoutScale, ScaleRule
from schemas.errors import StoreError

ID_LENGTH = 12
"""Hexadecimal digits of a model id: 48 bits, so that a thousand models collide with a chance of 2e-9."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What a model is, where it comes from and what it may be applied to."""

    model_id: str
    target: str
    """Column that is predicted; predictions have its unit."""
    arch: str
    level: int
    """Side of the images, px."""
    bands: tuple[str, ...]
    dropout: tuple[float, float]
    scale_rule: str
    scale_arcsec: float
    """arcsec per pixel of the finest level, where `scale_rule` is 'fixed'."""
    normalisation: Normalisation
    label_scale: LabelScale
    training_set: str
    """Hash of the training set."""
    snapshot: str
    """Commit of the cube that the training set was read from."""
    seed: int
    best_epoch: int
    versions: dict[str, str]
    """Of python, torch, torchvision and galstore."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network in evaluation mode and its description."""

    network: GalaxyNetwork
    config: ModelConfig

    def require_scale(self, scale: CutoutScale) -> None:
        """Refuse cutouts that were cut by another scale rule than the ones that the network has seen.

        Raises
        ------
        StoreError
            Another rule, or another number of arcsec per pixel under the fixed rule.
        """
        ours = self.config
        same = scale.rule == ours.scale_rule and (
            scale.rule != ScaleRule.FIXED or math.isclose(scale.arcsec_per_px, ours.scale_arcsec, rel_tol=1e-6)
        )
        if not same:
            raise StoreError(
                f"model {ours.model_id} was trained on cutouts of scale rule {ours.scale_rule!r} "
                f"({ours.scale_arcsec:g} arcsec/px), these have {scale.rule.value!r} ({scale.arcsec_per_px:g} "
                "arcsec/px): galaxies would appear at another size; train on this cube, or score the other one"
            )


def model_id(**parts: Any) -> str:
    """Short name that follows from what determines a model, and from nothing else.

    Parameters
    ----------
    **parts
        Recipe sections, the hash of the training set, the target: JSON values or pydantic models. The order in which
        they are given does not matter.

    Returns
    -------
    str
        Twelve hexadecimal digits of a SHA-256.

    Examples
    --------
    >>> model_id(target="oh_p50", seed=1) == model_id(seed=1, target="oh_p50")
    True
    >>> model_id(target="oh_p50", seed=1) == model_id(target="oh_p50", seed=2)
    False
    """
    canonical = json.dumps(
        {name: part.model_dump(mode="json") if isinstance(part, BaseModel) else part for name, part in parts.items()},
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:ID_LENGTH]

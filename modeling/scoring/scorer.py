"""Scorer: a model or an ensemble with its scoring settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from modeling.loading.pixels import Counts
from modeling.models.model import Model
from modeling.scoring.predict import Prediction, combine_predictions, predict
from schemas.cutouts import CutoutScale, require_same_scale
from schemas.errors import WeightsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Model or ensemble with its scoring settings, those of `predict`."""

    predictions_id: str
    """Id of the model or of the ensemble; predictions are stored with this id."""
    members: tuple[Model, ...]
    """Models of the ensemble, in the order of their ids; a single model is the only member."""
    views: Literal[1, 8] = 8
    batch_size: int = 256
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        _check_members(self.members)

    @property
    def first(self) -> Model:
        """First member; target, level, bands and scale are common to all members."""
        return self.members[0]

    @property
    def level(self) -> int:
        return self.first.config.level

    def require_scale(self, scale: CutoutScale) -> None:
        for member in self.members:
            member.require_scale(scale)

    def predict(self, pixels: Counts) -> Prediction:
        score = partial(predict, pixels=pixels, views=self.views, batch_size=self.batch_size, device=self.device)
        return combine_predictions([score(member) for member in self.members])


def _check_members(members: Sequence[Model]) -> None:
    if not members:
        raise WeightsError("an ensemble without members: name at least one model")
    ids = [member.config.model_id for member in members]
    if len(set(ids)) < len(ids):
        raise WeightsError(f"models {', '.join(ids)} contain duplicates: name each model once")
    first = members[0].config
    for other in (member.config for member in members[1:]):
        if (other.target, other.level) != (first.target, first.level):
            raise WeightsError(
                f"models {first.model_id} and {other.model_id} cannot form an ensemble: {first.target} at "
                f"{first.level} px and {other.target} at {other.level} px; name models of one target and level"
            )
        require_same_scale(
            other.scale, first.scale, found_in=f"model {other.model_id}", expected_by=f"model {first.model_id}"
        )

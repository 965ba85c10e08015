"""Where an export comes from: said in every format by the same words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from galstore.cube.commits import open_repository
from galstore.cube.reader import Cube
from schemas.cutouts import CutoutScale, ScaleRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The parents of an export."""

    survey: str
    simulated: bool
    """The sky is made up."""
    snapshot_id: str
    committed: str
    """When the snapshot was committed, ISO 8601, UTC, to the second."""
    galstore: str
    """Version of galstore."""
    n_objects: int
    scale: CutoutScale
    model_id: str = ""
    """Of predictions."""
    further: Mapping[str, str] = field(default_factory=dict)
    """Further parents by name: model, training set, run."""

    @property
    def name(self) -> str:
        """A short name of what is exported."""
        return f"{self.survey}_{self.model_id}" if self.model_id else self.survey

    @property
    def title(self) -> str:
        """What is exported, in words."""
        return f"Predictions of model {self.model_id} for {self.sky}" if self.model_id else f"Objects of {self.sky}"

    @property
    def sky(self) -> str:
        """The survey's name, and that it is made up where it is."""
        return f"{self.survey} (simulated sky)" if self.simulated else self.survey

    @property
    def scale_in_words(self) -> str:
        """The scale of the images, as part of a sentence."""
        if self.scale.rule is ScaleRule.FIXED:
            return f"{self.scale.arcsec_per_px:g} arcsec per px"
        return "2 petroR90_r / 0.396 / 128 arcsec per px (pixel_scale of each object)"

    def to_dict(self) -> dict[str, str]:
        """As texts, for the key-value metadata of files."""
        return {
            "galstore": self.galstore,
            "simulated": str(self.simulated).lower(),
            "snapshot": self.snapshot_id,
            "snapshot_committed": self.committed,
            "survey": self.survey,
            **self.further,
        }


def provenance_of(cube: Cube, *, n_objects: int) -> Provenance:
    """The provenance of an export of so many objects."""
    snapshot = next(iter(open_repository(cube.path).ancestry(snapshot_id=cube.snapshot_id)))
    return Provenance(
        survey=str(cube.attributes["survey"]),
        simulated=bool(cube.attributes["simulated"]),
        snapshot_id=cube.snapshot_id,
        committed=snapshot.written_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        galstore=version("galstore"),
        n_objects=n_objects,
        scale=cube.scale,
    )

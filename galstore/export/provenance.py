"""Provenance of an export, written in every format with the same keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from galstore.cube.commits import open_repository
from galstore.cube.reader import Cube
from schemas.cutouts import CutoutScale, ScaleRule


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportProvenance:
    """Origin of an export: survey, snapshot, galstore version and, for predictions, the model or ensemble.

    `committed` is the time of the snapshot's commit (ISO 8601, UTC, to the second), `galstore` a version, `further` the
    further parents by name: training set, run.
    """

    survey: str
    simulated: bool
    snapshot_id: str
    committed: str
    galstore: str
    n_objects: int
    scale: CutoutScale
    model_id: str = ""
    further: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.survey}_{self.model_id}" if self.model_id else self.survey

    @property
    def title(self) -> str:
        return f"Predictions of model {self.model_id} for {self.sky}" if self.model_id else f"Objects of {self.sky}"

    @property
    def sky(self) -> str:
        """Name of the survey, marked if it is simulated."""
        return f"{self.survey} (simulated sky)" if self.simulated else self.survey

    @property
    def image_description(self) -> str:
        """Pixel scale and bands of the images, as part of a sentence."""
        if self.scale.rule is ScaleRule.FIXED:
            pixel_scale = f"{self.scale.arcsec_per_px:g} arcsec per px"
        else:
            pixel_scale = "2 petroR90_r / 0.396 / 128 arcsec per px (pixel_scale of each object)"
        return f"{pixel_scale}; red, green and blue are the bands {', '.join(self.scale.composite.bands)}"

    def to_dict(self) -> dict[str, str]:
        return {
            "galstore": self.galstore,
            "simulated": str(self.simulated).lower(),
            "snapshot": self.snapshot_id,
            "snapshot_committed": self.committed,
            "survey": self.survey,
            **self.further,
        }


def read_provenance(cube: Cube, *, n_objects: int) -> ExportProvenance:
    snapshot = next(iter(open_repository(cube.path).ancestry(snapshot_id=cube.snapshot_id)))
    return ExportProvenance(
        survey=str(cube.attributes["survey"]),
        simulated=bool(cube.attributes["simulated"]),
        snapshot_id=cube.snapshot_id,
        committed=snapshot.written_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        galstore=version("galstore"),
        n_objects=n_objects,
        scale=cube.scale,
    )

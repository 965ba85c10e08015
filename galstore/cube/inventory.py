"""Inventory of a cube: contents, size and counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version

import numpy as np

from galstore.cube.arrays import Attributes
from galstore.cube.commits import stored_bytes
from galstore.cube.reader import Counts, Cube
from schemas.cube import LEVEL, SCHEMA_VERSION, Listing
from schemas.cutouts import Reason, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Contents of one snapshot; `bytes_stored` counts all snapshots of the cube."""

    path: str
    survey: str
    scale_rule: str
    scale_arcsec_per_px: float
    counts: Counts
    quarantined_by_reason: dict[str, int]
    rejected_by_catalog: dict[str, int]
    n_vanished: int
    catalogs: tuple[Attributes, ...]
    levels: dict[int, Attributes]
    models: tuple[str, ...]
    snapshot_id: str
    bytes_stored: int
    schema_version: int
    versions: dict[str, str]

    def to_dict(self) -> dict[str, object]:
        """Return plain data, with the counts at the top level."""
        plain = asdict(self)
        return {**plain.pop("counts"), "counts_add_up": self.counts.add_up, **plain}


def take_inventory(cube: Cube) -> Inventory:
    """Count and measure the contents of one snapshot."""
    reasons = cube.read_state("reason")[cube.read_state("status") == Status.QUARANTINED]
    codes, tally = np.unique(reasons, return_counts=True)
    catalog_index, vanished = cube.read_state("catalog"), cube.read_state("listing") == Listing.VANISHED
    n_catalogs = len(cube.attributes["catalogs"])
    tallies = [np.bincount(index, minlength=n_catalogs) for index in (catalog_index, catalog_index[vanished])]
    catalogs = [
        {**entry, "n_registered": int(n), "n_vanished": int(n_vanished)}
        for entry, n, n_vanished in zip(cube.attributes["catalogs"], *tallies, strict=False)
    ]
    rejected = cube.read_rejected()
    return Inventory(
        path=cube.path,
        survey=str(cube.attributes["survey"]),
        scale_rule=cube.scale.rule.value,
        scale_arcsec_per_px=cube.scale.arcsec_per_px,
        counts=cube.counts(),
        quarantined_by_reason={Reason(code).name.lower(): int(n) for code, n in zip(codes, tally, strict=True)},
        rejected_by_catalog={str(name): int(n) for name, n in rejected["catalog"].value_counts().items()},
        n_vanished=int(np.count_nonzero(vanished)),
        catalogs=tuple(catalogs),
        levels={
            side: {"shape": list(cube.array(level.path).shape), "dtype": level.dtype, "chunk_rows": level.chunk_rows}
            for side, level in LEVEL.items()
        },
        models=cube.group_names("predictions"),
        snapshot_id=cube.snapshot_id,
        bytes_stored=stored_bytes(cube.path),
        schema_version=SCHEMA_VERSION,
        versions={name: version(name) for name in ("galstore", "zarr", "icechunk", "numcodecs")},
    )

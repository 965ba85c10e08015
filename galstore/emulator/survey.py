"""What the emulator asks of a survey, be it a simulated sky or a folder of cutouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pandas as pd

from schemas.cutouts import Composite


class Survey(Protocol):
    """A catalog, and an image of every place."""

    def catalog(self) -> pd.DataFrame:
        """One row a spectrum, under SDSS's column names, with `objID`, `specObjID`, `ra` and `dec` at least."""

    def covers(self, ra_deg: float, dec_deg: float) -> bool:
        """Whether there is any image of a place."""

    def find(self, ra_deg: float, dec_deg: float) -> int | None:
        """Id of the object at a place, or None."""

    def cutout(
        self,
        object_id: int | None,
        place: tuple[float, float],
        scale_arcsec: float,
        width_px: int,
        height_px: int,
        *,
        composite: Composite = Composite.SKYSERVER,
    ) -> bytes | Callable[[], bytes]:
        """The JPEG of an object, or of the place (ra, dec; degrees) where the id is None.

        What has to be drawn comes as a picklable callable, so that it can be drawn in another process.
        """

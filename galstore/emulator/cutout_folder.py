"""A folder of cutouts with a catalog, to be served as if a survey had them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from galstore.emulator.sky.positions import PositionIndex
from schemas.cutouts import Composite
from schemas.errors import CatalogError


class FolderSurvey:
    """JPEGs named `<objID>.jpg` and a CSV that says where on the sky they are.

    Every object is served with the bytes of its file, whatever scale and size are asked for.

    Parameters
    ----------
    catalog
        CSV with `objID` (64-bit integer), `ra`, `dec` (degrees), and any of SDSS's columns, such as `oh_p50`.
    cutouts
        Folder of the JPEGs.

    Raises
    ------
    CatalogError
        A file or column is missing, the catalog is empty, an id is not a whole number, a place is not on the sky, or
        objects have no JPEG.
    """

    def __init__(self, *, catalog: Path, cutouts: Path) -> None:
        self._table = _read_catalog(catalog)
        self._files = {int(object_id): cutouts / f"{object_id}.jpg" for object_id in self._table["objID"]}
        missing = [file.name for file in self._files.values() if not file.is_file()]
        if missing:
            raise CatalogError(
                f"{cutouts} lacks the JPEGs of {len(missing)} of {len(self._files)} objects in {catalog}, the first "
                f"{missing[0]}: add them or drop their rows"
            )
        self._ids = self._table["objID"].to_numpy()
        self._positions = PositionIndex(self._table["ra"], self._table["dec"])

    def catalog(self) -> pd.DataFrame:
        """The CSV's columns, with `specObjID` made up where the CSV has none."""
        table = self._table
        if "specObjID" not in table:
            # plate 266 onwards, as SDSS numbers its spectra
            table = table.assign(specObjID=((266 + np.arange(len(table), dtype=np.int64) // 640) << 50) + table.index)
        return table

    def covers(self, ra_deg: float, dec_deg: float) -> bool:
        """True at the objects alone: a folder has no sky between them."""
        return self.find(ra_deg, dec_deg) is not None

    def find(self, ra_deg: float, dec_deg: float) -> int | None:
        row = self._positions.nearest(ra_deg, dec_deg)
        return None if row is None else int(self._ids[row])

    def cutout(
        self,
        object_id: int | None,
        place: tuple[float, float],
        scale_arcsec: float,  # noqa: ARG002 - the file is what it is
        width_px: int,  # noqa: ARG002
        height_px: int,  # noqa: ARG002
        *,
        composite: Composite = Composite.SKYSERVER,  # noqa: ARG002
    ) -> bytes:
        """The bytes of the object's file."""
        if object_id is None:
            raise CatalogError(f"the folder has no object at ra {place[0]}, dec {place[1]}: ask for one of its objects")
        return self._files[object_id].read_bytes()


def _read_catalog(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise CatalogError(f"there is no catalog at {path}: give a CSV with the columns objID, ra, dec")
    try:
        header = pd.read_csv(path, nrows=0).columns
    except pd.errors.EmptyDataError as error:
        raise CatalogError(f"{path} is empty: give a CSV with the columns objID, ra, dec") from error
    lacking = [name for name in ("objID", "ra", "dec") if name not in header]
    if lacking:
        raise CatalogError(
            f"{path} lacks the column(s) {', '.join(lacking)} (it has {', '.join(header)}): a folder survey needs "
            "objID, ra and dec"
        )
    ids = [name for name in ("objID", "specObjID") if name in header]
    try:
        # ids as text: pandas takes 1.23765E+18, which a spreadsheet rounded, for a whole number
        table = pd.read_csv(path, dtype={**dict.fromkeys(ids, "str"), "ra": "float64", "dec": "float64"})
    except ValueError as error:
        raise CatalogError(f"{path}: ra and dec must be numbers ({error}): give degrees") from error
    for name in ids:
        whole = table[name].str.fullmatch(r"\d{1,18}|[1-8]\d{18}").fillna(value=False).astype(bool)
        if not whole.all():
            raise CatalogError(
                f"{path}: {name} must be a whole number of 64 bits, got {table[name][~whole].iloc[0]!r}: write ids in "
                "full, without a decimal point or exponent"
            )
        table[name] = table[name].astype("int64")
    if table.empty:
        raise CatalogError(f"{path} has a header and no rows: list at least one object")
    on_sky = table["ra"].between(0, 360) & table["dec"].between(-90, 90)
    if not on_sky.all():
        first = table.loc[~on_sky].iloc[0]
        raise CatalogError(
            f"{path}: {(~on_sky).sum()} rows have no place on the sky, the first objID {int(first['objID'])} at ra "
            f"{first['ra']}, dec {first['dec']}: give ra in 0-360 and dec in -90-90 degrees"
        )
    return table

"""Survey made of a folder of cutouts and a catalog."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from galstore.emulator.survey import CutoutQuery, PositionIndex
from schemas.errors import CatalogError


class CutoutFolder:
    """Folder of JPEGs named `<objID>.jpg` with a CSV of their positions.

    Each object is served with the bytes of its file, for any requested scale and size. The CSV has `objID` (64-bit
    integer), `ra`, `dec` (degrees), and optional SDSS columns such as `oh_p50`.

    Raises
    ------
    CatalogError
        A file or column is missing, the catalog is empty, an id is not a whole number, a position is out of range,
        or an object lacks its JPEG.
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
        """Return the CSV's columns, with an invented `specObjID` if the CSV lacks it."""
        table = self._table
        if "specObjID" not in table:
            # plates from 266 on, 640 spectra each, as in SDSS
            table = table.assign(specObjID=((266 + np.arange(len(table), dtype=np.int64) // 640) << 50) + table.index)
        return table

    def covers(self, ra_deg: float, dec_deg: float) -> bool:
        return self.find(ra_deg, dec_deg) is not None

    def find(self, ra_deg: float, dec_deg: float) -> int | None:
        row = self._positions.nearest(ra_deg, dec_deg)
        return None if row is None else int(self._ids[row])

    def cutout(self, object_id: int | None, query: CutoutQuery) -> bytes:
        if object_id is None:
            ra_deg, dec_deg = query.position_deg
            raise CatalogError(f"the folder has no object at ra {ra_deg}, dec {dec_deg}: request one of its objects")
        return self._files[object_id].read_bytes()


def _read_catalog(path: Path) -> pd.DataFrame:
    try:
        header = pd.read_csv(path, nrows=0).columns
    except (OSError, pd.errors.EmptyDataError) as error:
        raise CatalogError(
            f"the catalog {path} is missing or empty ({error}): give a CSV with the columns objID, ra, dec"
        ) from error
    missing = [name for name in ("objID", "ra", "dec") if name not in header]
    if missing:
        raise CatalogError(
            f"{path} lacks the column(s) {', '.join(missing)} (it has {', '.join(header)}): add objID, ra and dec"
        )
    ids = [name for name in ("objID", "specObjID") if name in header]
    try:
        # ids are read as text: pandas would accept 1.23765E+18, which a spreadsheet rounded, as a whole number
        table = pd.read_csv(path, dtype={**dict.fromkeys(ids, "str"), "ra": "float64", "dec": "float64"})
    except ValueError as error:
        raise CatalogError(f"{path}: ra and dec must be numbers ({error}): give degrees") from error
    for name in ids:
        is_whole = table[name].str.fullmatch(r"\d{1,18}|[1-8]\d{18}").fillna(value=False).astype(bool)
        if not is_whole.all():
            raise CatalogError(
                f"{path}: {name} must be a whole number of 64 bits, got {table[name][~is_whole].iloc[0]!r}: write "
                "ids in full, without a decimal point or exponent"
            )
        table[name] = table[name].astype("int64")
    if table.empty:
        raise CatalogError(f"{path} has no rows below its header: list at least one object")
    is_on_sky = table["ra"].between(0, 360) & table["dec"].between(-90, 90)
    if not is_on_sky.all():
        first = table.loc[~is_on_sky].iloc[0]
        raise CatalogError(
            f"{path}: {(~is_on_sky).sum()} rows have no valid position, the first objID {int(first['objID'])} at ra "
            f"{first['ra']}, dec {first['dec']}: give ra in 0-360 and dec in -90-90 degrees"
        )
    return table

"""Catalog columns (type, unit, UCD, valid range), and the reasons to reject a row of a catalog.

Units are VOUnits 1.0 and UCDs are UCD1+ 1.4 (IVOA standards). Column names are those of the SDSS DR14 schema, except
`object_id`.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandera.pandas as pa

SENTINEL = -9999.0
"""Missing value in the MPA-JHU tables."""

OBJECT_ID_ALIASES = ("object_id", "objID", "objid", "id", "ID", "source_id")
"""Accepted names of the object id column, in the order of preference."""

UCD_ALIASES: dict[str, tuple[str, ...]] = {
    "object_id": ("meta.id;meta.main", "ID_MAIN"),
    "ra": ("pos.eq.ra;meta.main", "pos.eq.ra", "POS_EQ_RA_MAIN"),
    "dec": ("pos.eq.dec;meta.main", "pos.eq.dec", "POS_EQ_DEC_MAIN"),
    "z": ("src.redshift",),
    "zErr": ("stat.error;src.redshift",),
    "velDisp": ("phys.veloc.dispersion",),
    "velDispErr": ("stat.error;phys.veloc.dispersion",),
}
"""Unambiguous UCDs (and UCD1 words, which VizieR still writes) that identify a column with an unknown name.

Magnitudes and masses are omitted: their UCDs name neither photometric system and aperture nor estimator."""

REJECTED_TABLE_COLUMNS = ("row", "object_id", "column", "reason", "value")
"""Columns of a table of rejected rows; `row` counts from 0, `reason` is the lower-case name of a `RejectReason`."""


class RejectReason(IntEnum):
    """Reason to reject a row (`/rejected/reason`). Cubes store the numbers: never change them."""

    MISSING = 0  # a required value is blank, null, or the sentinel -9999
    NOT_A_NUMBER = 1  # text instead of a number
    OUT_OF_RANGE = 2  # a number outside the valid range: a magnitude of 0, a declination of 120 degrees
    DAMAGED_ID = 3  # an id beyond 2^53 that a float or a spreadsheet has rounded
    NOT_AN_ID = 4  # an id that is not a 64-bit integer
    REPEATED_ID = 5  # a repeated id; the first row with the id is registered


@dataclass(frozen=True, slots=True)
class Column:
    """Column of a catalog.

    `valid_min` and `valid_max` are inclusive. A value outside them is impossible (a magnitude of 400), not just
    unusual. `symbol` is for figures and reports; empty = use the name. The cube stores labels apart from the catalog,
    because labels change and pixels do not.
    """

    name: str
    dtype: Literal["int64", "float64", "float32"]
    unit: str
    ucd: str
    valid_min: float
    valid_max: float
    description: str
    _: KW_ONLY
    role: Literal["catalog", "label"] = "catalog"
    required: bool = False
    symbol: str = ""


_MAX_ID = 2**63 - 1
_FLUX = "1e-17 erg.s**-1.cm**-2"
_PERCENTILES = {"p2p5": "2.5", "p16": "16", "p50": "50", "p84": "84", "p97p5": "97.5"}
_BPT = "-1 unclassified, 1 star forming, 2 low S/N star forming, 3 composite, 4 AGN, 5 low S/N LINER"
_POSTERIOR = "median of the MPA-JHU posterior"

COLUMNS: tuple[Column, ...] = (
    Column("object_id", "int64", "", "meta.id;meta.main", 0, _MAX_ID, "Object id of the survey (SDSS objID), 64-bit",
           required=True),
    Column("specObjID", "int64", "", "meta.id", 0, _MAX_ID, "Id of the spectrum, 64-bit"),
    Column("ra", "float64", "deg", "pos.eq.ra;meta.main", 0, 360, "Right ascension, ICRS", required=True),
    Column("dec", "float64", "deg", "pos.eq.dec;meta.main", -90, 90, "Declination, ICRS", required=True),
    Column("z", "float32", "", "src.redshift", -0.1, 12, "Spectroscopic redshift"),
    Column("zErr", "float32", "", "stat.error;src.redshift", -10, 10, "Error of the redshift"),
    Column("velDisp", "float32", "km.s**-1", "phys.veloc.dispersion", -10, 2000, "Velocity dispersion of the stars"),
    Column("velDispErr", "float32", "km.s**-1", "stat.error;phys.veloc.dispersion", -10, 1e6,
           "Error of the velocity dispersion; negative codes mark failed fits"),
    Column("petroMag_r", "float32", "mag", "phot.mag;em.opt.R", 0.01, 40, "Petrosian magnitude in r"),
    *(column for band in "ugriz" for column in (
        Column(f"modelMag_{band}", "float32", "mag", f"phot.mag;em.opt.{band.upper()}", 0.01, 40,
               f"Model magnitude in {band}"),
        Column(f"modelMagErr_{band}", "float32", "mag", f"stat.error;phot.mag;em.opt.{band.upper()}", 0, 100,
               f"Error of the model magnitude in {band}"),
    )),
    Column("petroR50_r", "float32", "arcsec", "phys.angSize;em.opt.R", 0, 1000,
           "Radius of 50 % of the Petrosian r flux"),
    Column("petroR90_r", "float32", "arcsec", "phys.angSize;em.opt.R", 0, 1000,
           "Radius of 90 % of the Petrosian r flux"),
    *(column for line, title in {
        "nii_6584": "[N II] 6584", "h_alpha": "H alpha", "oiii_5007": "[O III] 5007", "h_beta": "H beta",
        "h_delta": "H delta",
    }.items() for column in (
        Column(f"{line}_flux", "float32", _FLUX, "phot.flux;spect.line", -1e7, 1e7, f"Flux of {title}"),
        Column(f"{line}_flux_err", "float32", _FLUX, "stat.error;phot.flux;spect.line", -1e7, 1e7,
               f"Error of the flux of {title}"),
    )),
    Column("d4000", "float32", "", "spect.index", 0, 100,
           "Strength of the 4000 A break (narrow); 0 where it could not be measured"),
    Column("d4000_err", "float32", "", "stat.error;spect.index", -10, 1000, "Error of the 4000 A break"),
    Column("bptclass", "float32", "", "src.class", -1, 5, f"BPT class: {_BPT}"),
    *(
        Column(f"oh_{suffix}", "float32", "", "phys.abund.Z", 6, 11, role="label", symbol="12 + log(O/H)",
               description=f"12 + log(O/H), {percentile} % percentile of the MPA-JHU posterior")
        for suffix, percentile in _PERCENTILES.items()
    ),
    Column("lgm_tot_p50", "float32", "log10(solMass)", "phys.mass", 4, 14, role="label", symbol="log M*/Msun",
           description=f"log10 of the total stellar mass, {_POSTERIOR}"),
    Column("sfr_tot_p50", "float32", "log10(solMass.yr**-1)", "phys.SFR", -8, 5, role="label", symbol="log SFR",
           description=f"log10 of the total star formation rate, {_POSTERIOR}"),
)  # fmt: skip

COLUMN: dict[str, Column] = {column.name: column for column in COLUMNS}

LABEL_COLUMNS = tuple(column.name for column in COLUMNS if column.role == "label")
CATALOG_COLUMNS = tuple(column.name for column in COLUMNS if column.role == "catalog" and column.name != "object_id")


def catalog_schema(names: tuple[str, ...]) -> pa.DataFrameSchema:
    """Return the pandera schema of `names` and the required columns; NaN is allowed except in required columns."""
    import pandera.pandas as pa

    columns = {}
    for c in COLUMNS:
        if c.required or c.name in names:
            check = pa.Check.in_range(c.valid_min, c.valid_max, error=f"outside {c.valid_min:g} to {c.valid_max:g}")
            columns[c.name] = pa.Column(c.dtype, check, nullable=not c.required)
    return pa.DataFrameSchema(columns)

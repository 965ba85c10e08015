"""Catalog columns (type, unit, UCD, valid range), and the reasons to reject a row of a catalog.

Units are VOUnits 1.0 and UCDs are UCD1+ 1.4 (IVOA standards). Column names are those of the SDSS DR14 schema, except
`object_id`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
"""UCDs (and UCD1 words, which VizieR still writes) that identify a column with an unknown name.

Only unambiguous UCDs are listed. The UCD of a magnitude names neither photometric system nor aperture, and that of a
mass names no estimator.
"""

Role = Literal["catalog", "label"]

REJECTED_TABLE_COLUMNS = ("row", "object_id", "column", "reason", "value")
"""Columns of a table of rejected rows: row of the catalog from 0, id as given, invalid column, lower-case name of the
`RejectReason`, value as given."""


class RejectReason(IntEnum):
    """Reason to reject a row (`/rejected/reason`). Cubes store the numbers: never change them."""

    MISSING = 0
    """A required value is blank, null, or the sentinel -9999."""
    NOT_A_NUMBER = 1
    """Text instead of a number."""
    OUT_OF_RANGE = 2
    """A number outside the valid range: a magnitude of 0, a declination of 120 degrees."""
    DAMAGED_ID = 3
    """An id beyond 2^53 that a float or a spreadsheet has rounded."""
    NOT_AN_ID = 4
    """An id that is not a 64-bit integer."""
    REPEATED_ID = 5
    """A repeated id; the first row with the id is registered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Column of a catalog.

    `valid_min` and `valid_max` are inclusive. A value outside them is impossible (a magnitude of 400), not just
    unusual. The cube stores labels apart from the catalog, because labels change and pixels do not.
    """

    name: str
    dtype: Literal["int64", "float64", "float32"]
    unit: str
    ucd: str
    description: str
    valid_min: float
    valid_max: float
    role: Role = "catalog"
    required: bool = False
    symbol: str = ""
    """Symbol for figures and reports; empty = use the name."""


def _magnitudes() -> Iterator[Column]:
    for band in "ugriz":
        yield Column(
            name=f"modelMag_{band}",
            dtype="float32",
            unit="mag",
            ucd=f"phot.mag;em.opt.{band.upper()}",
            description=f"Model magnitude in {band}",
            valid_min=0.01,
            valid_max=40,
        )
        yield Column(
            name=f"modelMagErr_{band}",
            dtype="float32",
            unit="mag",
            ucd=f"stat.error;phot.mag;em.opt.{band.upper()}",
            description=f"Error of the model magnitude in {band}",
            valid_min=0,
            valid_max=100,
        )


def _line_fluxes() -> Iterator[Column]:
    lines = {
        "nii_6584": "[N II] 6584",
        "h_alpha": "H alpha",
        "oiii_5007": "[O III] 5007",
        "h_beta": "H beta",
        "h_delta": "H delta",
    }
    for line, title in lines.items():
        yield Column(
            name=f"{line}_flux",
            dtype="float32",
            unit="1e-17 erg.s**-1.cm**-2",
            ucd="phot.flux;spect.line",
            description=f"Flux of {title}",
            valid_min=-1e7,
            valid_max=1e7,
        )
        yield Column(
            name=f"{line}_flux_err",
            dtype="float32",
            unit="1e-17 erg.s**-1.cm**-2",
            ucd="stat.error;phot.flux;spect.line",
            description=f"Error of the flux of {title}",
            valid_min=-1e7,
            valid_max=1e7,
        )


def _metallicity_percentiles() -> Iterator[Column]:
    for suffix, percentile in {"p2p5": "2.5", "p16": "16", "p50": "50", "p84": "84", "p97p5": "97.5"}.items():
        yield Column(
            name=f"oh_{suffix}",
            dtype="float32",
            unit="",
            symbol="12 + log(O/H)",
            ucd="phys.abund.Z",
            role="label",
            valid_min=6,
            valid_max=11,
            description=f"12 + log(O/H), {percentile} % percentile of the MPA-JHU posterior",
        )


COLUMNS: tuple[Column, ...] = (
    Column(name="object_id", dtype="int64", unit="", ucd="meta.id;meta.main", required=True, valid_min=0,
           valid_max=2**63 - 1, description="Object id of the survey (SDSS objID), 64-bit"),
    Column(name="specObjID", dtype="int64", unit="", ucd="meta.id", valid_min=0, valid_max=2**63 - 1,
           description="Id of the spectrum, 64-bit"),
    Column(name="ra", dtype="float64", unit="deg", ucd="pos.eq.ra;meta.main", required=True, valid_min=0,
           valid_max=360, description="Right ascension, ICRS"),
    Column(name="dec", dtype="float64", unit="deg", ucd="pos.eq.dec;meta.main", required=True, valid_min=-90,
           valid_max=90, description="Declination, ICRS"),
    Column(name="z", dtype="float32", unit="", ucd="src.redshift", description="Spectroscopic redshift",
           valid_min=-0.1, valid_max=12),
    Column(name="zErr", dtype="float32", unit="", ucd="stat.error;src.redshift", description="Error of the redshift",
           valid_min=-10, valid_max=10),
    Column(name="velDisp", dtype="float32", unit="km.s**-1", ucd="phys.veloc.dispersion",
           description="Velocity dispersion of the stars", valid_min=-10, valid_max=2000),
    Column(name="velDispErr", dtype="float32", unit="km.s**-1", ucd="stat.error;phys.veloc.dispersion",
           description="Error of the velocity dispersion; negative codes mark failed fits", valid_min=-10,
           valid_max=1e6),
    Column(name="petroMag_r", dtype="float32", unit="mag", ucd="phot.mag;em.opt.R",
           description="Petrosian magnitude in r", valid_min=0.01, valid_max=40),
    *_magnitudes(),
    Column(name="petroR50_r", dtype="float32", unit="arcsec", ucd="phys.angSize;em.opt.R",
           description="Radius of 50 % of the Petrosian r flux", valid_min=0, valid_max=1000),
    Column(name="petroR90_r", dtype="float32", unit="arcsec", ucd="phys.angSize;em.opt.R",
           description="Radius of 90 % of the Petrosian r flux", valid_min=0, valid_max=1000),
    *_line_fluxes(),
    Column(name="d4000", dtype="float32", unit="", ucd="spect.index",
           description="Strength of the 4000 A break (narrow); "
           "0 where it could not be measured", valid_min=0, valid_max=100),
    Column(name="d4000_err", dtype="float32", unit="", ucd="stat.error;spect.index",
           description="Error of the 4000 A break", valid_min=-10, valid_max=1000),
    Column(name="bptclass", dtype="float32", unit="", ucd="src.class",
           description="BPT class: -1 unclassified, 1 star forming, 2 low S/N star forming, 3 composite, 4 AGN, "
           "5 low S/N LINER", valid_min=-1, valid_max=5),
    *_metallicity_percentiles(),
    Column(name="lgm_tot_p50", dtype="float32", unit="log10(solMass)", symbol="log M*/Msun",
           ucd="phys.mass", role="label", valid_min=4,
           valid_max=14, description="log10 of the total stellar mass, median of the MPA-JHU posterior"),
    Column(name="sfr_tot_p50", dtype="float32", unit="log10(solMass.yr**-1)", symbol="log SFR",
           ucd="phys.SFR", role="label",
           valid_min=-8, valid_max=5, description="log10 of the total star formation rate, median of the MPA-JHU "
           "posterior"),
)  # fmt: skip

COLUMN: dict[str, Column] = {column.name: column for column in COLUMNS}

LABEL_COLUMNS = tuple(column.name for column in COLUMNS if column.role == "label")
CATALOG_COLUMNS = tuple(column.name for column in COLUMNS if column.role == "catalog" and column.name != "object_id")


def catalog_schema(names: tuple[str, ...]) -> pa.DataFrameSchema:
    """Return the pandera schema of a catalog.

    NaN is allowed except in required columns.

    Parameters
    ----------
    names
        Names of columns; required columns are always part of the schema.
    """
    import pandera.pandas as pa

    wanted = [c for c in COLUMNS if c.required or c.name in names]
    return pa.DataFrameSchema(
        {
            c.name: pa.Column(
                c.dtype,
                pa.Check.in_range(c.valid_min, c.valid_max, error=f"outside {c.valid_min:g} to {c.valid_max:g}"),
                nullable=not c.required,
            )
            for c in wanted
        }
    )

"""Selections of galaxies, from which queries and checks are built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from schemas.errors import RecipeError

QUERY_TABLES = (
    "SpecObj S JOIN Galaxy G ON G.objID = S.bestObjID "
    "JOIN galSpecLine L ON L.specObjID = S.specObjID "
    "JOIN galSpecInfo I ON I.specObjID = S.specObjID "
    "JOIN galSpecIndx X ON X.specObjID = S.specObjID "
    "JOIN galSpecExtra E ON E.specObjID = S.specObjID"
)
"""Join of the paper (Wu & Boada 2019, §2.1): photometry, spectrum and MPA-JHU tables of one galaxy."""

QUERY_COLUMNS: dict[str, str] = {
    "objID": "G.objID", "specObjID": "S.specObjID", "ra": "G.ra", "dec": "G.dec", "z": "S.z", "zErr": "S.zErr",
    "velDisp": "S.velDisp", "velDispErr": "S.velDispErr", "petroMag_r": "G.petroMag_r",
    **{f"modelMag_{band}": f"G.modelMag_{band}" for band in "ugriz"},
    **{f"modelMagErr_{band}": f"G.modelMagErr_{band}" for band in "ugriz"},
    "petroR50_r": "G.petroR50_r", "petroR90_r": "G.petroR90_r",
    **{
        f"{line}{suffix}": f"L.{line}{suffix}"
        for line in ("nii_6584_flux", "h_alpha_flux", "oiii_5007_flux", "h_beta_flux", "h_delta_flux")
        for suffix in ("", "_err")
    },
    "d4000": "X.d4000", "d4000_err": "X.d4000_err", "bptclass": "E.bptclass",
    **{f"oh_{p}": f"E.oh_{p}" for p in ("p2p5", "p16", "p50", "p84", "p97p5")},
    "lgm_tot_p50": "E.lgm_tot_p50", "sfr_tot_p50": "E.sfr_tot_p50",
}  # fmt: skip
"""SQL expression in the survey's tables, by column of the response."""

MJD_ZERO = date(1858, 11, 17)
"""Day 0 of the Modified Julian Date."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Condition `low < expression < high`; either bound may be None."""

    expression: str
    low: float | None = None
    high: float | None = None

    @property
    def sql(self) -> str:
        sides = []
        if self.low is not None:
            sides.append(f"{self.expression} > {self.low:g}")
        if self.high is not None:
            sides.append(f"{self.expression} < {self.high:g}")
        return " AND ".join(sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Named set of cuts with their source, and further SQL conditions of one run."""

    name: str
    source: str
    cuts: tuple[Cut, ...]
    conditions: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """WHERE clause, without the word WHERE."""
        return " AND ".join([*(cut.sql for cut in self.cuts), "E.oh_p50 <> -9999", *self.conditions])

    def narrowed(self, *, where: str = "", since: date | None = None) -> Selection:
        """Add a condition in SQL over `QUERY_TABLES`, and the first day (UTC) on which a spectrum was observed.

        Examples
        --------
        >>> SELECTIONS["labelled"].narrowed(where="G.dec > 30", since=date(2012, 1, 1)).sql
        'E.oh_p50 <> -9999 AND (G.dec > 30) AND S.mjd >= 55927'
        """
        conditions = [f"({where.strip()})"] if where.strip() else []
        if since is not None:
            conditions.append(f"S.mjd >= {(since - MJD_ZERO).days}")
        return replace(self, conditions=(*self.conditions, *conditions))


_PAPER_CUTS = (
    Cut("G.petroMag_r", 10, 18),
    Cut("(G.modelMag_u - G.modelMag_r)", 0, 6),
    *(Cut(f"G.modelMag_{band}", 10, 25) for band in "ugriz"),
    Cut("S.rChi2", high=2),
    Cut("S.zErr", 0, 0.01),
    Cut("S.z", 0.02),
)

SELECTIONS: dict[str, Selection] = {
    selection.name: selection
    for selection in (
        Selection(name="wu_boada_2019", source="Wu & Boada 2019, section 2.1 (SDSS DR14)", cuts=_PAPER_CUTS),
        Selection(name="labelled", source="all galaxies with a metallicity", cuts=()),
    )
}


def selection_named(name: str) -> Selection:
    """Return the selection `name`, or raise a `RecipeError` that lists the known names."""
    if name not in SELECTIONS:
        raise RecipeError(f"selection {name!r} is unknown: choose one of {', '.join(SELECTIONS)}")
    return SELECTIONS[name]

"""Feature views and label views: what a model may be given and what it is taught, by name and version.

The entity is an object of the survey, by `object_id`. A *feature view* is a named, versioned group of columns of the
catalog, of columns that are computed from those, or one level of the images; a *label view* is a group of labels with
their source. Units are VOUnits, meanings UCD1+ words. A definition never changes under its `name@version`: the cube
keeps the fingerprint of each that was used, and refuses another one.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum, StrEnum
from typing import Any, TypeVar

from schemas.catalog import COLUMN
from schemas.cube import LABEL_VIEW, LEVELS
from schemas.errors import FeatureError
from schemas.fingerprints import fingerprint


class Split(IntEnum):
    """Codes of the three splits."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


class Missing(StrEnum):
    """What a training set does with an object that lacks a value."""

    KEPT = "kept"
    """The value is null (NaN), and the model has to cope."""
    LEFT_OUT = "left out"
    """The object is left out of the training set, and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureColumn:
    """One column of a feature view.

    Attributes
    ----------
    expression
        Formula over columns of the catalog, such as "modelMag_g - modelMag_r"; a column of the catalog is its own name.
    valid_min, valid_max
        Inclusive; a value outside them is null.
    """

    name: str
    expression: str
    unit: str
    ucd: str
    description: str
    valid_min: float
    valid_max: float
    dtype: str = "float32"
    missing: Missing = Missing.KEPT

    @property
    def is_derived(self) -> bool:
        return self.expression != self.name

    @property
    def inputs(self) -> tuple[str, ...]:
        """The catalog's columns that it is computed from.

        Examples
        --------
        >>> FEATURE_VIEWS["colours@1"].columns[1].inputs
        ('modelMag_g', 'modelMag_r')
        """
        names = [node.id for node in ast.walk(ast.parse(self.expression, mode="eval")) if isinstance(node, ast.Name)]
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureView:
    """A named, versioned group of features; `level` is the side in px of a view of images, else 0."""

    name: str
    version: int
    description: str
    columns: tuple[FeatureColumn, ...] = ()
    level: int = 0

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def is_derived(self) -> bool:
        return any(column.is_derived for column in self.columns)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The catalog's columns that the view is made of."""
        return tuple(dict.fromkeys(name for column in self.columns for name in column.inputs))

    def definition(self) -> dict[str, Any]:
        """Everything on which a value depends, as plain data."""
        columns = [
            {
                "name": c.name, "expression": c.expression, "unit": c.unit, "dtype": c.dtype,
                "valid_range": [c.valid_min, c.valid_max], "missing": c.missing.value,
            }
            for c in self.columns
        ]  # fmt: skip
        return {"name": self.name, "version": self.version, "level": self.level, "columns": columns}

    @property
    def fingerprint(self) -> str:
        return fingerprint(**self.definition())


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelView:
    """A named, versioned group of labels; `group` is where the cube keeps them and counts their versions."""

    name: str
    version: int
    description: str
    source: str
    columns: tuple[str, ...]
    group: str = LABEL_VIEW

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"


def _of_catalog(*names: str) -> tuple[FeatureColumn, ...]:
    return tuple(
        FeatureColumn(
            name=name, expression=name, unit=COLUMN[name].unit, ucd=COLUMN[name].ucd, dtype=COLUMN[name].dtype,
            description=COLUMN[name].description, valid_min=COLUMN[name].valid_min, valid_max=COLUMN[name].valid_max,
        )
        for name in names
    )  # fmt: skip


def _colour(bluer: str, redder: str) -> FeatureColumn:
    return FeatureColumn(
        name=f"{bluer}_{redder}",
        expression=f"modelMag_{bluer} - modelMag_{redder}",
        unit="mag",
        ucd=f"phot.color;em.opt.{bluer.upper()};em.opt.{redder.upper()}",
        description=f"Colour {bluer} - {redder} by model magnitudes, not corrected for extinction",
        valid_min=-10,
        valid_max=10,
    )


FEATURE_VIEWS: dict[str, FeatureView] = {
    view.ref: view
    for view in (
        FeatureView(
            name="photometry", version=1, description="Magnitudes and their errors in five bands",
            columns=_of_catalog(
                *(f"modelMag_{band}" for band in "ugriz"), *(f"modelMagErr_{band}" for band in "ugriz"), "petroMag_r",
            ),
        ),
        FeatureView(
            name="gri", version=1, description="The magnitudes of the paper's random forest (Wu & Boada 2019)",
            columns=_of_catalog("modelMag_g", "modelMag_r", "modelMag_i"),
        ),
        FeatureView(
            name="colours", version=1, description="Colours by model magnitudes",
            columns=(_colour("u", "g"), _colour("g", "r"), _colour("r", "i"), _colour("i", "z"), _colour("u", "r")),
        ),
        FeatureView(
            name="structure", version=1, description="Sizes and concentration in r",
            columns=(
                *_of_catalog("petroR50_r", "petroR90_r"),
                FeatureColumn(
                    name="concentration_r", expression="petroR90_r / petroR50_r", unit="", ucd="arith.ratio;em.opt.R",
                    description="Radius of 90 % over radius of 50 % of the Petrosian r flux", valid_min=1, valid_max=20,
                ),
            ),
        ),
        *(
            FeatureView(
                name=f"image_{level}", version=1, level=level, description=f"The gri image averaged to {level} px",
            )
            for level in LEVELS
        ),
    )
}  # fmt: skip
"""Every feature view by its `name@version`."""

LABEL_VIEWS: dict[str, LabelView] = {
    view.ref: view
    for view in (
        LabelView(
            name="metallicity", version=1, description="12 + log(O/H): median and 2.5, 16, 84, 97.5 % percentiles",
            source="MPA-JHU galSpecExtra, SDSS DR8+ (Tremonti et al. 2004)",
            columns=("oh_p50", "oh_p2p5", "oh_p16", "oh_p84", "oh_p97p5"),
        ),
        LabelView(
            name="stellar_mass", version=1, description="log10 of the total stellar mass, median",
            source="MPA-JHU galSpecExtra, SDSS DR8+ (Kauffmann et al. 2003)", columns=("lgm_tot_p50",),
        ),
        LabelView(
            name="star_formation", version=1, description="log10 of the total star formation rate, median",
            source="MPA-JHU galSpecExtra, SDSS DR8+ (Brinchmann et al. 2004)", columns=("sfr_tot_p50",),
        ),
    )
}  # fmt: skip
"""Every label view by its `name@version`."""

_View = TypeVar("_View", FeatureView, LabelView)


def feature_view(ref: str) -> FeatureView:
    """The feature view of this `name@version`; a name alone means its newest version.

    Raises
    ------
    FeatureError
        There is none; the message names those that are close.

    Examples
    --------
    >>> feature_view("colours").ref
    'colours@1'
    >>> feature_view("colors@1")
    Traceback (most recent call last):
    schemas.errors.FeatureError: feature view 'colors@1' is unknown: did you mean colours@1? There are photometry@1, ...
    """
    return _named(ref, FEATURE_VIEWS, "feature view")


def label_view(ref: str) -> LabelView:
    """The label view of this `name@version`, or the one that has this label.

    Raises
    ------
    FeatureError
        There is none; the message names those that are close.

    Examples
    --------
    >>> label_view("oh_p50").ref, label_view("stellar_mass").ref
    ('metallicity@1', 'stellar_mass@1')
    """
    with_it = [view for view in LABEL_VIEWS.values() if ref in view.columns]
    return with_it[0] if with_it else _named(ref, LABEL_VIEWS, "label view")


def _named(ref: str, views: Mapping[str, _View], kind: str) -> _View:
    if ref in views:
        return views[ref]
    versions = [view for view in views.values() if view.name == ref]
    if versions:
        return max(versions, key=lambda view: view.version)
    close = get_close_matches(ref, views, n=2, cutoff=0.6)
    meant = f"did you mean {' or '.join(close)}? There are" if close else "there are"
    raise FeatureError(f"{kind} {ref!r} is unknown: {meant} {', '.join(views)}")

"""Definitions of feature views and label views, by name and version.

A feature view is a group of catalog columns, of columns computed from them, or one level of the images. A label view
is a group of labels with their source. The definition of a `name@version` never changes: the cube stores its
fingerprint and refuses another definition.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum, StrEnum
from typing import TypeVar

from schemas.catalog import COLUMN
from schemas.cube import LABEL_VIEW, LEVELS
from schemas.errors import FeatureError
from schemas.fingerprints import fingerprint


class Split(IntEnum):
    """Split of the labelled objects."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


class Missing(StrEnum):
    """Treatment of missing values in a training set."""

    KEPT = "kept"  # the value is NaN
    LEFT_OUT = "left out"  # the object is dropped and counted


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """Column of a feature view; values outside the inclusive range become NaN.

    `expression` is a formula over catalog columns, such as "modelMag_g - modelMag_r"; the name alone for a column of
    the catalog.
    """

    name: str
    expression: str
    unit: str
    ucd: str
    valid_min: float
    valid_max: float
    description: str
    dtype: str = "float32"
    missing: Missing = Missing.KEPT

    @property
    def is_derived(self) -> bool:
        return self.expression != self.name

    @property
    def inputs(self) -> tuple[str, ...]:
        """Catalog columns in the expression.

        Examples
        --------
        >>> FEATURE_VIEWS["colours@1"].columns[1].inputs
        ('modelMag_g', 'modelMag_r')
        """
        names = [node.id for node in ast.walk(ast.parse(self.expression, mode="eval")) if isinstance(node, ast.Name)]
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class FeatureView:
    """Named, versioned group of features; `level` is the side of an image view in pixels, else 0."""

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
        """Catalog columns in the expressions of all columns."""
        return tuple(dict.fromkeys(name for column in self.columns for name in column.inputs))

    def definition(self) -> dict[str, object]:
        """Return all parameters that determine the values, as JSON values."""
        columns = [
            {
                "name": column.name,
                "expression": column.expression,
                "unit": column.unit,
                "dtype": column.dtype,
                "valid_range": [column.valid_min, column.valid_max],
                "missing": column.missing.value,
            }
            for column in self.columns
        ]
        return {"name": self.name, "version": self.version, "level": self.level, "columns": columns}

    @property
    def fingerprint(self) -> str:
        return fingerprint(**self.definition())


@dataclass(frozen=True, slots=True)
class LabelView:
    """Named, versioned group of labels; `group` is the group of the cube with their values and versions."""

    name: str
    version: int
    description: str
    source: str
    columns: tuple[str, ...]
    group: str = LABEL_VIEW

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"


def _catalog_columns(*names: str) -> tuple[FeatureColumn, ...]:
    columns = (COLUMN[name] for name in names)
    return tuple(
        FeatureColumn(c.name, c.name, c.unit, c.ucd, c.valid_min, c.valid_max, c.description, dtype=c.dtype)
        for c in columns
    )


def _colour(bluer: str, redder: str) -> FeatureColumn:
    expression = f"modelMag_{bluer} - modelMag_{redder}"
    ucd = f"phot.color;em.opt.{bluer.upper()};em.opt.{redder.upper()}"
    description = f"Colour {bluer} - {redder} by model magnitudes, not corrected for extinction"
    return FeatureColumn(f"{bluer}_{redder}", expression, "mag", ucd, -10, 10, description)


_R90_OVER_R50 = "Radius of 90 % over radius of 50 % of the Petrosian r flux"
_CONCENTRATION = FeatureColumn(
    "concentration_r", "petroR90_r / petroR50_r", "", "arith.ratio;em.opt.R", 1, 20, _R90_OVER_R50
)
_MAGNITUDES = (f"{name}_{band}" for name in ("modelMag", "modelMagErr") for band in "ugriz")
_PHOTOMETRY = _catalog_columns(*_MAGNITUDES, "petroMag_r")
_GRI = ("modelMag_g", "modelMag_r", "modelMag_i")
_COLOURS = tuple(_colour(*pair) for pair in ("ug", "gr", "ri", "iz", "ur"))
_STRUCTURE = (*_catalog_columns("petroR50_r", "petroR90_r"), _CONCENTRATION)

FEATURE_VIEWS: dict[str, FeatureView] = {
    view.ref: view
    for view in (
        FeatureView("photometry", 1, "Magnitudes and their errors in five bands", _PHOTOMETRY),
        FeatureView("gri", 1, "Magnitudes of the paper's random forest (Wu & Boada 2019)", _catalog_columns(*_GRI)),
        FeatureView("colours", 1, "Colours by model magnitudes", _COLOURS),
        FeatureView("structure", 1, "Sizes and concentration in r", _STRUCTURE),
        *(FeatureView(f"image_{level}", 1, f"Image averaged to {level} px", level=level) for level in LEVELS),
    )
}
"""Feature views by `name@version`."""

_GAL_SPEC = "MPA-JHU galSpecExtra, SDSS DR8+"
_OH = ("oh_p50", "oh_p2p5", "oh_p16", "oh_p84", "oh_p97p5")
_OH_TEXT = "12 + log(O/H): median and 2.5, 16, 84, 97.5 % percentiles"
_MASS_TEXT = "log10 of the total stellar mass, median"
_SFR_TEXT = "log10 of the total star formation rate, median"

LABEL_VIEWS: dict[str, LabelView] = {
    view.ref: view
    for view in (
        LabelView("metallicity", 1, _OH_TEXT, f"{_GAL_SPEC} (Tremonti et al. 2004)", _OH),
        LabelView("stellar_mass", 1, _MASS_TEXT, f"{_GAL_SPEC} (Kauffmann et al. 2003)", ("lgm_tot_p50",)),
        LabelView("star_formation", 1, _SFR_TEXT, f"{_GAL_SPEC} (Brinchmann et al. 2004)", ("sfr_tot_p50",)),
    )
}
"""Label views by `name@version`."""

_View = TypeVar("_View", FeatureView, LabelView)


def feature_view(ref: str) -> FeatureView:
    """Return the feature view `name@version`, or the newest version of a name; raise a `FeatureError` if unknown.

    Examples
    --------
    >>> feature_view("colours").ref
    'colours@1'
    >>> feature_view("colors@1")
    Traceback (most recent call last):
    schemas.errors.FeatureError: feature view 'colors@1' is unknown (did you mean colours@1?); known: photometry@1, ...
    """
    return _find_view(ref, FEATURE_VIEWS, "feature view")


def label_view(ref: str) -> LabelView:
    """Return the label view `name@version`, or the view with the label `ref`; raise a `FeatureError` if unknown.

    Examples
    --------
    >>> label_view("oh_p50").ref, label_view("stellar_mass").ref
    ('metallicity@1', 'stellar_mass@1')
    """
    with_label = [view for view in LABEL_VIEWS.values() if ref in view.columns]
    return with_label[0] if with_label else _find_view(ref, LABEL_VIEWS, "label view")


def _find_view(ref: str, views: Mapping[str, _View], kind: str) -> _View:
    if ref in views:
        return views[ref]
    versions = [view for view in views.values() if view.name == ref]
    if versions:
        return max(versions, key=lambda view: view.version)
    close = get_close_matches(ref, views, n=2, cutoff=0.6)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    raise FeatureError(f"{kind} {ref!r} is unknown{hint}; known: {', '.join(views)}")

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

    KEPT = "kept"
    """The value is NaN."""
    LEFT_OUT = "left out"
    """The object is dropped and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureColumn:
    """Column of a feature view.

    Attributes
    ----------
    expression
        Formula over catalog columns, such as "modelMag_g - modelMag_r"; the name alone for a column of the catalog.
    valid_min, valid_max
        Inclusive range; values outside become NaN.
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
        """Catalog columns in the expression.

        Examples
        --------
        >>> FEATURE_VIEWS["colours@1"].columns[1].inputs
        ('modelMag_g', 'modelMag_r')
        """
        names = [node.id for node in ast.walk(ast.parse(self.expression, mode="eval")) if isinstance(node, ast.Name)]
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
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
    return tuple(
        FeatureColumn(
            name=column.name,
            expression=column.name,
            unit=column.unit,
            ucd=column.ucd,
            dtype=column.dtype,
            description=column.description,
            valid_min=column.valid_min,
            valid_max=column.valid_max,
        )
        for column in map(COLUMN.__getitem__, names)
    )


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


def _view(name: str, description: str, *columns: FeatureColumn, level: int = 0) -> FeatureView:
    return FeatureView(name=name, version=1, description=description, columns=columns, level=level)


_CONCENTRATION = FeatureColumn(
    name="concentration_r",
    expression="petroR90_r / petroR50_r",
    unit="",
    ucd="arith.ratio;em.opt.R",
    description="Radius of 90 % over radius of 50 % of the Petrosian r flux",
    valid_min=1,
    valid_max=20,
)

FEATURE_VIEWS: dict[str, FeatureView] = {
    view.ref: view
    for view in (
        _view(
            "photometry",
            "Magnitudes and their errors in five bands",
            *_catalog_columns(*(f"{name}_{band}" for name in ("modelMag", "modelMagErr") for band in "ugriz")),
            *_catalog_columns("petroMag_r"),
        ),
        _view(
            "gri",
            "Magnitudes of the paper's random forest (Wu & Boada 2019)",
            *_catalog_columns("modelMag_g", "modelMag_r", "modelMag_i"),
        ),
        _view("colours", "Colours by model magnitudes", *(_colour(*pair) for pair in ("ug", "gr", "ri", "iz", "ur"))),
        _view(
            "structure",
            "Sizes and concentration in r",
            *_catalog_columns("petroR50_r", "petroR90_r"),
            _CONCENTRATION,
        ),
        *(_view(f"image_{level}", f"Image averaged to {level} px", level=level) for level in LEVELS),
    )
}
"""Feature views by `name@version`."""

_GAL_SPEC = "MPA-JHU galSpecExtra, SDSS DR8+"

LABEL_VIEWS: dict[str, LabelView] = {
    view.ref: view
    for view in (
        LabelView(
            name="metallicity",
            version=1,
            description="12 + log(O/H): median and 2.5, 16, 84, 97.5 % percentiles",
            source=f"{_GAL_SPEC} (Tremonti et al. 2004)",
            columns=("oh_p50", "oh_p2p5", "oh_p16", "oh_p84", "oh_p97p5"),
        ),
        LabelView(
            name="stellar_mass",
            version=1,
            description="log10 of the total stellar mass, median",
            source=f"{_GAL_SPEC} (Kauffmann et al. 2003)",
            columns=("lgm_tot_p50",),
        ),
        LabelView(
            name="star_formation",
            version=1,
            description="log10 of the total star formation rate, median",
            source=f"{_GAL_SPEC} (Brinchmann et al. 2004)",
            columns=("sfr_tot_p50",),
        ),
    )
}
"""Label views by `name@version`."""

_View = TypeVar("_View", FeatureView, LabelView)


def feature_view(ref: str) -> FeatureView:
    """Return the feature view `name@version`; a name alone means the newest version.

    Raises
    ------
    FeatureError
        The view is unknown; the message names similar views.

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
    """Return the label view `name@version`, or the view with the label `ref`.

    Raises
    ------
    FeatureError
        The view is unknown; the message names similar views.

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

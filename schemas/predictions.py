"""Columns of predictions, and flags of predictions that should not be trusted.

Floats are NaN and flags are -1 for objects without a score, and for values that the model does not provide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntFlag
from typing import Literal


class Flag(IntFlag):
    """Reasons to check a prediction before use, as bits; 0 means no reason."""

    OUTSIDE_TRAINING_SUPPORT = 1
    """The image is far from the training images: a star, blank sky, an artefact, another scale."""
    PHOTOMETRY_OUTSIDE_TRAINING = 2
    """Magnitudes and colours are far from the training objects."""
    CUTOUT_SATURATED = 4
    """A large part of the image is saturated (255 counts)."""
    CUTOUT_MOSTLY_EMPTY = 8
    """Most of the image is empty: the edge of the survey, or a failed cutout."""
    CUTOUT_ARTEFACT_COLOURS = 16
    """The sky colour differs between the sides of the image, or much of the light is in one band."""
    EXTRAPOLATED_RANGE = 32
    """The predicted value lies outside the range of most training labels, or of the labels that the paper trusts."""
    SUPPORT_UNKNOWN = 64
    """The model stores no training distribution: it was trained by an older version or on too few galaxies."""
    CUTOUT_UNLIKE_CATALOG = 128
    """Brightness, colours or size of the image contradict the catalog: another object, or another scale."""


OUT_OF_DISTRIBUTION = (
    Flag.OUTSIDE_TRAINING_SUPPORT
    | Flag.PHOTOMETRY_OUTSIDE_TRAINING
    | Flag.CUTOUT_SATURATED
    | Flag.CUTOUT_MOSTLY_EMPTY
    | Flag.CUTOUT_ARTEFACT_COLOURS
    | Flag.CUTOUT_UNLIKE_CATALOG
)
"""Flags of the object, not of the predicted value or the model."""

UNKNOWN_FLAGS = -1
"""Value of objects that were not scored, or were scored by a version without flags."""

TRUSTED_RANGE = {"oh_p50": (8.5, 9.1)}
"""Range of trustworthy labels by target; from Wu & Boada (2019) for 12 + log(O/H)."""

_PRIMARY = ("stat.stdev",)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionColumn:
    """Column of `/predictions/<model id>/` and of published catalogs.

    Floats have the unit of the target. Their UCD joins the words of the target and `ucd`.
    """

    name: str
    description: str
    ucd: str = ""
    dtype: Literal["float32", "int32"] = "float32"

    @property
    def fill(self) -> float:
        return math.nan if self.dtype == "float32" else UNKNOWN_FLAGS

    def ucd_for(self, target_ucd: str) -> str:
        """Return the UCD of this column for a target.

        Examples
        --------
        >>> PREDICTION_COLUMN["sigma"].ucd_for("phys.abund.Z"), PREDICTION_COLUMN["p16"].ucd_for("phys.abund.Z")
        ('stat.stdev;phys.abund.Z', 'phys.abund.Z;stat.min')
        >>> PREDICTION_COLUMN["flags"].ucd_for("phys.abund.Z")
        'meta.code.qual'
        """
        if self.dtype != "float32":
            return self.ucd
        if self.ucd in _PRIMARY:
            return ";".join(word for word in (self.ucd, target_ucd) if word)
        # UCD1+: other words of statistics may not stand first
        return f"{target_ucd};{self.ucd}" if target_ucd else ""


PREDICTION_COLUMNS = (
    PredictionColumn(name="mean", ucd="stat.mean", description="Mean of the predictions over the views"),
    PredictionColumn(
        name="sigma",
        ucd="stat.stdev",
        description="Standard deviation of the error: predicted by the network, or half the 16-84 % interval",
    ),
    PredictionColumn(name="p2_5", ucd="stat.min", description="2.5 % percentile, by split-conformal calibration"),
    PredictionColumn(name="p16", ucd="stat.min", description="16 % percentile, by split-conformal calibration"),
    PredictionColumn(name="p50", ucd="stat.median", description="50 % percentile, by split-conformal calibration"),
    PredictionColumn(name="p84", ucd="stat.max", description="84 % percentile, by split-conformal calibration"),
    PredictionColumn(name="p97_5", ucd="stat.max", description="97.5 % percentile, by split-conformal calibration"),
    PredictionColumn(
        name="view_spread", ucd="stat.stdev", description="Standard deviation of the predictions over the views"
    ),
    PredictionColumn(
        name="ensemble_spread",
        ucd="stat.stdev",
        description="Standard deviation of the predictions over the members of the ensemble",
    ),
    PredictionColumn(
        name="flags",
        ucd="meta.code.qual",
        dtype="int32",
        description="Reasons to check before use, as bits; 0 = none, -1 = unknown",
    ),
)

PREDICTION_COLUMN = {column.name: column for column in PREDICTION_COLUMNS}


def flag_names(flags: int) -> str:
    """Return the names of the set bits, joined by `|`; empty if no bit is set.

    Examples
    --------
    >>> flag_names(5), flag_names(0), flag_names(-1)
    ('outside_training_support|cutout_saturated', '', 'unknown')
    """
    if flags < 0:
        return "unknown"
    return "|".join(str(flag.name).lower() for flag in Flag if flags & flag)


def flag_attributes() -> dict[str, object]:
    """Return `flag_masks` and `flag_meanings` of the CF conventions (section 3.5) for the column of flags."""
    return {
        "flag_masks": [int(flag) for flag in Flag],
        "flag_meanings": " ".join(str(flag.name).lower() for flag in Flag),
    }

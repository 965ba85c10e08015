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

    OUTSIDE_TRAINING_SUPPORT = 1  # the image is far from the training images: a star, blank sky, another scale
    PHOTOMETRY_OUTSIDE_TRAINING = 2  # magnitudes and colours are far from the training objects
    CUTOUT_SATURATED = 4  # a large part of the image is saturated (255 counts)
    CUTOUT_MOSTLY_EMPTY = 8  # most of the image is empty: the edge of the survey, or a failed cutout
    CUTOUT_ARTEFACT_COLOURS = 16  # the sky colour differs between the sides, or much of the light is in one band
    EXTRAPOLATED_RANGE = 32  # the value is outside most training labels, or outside the labels that the paper trusts
    SUPPORT_UNKNOWN = 64  # the model stores no training distribution: an older version, or too few galaxies
    CUTOUT_UNLIKE_CATALOG = 128  # brightness, colours or size contradict the catalog: another object or scale


OUT_OF_DISTRIBUTION = ~(Flag.EXTRAPOLATED_RANGE | Flag.SUPPORT_UNKNOWN)
"""Flags of the object, not of the predicted value or the model."""

UNKNOWN_FLAGS = -1
"""Value of objects that were not scored, or were scored by a version without flags."""

TRUSTED_RANGE = {"oh_p50": (8.5, 9.1)}
"""Range of trustworthy labels by target; from Wu & Boada (2019) for 12 + log(O/H)."""


@dataclass(frozen=True, slots=True)
class PredictionColumn:
    """Column of `/predictions/<model id>/` and of published catalogs.

    Floats have the unit of the target. Their UCD joins the words of the target and `ucd`.
    """

    name: str
    ucd: str
    description: str
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
        # UCD1+: no other word of statistics may stand first
        if self.ucd == "stat.stdev":
            return f"{self.ucd};{target_ucd}".rstrip(";")
        return f"{target_ucd};{self.ucd}" if target_ucd else ""


_SIGMA = "Standard deviation of the error: predicted by the network, or half the 16-84 % interval"
_SPREAD = "Standard deviation of the predictions over the"
_PERCENTILE = "percentile, by split-conformal calibration"
_FLAGS = "Reasons to check before use, as bits; 0 = none, -1 = unknown"

PREDICTION_COLUMNS = (
    PredictionColumn("mean", "stat.mean", "Mean of the predictions over the views"),
    PredictionColumn("sigma", "stat.stdev", _SIGMA),
    PredictionColumn("p2_5", "stat.min", f"2.5 % {_PERCENTILE}"),
    PredictionColumn("p16", "stat.min", f"16 % {_PERCENTILE}"),
    PredictionColumn("p50", "stat.median", f"50 % {_PERCENTILE}"),
    PredictionColumn("p84", "stat.max", f"84 % {_PERCENTILE}"),
    PredictionColumn("p97_5", "stat.max", f"97.5 % {_PERCENTILE}"),
    PredictionColumn("view_spread", "stat.stdev", f"{_SPREAD} views"),
    PredictionColumn("ensemble_spread", "stat.stdev", f"{_SPREAD} members of the ensemble"),
    PredictionColumn("flags", "meta.code.qual", _FLAGS, dtype="int32"),
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

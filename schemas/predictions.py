"""Predictions: what scoring writes beside the cube, and the reasons why one of them should not be trusted.

A column of floats is NaN, and flags are -1, where nothing was scored yet, or the model does not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntFlag
from typing import Literal


class Flag(IntFlag):
    """Why a prediction should be looked at before it is used; the bits add up, and 0 says that nothing is wrong."""

    OUTSIDE_TRAINING_SUPPORT = 1
    """The image is unlike all that the network was trained on: a star, blank sky, an artefact, another scale."""
    PHOTOMETRY_OUTSIDE_TRAINING = 2
    """The catalog's magnitudes and colours are unlike those of the training objects."""
    CUTOUT_SATURATED = 4
    """A large part of the image is as bright as 8 bits can say."""
    CUTOUT_MOSTLY_EMPTY = 8
    """Most of the image holds no light at all: the edge of the survey, or a failed cutout."""
    CUTOUT_ARTEFACT_COLOURS = 16
    """The sky has another colour on one side than on the other, or much light is in one band alone."""
    EXTRAPOLATED_RANGE = 32
    """The predicted value is where the training set has few labels, or where the paper distrusts them."""
    SUPPORT_UNKNOWN = 64
    """The model does not know its training support: it was trained by an older version, or on too few galaxies."""
    CUTOUT_UNLIKE_CATALOG = 128
    """The image's brightness, colours or size are not the catalog's: another object, or another scale."""


OUT_OF_DISTRIBUTION = (
    Flag.OUTSIDE_TRAINING_SUPPORT
    | Flag.PHOTOMETRY_OUTSIDE_TRAINING
    | Flag.CUTOUT_SATURATED
    | Flag.CUTOUT_MOSTLY_EMPTY
    | Flag.CUTOUT_ARTEFACT_COLOURS
    | Flag.CUTOUT_UNLIKE_CATALOG
)
"""Those that speak of the object, and not of the predicted value or the model."""

UNKNOWN_FLAGS = -1
"""Not scored yet, or scored before flags were kept."""

TRUSTED_RANGE = {"oh_p50": (8.5, 9.1)}
"""By target: where labels themselves are trusted; Wu & Boada (2019) distrust 12 + log(O/H) below 8.5 and above 9.1."""


_PRIMARY = ("stat.stdev",)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionColumn:
    """One column of `/predictions/<model id>/` and of published catalogs.

    Floats have the unit of the target, and a UCD of the target's own words and `ucd`.
    """

    name: str
    description: str
    ucd: str = ""
    dtype: Literal["float32", "int32"] = "float32"

    @property
    def fill(self) -> float:
        """What stands where nothing is known."""
        return math.nan if self.dtype == "float32" else UNKNOWN_FLAGS

    def ucd_for(self, target_ucd: str) -> str:
        """The UCD of this column of predictions of a target.

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
        # other words of statistics may not stand first
        return f"{target_ucd};{self.ucd}" if target_ucd else ""


PREDICTION_COLUMNS = (
    PredictionColumn(name="mean", ucd="stat.mean", description="Mean of the predictions over the views"),
    PredictionColumn(
        name="sigma", ucd="stat.stdev",
        description="Standard deviation of the error: as the network predicts it, or half the 16-84 % interval",
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
        name="ensemble_spread", ucd="stat.stdev",
        description="Standard deviation of the predictions over the members of the ensemble",
    ),
    PredictionColumn(
        name="flags", ucd="meta.code.qual", dtype="int32",
        description="Reasons to look before use, as bits; 0 = none, -1 = not known",
    ),
)  # fmt: skip

PREDICTION_COLUMN = {column.name: column for column in PREDICTION_COLUMNS}


def flag_names(flags: int) -> str:
    """The names of the bits, apart by `|`; empty where there are none.

    Examples
    --------
    >>> flag_names(5), flag_names(0), flag_names(-1)
    ('outside_training_support|cutout_saturated', '', 'unknown')
    """
    if flags < 0:
        return "unknown"
    return "|".join(str(one.name).lower() for one in Flag if flags & one)


def flag_attributes() -> dict[str, object]:
    """`flag_masks` and `flag_meanings` of the CF conventions (section 3.5), for the column of flags."""
    return {
        "flag_masks": [int(one) for one in Flag],
        "flag_meanings": " ".join(str(one.name).lower() for one in Flag),
    }

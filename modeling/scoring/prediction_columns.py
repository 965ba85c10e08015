"""Published columns of predictions: uncertainties, percentiles and quality flags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modeling.evaluation.intervals import CONFORMAL_LEVELS
from modeling.loading.pixels import Counts
from modeling.models.model import Model
from modeling.outliers.artefact_flags import artefact_flags
from modeling.outliers.image_statistics import measure_images
from modeling.outliers.thumbnails import Thumbnails
from modeling.scoring.predict import Prediction
from schemas.predictions import TRUSTED_RANGE, Flag


def prediction_columns(
    model: Model | Sequence[Model], prediction: Prediction, pixels: Counts, catalog: pd.DataFrame | None = None
) -> dict[str, NDArray[np.float32] | NDArray[np.int32]]:
    """Build the published columns of a prediction.

    Parameters
    ----------
    model
        Model, or the members of an ensemble in the order of their combination.
    pixels
        (object, y, x, band) counts at the model's level.
    catalog
        `modeling.outliers.catalog_consistency.COMPARED_COLUMNS` of the same objects, NaN if unknown. Photometry and
        agreement with the catalog are flagged only for objects with the required columns.

    Returns
    -------
    dict
        Arrays of shape (object,) by names of `PREDICTION_COLUMNS`: float32 in the unit of the target, NaN if the model
        does not provide the value; flags int32.

    Notes
    -----
    Percentiles are the ends of split-conformal intervals about the mean; p50 is the mean. The half-width for an
    ensemble is the mean of its members' half-widths: its error is at most the mean of theirs, so that intervals cover
    at least as much on average. An ensemble uses detector and embedding of its first member.
    """
    members = [model] if isinstance(model, Model) else list(model)
    narrow, wide = (_half_widths(members, prediction, level) for level in CONFORMAL_LEVELS)
    mean = prediction.mean
    columns = {
        "mean": mean,
        "sigma": np.where(np.isfinite(prediction.sigma), prediction.sigma, narrow),
        "p2_5": mean - wide,
        "p16": mean - narrow,
        "p50": np.where(np.isfinite(narrow), mean, np.nan),
        "p84": mean + narrow,
        "p97_5": mean + wide,
        "view_spread": prediction.view_spread,
        "ensemble_spread": prediction.ensemble_spread,
    }
    flags = _flags(members[0], prediction, pixels, catalog)
    return {**{name: values.astype(np.float32) for name, values in columns.items()}, "flags": flags}


def _half_widths(members: Sequence[Model], prediction: Prediction, level: float) -> NDArray[np.float64]:
    """Return the mean half-width of the members' intervals; NaN if one of them lacks an interval of this level."""
    calibrations = [member.config.calibration for member in members]
    unknown = np.full(prediction.mean.shape, np.nan)
    widths = [unknown if c is None else c.half_widths(prediction.sigma, level) for c in calibrations]
    return np.asarray(np.mean(widths, axis=0), dtype=np.float64)


def _flags(model: Model, prediction: Prediction, pixels: Counts, catalog: pd.DataFrame | None) -> NDArray[np.int32]:
    images = Thumbnails.of(pixels)
    flags = artefact_flags(images)
    trusted = TRUSTED_RANGE.get(model.config.target)
    if model.ood_detector is None:
        flags |= Flag.SUPPORT_UNKNOWN
    else:
        statistics = measure_images(images)
        scores = {Flag.OUTSIDE_TRAINING_SUPPORT: model.ood_detector.score(prediction.embedding, statistics)}
        if catalog is not None:
            scores[Flag.PHOTOMETRY_OUTSIDE_TRAINING] = model.ood_detector.photometry_score(catalog)
            scores[Flag.CUTOUT_UNLIKE_CATALOG] = model.ood_detector.catalog_score(statistics, catalog)
        for flag, score in scores.items():
            # NaN (value missing in the catalog) is not above 1
            flags |= np.where(score > 1, flag, 0).astype(np.int32)
        trusted = trusted or model.ood_detector.label_range
    if trusted is not None:
        is_outside = (prediction.mean < trusted[0]) | (prediction.mean > trusted[1])
        flags |= np.where(is_outside, Flag.EXTRAPOLATED_RANGE, 0).astype(np.int32)
    return flags

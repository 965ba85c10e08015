"""Columns of a prediction: error bars, percentiles, and the flags that say when not to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modeling.evaluation.calibration import CONFORMAL_LEVELS, Conformal
from modeling.models.model import Model
from modeling.outliers.artefact_flags import suspicious_flags
from modeling.outliers.image_statistics import Thumbnails, measure_images
from modeling.scoring.predict import Prediction
from schemas.predictions import TRUSTED_RANGE, Flag

Floats = NDArray[np.float64]


def describe(
    model: Model | Sequence[Model],
    prediction: Prediction,
    pixels: NDArray[Any],
    catalog: pd.DataFrame | None = None,
) -> dict[str, NDArray[Any]]:
    """Everything that is published of a prediction.

    Parameters
    ----------
    model
        That predicted; of an ensemble its members, in the order in which their predictions were combined.
    prediction
        Of these images.
    pixels
        (object, y, x, band) counts at the model's level.
    catalog
        Columns `modeling.outliers.catalog_consistency.COMPARED` of the same objects, NaN where there is no value. Without magnitudes they
        are not judged, and without any of the columns images are not compared with the catalog.

    Returns
    -------
    dict
        Arrays of shape (object,) by names of `PREDICTION_COLUMNS`: float32 in the unit of the target, NaN where the
        model cannot say; flags int32.

    Notes
    -----
    Percentiles are ends of split-conformal intervals about the mean, p50 is the mean. Half-widths of an ensemble are
    the mean of its members': its error is at most the mean of theirs, so that intervals hold at least as much on
    average. The training support of an ensemble is that of its first member, whose embedding is kept.
    """
    members = [model] if isinstance(model, Model) else list(model)
    half = {level: _half_width(members, prediction, level) for level in CONFORMAL_LEVELS}
    narrow, wide = (half[level] for level in CONFORMAL_LEVELS)
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


def _half_width(members: Sequence[Model], prediction: Prediction, level: float) -> Floats:
    widths = [_half_width_of(one.config.calibration, prediction, level) for one in members]
    return np.asarray(np.mean(widths, axis=0), dtype=np.float64)


def _half_width_of(calibration: Conformal | None, prediction: Prediction, level: float) -> Floats:
    """NaN without calibration, or from too few validation rows for this level."""
    score = None
    if calibration is not None:
        score = calibration.score_68 if level == CONFORMAL_LEVELS[0] else calibration.score_95
    if calibration is None or score is None:
        return np.full(prediction.mean.shape, np.nan)
    return score * prediction.sigma if calibration.by_sigma else np.full(prediction.mean.shape, score)


def _flags(
    model: Model, prediction: Prediction, pixels: NDArray[Any], catalog: pd.DataFrame | None
) -> NDArray[np.int32]:
    images = Thumbnails.of(pixels)
    flags = suspicious_flags(images)
    trusted = TRUSTED_RANGE.get(model.config.target)
    if model.support is None:
        flags |= Flag.SUPPORT_UNKNOWN
    else:
        statistics = measure_images(images)
        distances = {Flag.OUTSIDE_TRAINING_SUPPORT: model.support.distance(prediction.embedding, statistics)}
        if catalog is not None:
            distances[Flag.PHOTOMETRY_OUTSIDE_TRAINING] = model.support.photometry_distance(catalog)
            distances[Flag.CUTOUT_UNLIKE_CATALOG] = model.support.disagreement(statistics, catalog)
        for flag, distance in distances.items():
            # NaN, where the catalog lacks a value, is not above 1
            flags |= np.where(distance > 1, flag, 0).astype(np.int32)
        trusted = trusted or model.support.label_range
    if trusted is not None:
        beyond = (prediction.mean < trusted[0]) | (prediction.mean > trusted[1])
        flags |= np.where(beyond, Flag.EXTRAPOLATED_RANGE, 0).astype(np.int32)
    return flags

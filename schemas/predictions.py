"""Predictions: what scoring writes beside the cube and into the Parquet catalog."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionColumn:
    """One column of `/predictions/<model id>/` and of the Parquet catalog; NaN = not scored yet."""

    name: str
    description: str


PREDICTION_COLUMNS = (
    PredictionColumn(name="mean", description="Mean of the predictions over the views"),
    PredictionColumn(name="view_spread", description="Standard deviation of the predictions over the views"),
)

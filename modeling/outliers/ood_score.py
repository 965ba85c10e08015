"""Out-of-distribution score of an object: its distance from the training set of a network.

A network predicts a value for a star or a patch of sky with the same confidence as for a galaxy. The detector combines
three kinds of scores, fitted to training rows: a region of the network's embedding, regions of image statistics that
are independent of the network, and a discriminant against counterexamples. Thresholds come from rows that were not
part of the fit: validation rows, and for the image statistics also training rows left out in turn. Magnitudes have a
region, and the consistency of image and catalog has one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modeling.outliers.catalog_consistency import (
    PHOTOMETRY,
    CatalogConsistency,
    has_compared_columns,
    magnitude_and_colours,
)
from modeling.outliers.image_scores import (
    ImageScorer,
    Statistics,
    TrainingStatistics,
    join_groups,
    joint_thresholds,
    quantile_threshold,
)
from modeling.outliers.image_statistics import measure_images
from modeling.outliers.regions import MahalanobisRegion, Values
from modeling.outliers.thumbnails import Images, Thumbnails
from schemas.errors import TrainingError

MAX_ROWS = 2048
"""Training rows, and validation rows, that a detector is fitted to: 100 MB of images at 128 px."""
MIN_DETECTOR_ROWS = 30
"""Training rows, and validation rows, that a detector needs."""
IMAGE_SHARE = 0.02
"""Share of validation rows and of training rows above any threshold of the images."""
CATALOG_SHARE = 0.01
"""Share of validation rows above the threshold of the magnitudes; and, together with training rows left out in turn,
above that of the consistency with the catalog."""
N_COMPONENTS = 24
"""Principal components of the embedding."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectorExamples:
    """Objects that a detector is fitted to."""

    embedding: NDArray[np.float32]
    """(object, feature), from `Prediction`."""
    pixels: Images
    """(object, y, x, band) counts at the level of the network."""
    catalog: pd.DataFrame | None = None
    """`modeling.outliers.catalog_consistency.COMPARED_COLUMNS`, NaN if unknown."""
    finer: Images | None = None
    """Same images at the next finer level, (object, 2 y, 2 x, band): training galaxies at twice the scale."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OODDetector:
    """Detector of objects unlike the training set. Scores are in units of their thresholds: flagged above 1."""

    embedding: MahalanobisRegion
    """Region of principal components of the embedding and the length of the remainder."""
    mean: Values
    """(feature,) Mean embedding."""
    components: Values
    """(component, feature) Principal components of the embedding, of unit length."""
    image: ImageScorer
    photometry: MahalanobisRegion | None
    """Region of r, g - r and r - i; None if too few training rows have all magnitudes."""
    consistency: CatalogConsistency | None
    """None if too few training rows have all values that images are compared with."""
    label_range: tuple[float, float]
    """1 % and 99 % quantile of the training labels, in the unit of the target."""
    n_train: int
    n_validation: int

    @classmethod
    def fit(cls, train: DetectorExamples, validation: DetectorExamples, labels: Values) -> OODDetector:
        """Fit a detector to the training rows of a network, with thresholds from validation rows.

        Each set needs `MIN_DETECTOR_ROWS`; some thousands suffice. Labels are those of all training rows, NaN if
        unknown.

        Raises
        ------
        TrainingError
            Too few rows.
        """
        n_train, n_validation = len(train.embedding), len(validation.embedding)
        if min(n_train, n_validation) < MIN_DETECTOR_ROWS:
            raise TrainingError(
                f"{n_train} training rows and {n_validation} validation rows: an out-of-distribution detector needs "
                f"{MIN_DETECTOR_ROWS} of each; give the survey more objects or the split another share"
            )
        vectors = np.asarray(train.embedding, dtype=np.float64)
        mean = vectors.mean(axis=0)
        n_components = min(N_COMPONENTS, n_train // 10, vectors.shape[1])
        components = np.linalg.svd(vectors - mean, full_matrices=False)[2][:n_components]
        embedding = MahalanobisRegion.fit(_project(vectors, mean, components))
        embedding_scores = embedding.score(_project(validation.embedding, mean, components))
        statistics = TrainingStatistics.of(train.pixels, train.finer)
        validation_statistics = measure_images(Thumbnails.of(validation.pixels))
        image = ImageScorer.fit(statistics)
        # the network was fitted to the training rows: their embeddings do not represent new objects
        scores = {"embedding": np.concatenate([np.full(n_train, np.nan), embedding_scores])}
        scores |= image.held_out_scores(statistics, validation_statistics)
        thresholds = joint_thresholds(scores, n_validation=n_validation, share=IMAGE_SHARE)
        known = labels[np.isfinite(labels)]
        low, high = np.quantile(known, [0.01, 0.99]).tolist() if known.size else (math.nan, math.nan)
        return cls(
            embedding=replace(embedding, threshold=thresholds["embedding"]),
            mean=mean,
            components=components,
            image=image.with_thresholds(thresholds),
            photometry=_fit_photometry(train.catalog, validation.catalog),
            consistency=_fit_consistency(
                join_groups(statistics.ordinary), train.catalog, join_groups(validation_statistics), validation.catalog
            ),
            label_range=(low, high),
            n_train=n_train,
            n_validation=n_validation,
        )

    def score(self, embedding: NDArray[np.float32], statistics: Statistics) -> Values:
        """Return the OOD score of images, (object,): the largest of `scores`."""
        return np.asarray(np.max(list(self.scores(embedding, statistics).values()), axis=0), dtype=np.float64)

    def scores(self, embedding: NDArray[np.float32], statistics: Statistics) -> dict[str, Values]:
        """Return the scores of images by name, (object,): they show why an image is flagged.

        The embedding, (object, feature), comes from `Prediction`; statistics are of images at the network's level.
        """
        projected = _project(embedding, self.mean, self.components)
        return {"embedding": self.embedding.score(projected), **self.image.scores(statistics)}

    def photometry_score(self, catalog: pd.DataFrame) -> Values:
        """Return scores of magnitudes and colours, (object,); NaN if a magnitude or the region is unknown."""
        if self.photometry is None or not set(PHOTOMETRY) <= set(catalog.columns):
            return np.full(len(catalog), np.nan)
        return self.photometry.score(magnitude_and_colours(catalog))

    def catalog_score(self, statistics: Statistics, catalog: pd.DataFrame) -> Values:
        """Return scores of the consistency of images with the catalog, (object,); NaN if a value is unknown."""
        if self.consistency is None or not has_compared_columns(catalog):
            return np.full(len(catalog), np.nan)
        return self.consistency.score(join_groups(statistics), catalog)


def _project(embedding: NDArray[np.floating], mean: Values, components: Values) -> Values:
    """Return principal components, and the logarithm of the length of the remainder."""
    apart = np.asarray(embedding, dtype=np.float64) - mean
    along = apart @ components.T
    remainder = np.sqrt(np.maximum((apart**2).sum(axis=1) - (along**2).sum(axis=1), 0))
    return np.concatenate([along, np.log(remainder + 1e-6)[:, None]], axis=1)


def _fit_photometry(train: pd.DataFrame | None, validation: pd.DataFrame | None) -> MahalanobisRegion | None:
    if train is None or validation is None or not set(PHOTOMETRY) <= set(train.columns) & set(validation.columns):
        return None
    colours = map(magnitude_and_colours, (train, validation))
    fit_to, held_out = (values[np.isfinite(values).all(axis=1)] for values in colours)
    if min(len(fit_to), len(held_out)) < MIN_DETECTOR_ROWS:
        return None
    region = MahalanobisRegion.fit(fit_to)
    return replace(region, threshold=quantile_threshold(region.score(held_out), CATALOG_SHARE))


def _fit_consistency(
    statistics: Values,
    catalog: pd.DataFrame | None,
    validation_statistics: Values,
    validation_catalog: pd.DataFrame | None,
) -> CatalogConsistency | None:
    if not (has_compared_columns(catalog) and has_compared_columns(validation_catalog)):
        return None
    fitted = CatalogConsistency.fit(statistics, catalog)
    if fitted is None:
        return None
    consistency, left_out = fitted
    validation = consistency.score(validation_statistics, validation_catalog)
    scores = np.concatenate([left_out, validation[np.isfinite(validation)]])
    if scores.size < MIN_DETECTOR_ROWS:
        return None
    residuals = replace(consistency.residuals, threshold=quantile_threshold(scores, CATALOG_SHARE))
    return replace(consistency, residuals=residuals)

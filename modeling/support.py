"""Training support: what a network has seen, so that an object unlike all of that is told apart.

A network answers for a star or a patch of sky as surely as for a galaxy. Three descriptions are learnt from training
rows: the network's own features of an image (its embedding), statistics of the image that no network chose, and the
magnitudes of the catalog. Each has a Mahalanobis distance with a shrunk covariance (Ledoit & Wolf 2004), and a border
that few validation rows, which the network was not fitted to, lie beyond.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from modeling.image_statistics import measure_images
from schemas.errors import TrainingError, WeightsError

Floats = NDArray[np.float64]

MOST_ROWS = 2048
"""Training rows, and validation rows, that a support is learnt from: 100 MB of images at 128 px."""

MIN_ROWS = 30
"""Training rows, and validation rows, below which nothing is learnt."""

SHARE_OF_IMAGES = 0.03
"""Of the validation rows, beyond the border of the images."""

SHARE_OF_PHOTOMETRY = 0.01
"""Of the validation rows with magnitudes, beyond their border."""

N_COMPONENTS = 24
"""Principal components of the embedding."""

PHOTOMETRY = ("modelMag_g", "modelMag_r", "modelMag_i")
"""Columns of the catalog that are looked at: r, g - r and r - i."""

_WINSORISED = 0.01
"""Training values beyond these quantiles are moved to them before the covariance is measured."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """Where descriptions of training objects lie: a centre, and axes in units of their spread."""

    centre: Floats
    """(feature,)"""
    axes: Floats
    """(axis, feature): what maps a difference from the centre to independent numbers of unit variance."""
    border: float
    """Distance that counts as the end of the region."""

    def distance(self, described: Floats) -> Floats:
        """Distance from the centre in units of the border, (object,); NaN where a feature is."""
        apart = (described - self.centre) @ self.axes.T
        return np.asarray(np.sqrt((apart**2).mean(axis=1)) / self.border, dtype=np.float64)

    @classmethod
    def around(cls, described: Floats) -> Region:
        """The region of some objects, (object, feature), with a border of 1."""
        from sklearn.covariance import LedoitWolf

        low, high = np.quantile(described, [_WINSORISED, 1 - _WINSORISED], axis=0)
        inner = np.clip(described, low, high)
        centre, spread = inner.mean(axis=0), inner.std(axis=0)
        # what does not vary says nothing: a value that differs from it is one spread of the others away at most
        unit = np.where(spread > 1e-9, spread, np.inf)
        varies = np.flatnonzero(np.isfinite(unit))
        axes = np.zeros((varies.size, described.shape[1]))
        if varies.size:
            covariance = LedoitWolf(assume_centered=True).fit((inner - centre)[:, varies] / unit[varies]).covariance_
            values, vectors = np.linalg.eigh(covariance)
            axes[:, varies] = (vectors / np.sqrt(values)).T / unit[varies]
        return cls(centre=centre, axes=axes, border=1.0)

    def bordered(self, border: float) -> Region:
        """The same, with another border."""
        return Region(centre=self.centre, axes=self.axes, border=border)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What a network has seen of some objects.

    Attributes
    ----------
    embedding
        (object, feature), as of `Prediction`.
    pixels
        (object, y, x, band) counts at its level.
    photometry
        Columns `PHOTOMETRY`, mag, NaN where there is none; None where the catalog has none.
    """

    embedding: NDArray[np.float32]
    pixels: NDArray[Any]
    photometry: pd.DataFrame | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Support:
    """What a network was trained on, and from where on an object is unlike it."""

    embedding: Region
    """Of principal components of the embedding, and what they leave over."""
    mean: Floats
    """(feature,) Of the embedding."""
    components: Floats
    """(component, feature) Principal components of the embedding, of unit length."""
    image: Region
    """Of the statistics of the images."""
    photometry: Region | None
    """Of r, g - r and r - i; None where too few training rows have all magnitudes."""
    label_range: tuple[float, float]
    """1 % and 99 % quantile of the training labels, in the unit of the target."""
    n_train: int
    n_validation: int
    """Rows that it was learnt from."""

    @classmethod
    def learn(cls, train: Seen, validation: Seen, labels: Floats) -> Support:
        """Learn the support of a network that was fitted to training rows, with borders from validation rows.

        Parameters
        ----------
        train, validation
            At least `MIN_ROWS` each; some thousands suffice.
        labels
            Of all training rows, NaN where there is none.

        Raises
        ------
        TrainingError
            Too few rows.
        """
        n_train, n_validation = len(train.embedding), len(validation.embedding)
        if min(n_train, n_validation) < MIN_ROWS:
            raise TrainingError(
                f"{n_train} training rows and {n_validation} validation rows: a training support needs {MIN_ROWS} of "
                "each; give the survey more objects or the split another share"
            )
        vectors = np.asarray(train.embedding, dtype=np.float64)
        mean = vectors.mean(axis=0)
        n_components = min(N_COMPONENTS, n_train // 10, vectors.shape[1])
        components = np.linalg.svd(vectors - mean, full_matrices=False)[2][:n_components]
        described = _of_embedding(vectors, mean, components), measure_images(train.pixels)
        judged = _of_embedding(validation.embedding, mean, components), measure_images(validation.pixels)
        embedding, image = _joint_borders([Region.around(one) for one in described], judged)
        return cls(
            embedding=embedding, mean=mean, components=components, image=image,
            photometry=_photometry_region(train.photometry, validation.photometry),
            label_range=_label_range(labels), n_train=n_train, n_validation=n_validation,
        )  # fmt: skip

    def distance(self, embedding: NDArray[np.float32], pixels: NDArray[Any]) -> Floats:
        """How far images are from what the network was trained on; above 1 they are outside.

        Parameters
        ----------
        embedding
            (object, feature), as of `Prediction`.
        pixels
            (object, y, x, band) counts at the network's level.

        Returns
        -------
        ndarray
            (object,), the larger one of the distances of embedding and statistics, each in units of its border.
        """
        seen = self.embedding.distance(_of_embedding(embedding, self.mean, self.components))
        return np.asarray(np.maximum(seen, self.image.distance(measure_images(pixels))))

    def photometry_distance(self, photometry: pd.DataFrame) -> Floats:
        """The same for magnitudes and colours, (object,); NaN where a magnitude or their region is not known."""
        colours = _of_photometry(photometry)
        if self.photometry is None or colours is None:
            return np.full(len(photometry), np.nan)
        return self.photometry.distance(colours)

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        arrays = {"mean": self.mean, "components": self.components}
        for name, region in self._regions().items():
            arrays |= {f"{name}.centre": region.centre, f"{name}.axes": region.axes}
        numbers = {
            "borders": {name: region.border for name, region in self._regions().items()},
            "label_range": [None if math.isnan(one) else one for one in self.label_range],
            "n_train": self.n_train, "n_validation": self.n_validation,
        }  # fmt: skip
        contiguous = {name: np.ascontiguousarray(one) for name, one in arrays.items()}
        saved: bytes = save(contiguous, metadata={"support": json.dumps(numbers, sort_keys=True)})
        return saved

    def _regions(self) -> dict[str, Region]:
        regions = {"embedding": self.embedding, "image": self.image}
        return regions if self.photometry is None else {**regions, "photometry": self.photometry}


def read_support(path: Path) -> Support:
    """Read what `Support.to_bytes` made.

    Raises
    ------
    WeightsError
        The file is missing, damaged, or no support.
    """
    try:
        with safe_open(path, framework="np") as file:
            numbers: Mapping[str, Any] = json.loads((file.metadata() or {})["support"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        regions = {
            name: Region(centre=arrays[f"{name}.centre"], axes=arrays[f"{name}.axes"], border=float(border))
            for name, border in numbers["borders"].items()
        }
        low, high = (math.nan if one is None else float(one) for one in numbers["label_range"])
        return Support(
            embedding=regions["embedding"], mean=arrays["mean"], components=arrays["components"],
            image=regions["image"], photometry=regions.get("photometry"), label_range=(low, high),
            n_train=int(numbers["n_train"]), n_validation=int(numbers["n_validation"]),
        )  # fmt: skip
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{path} does not hold a training support ({type(error).__name__}: {str(error)[:80]}): the file is missing "
            "or damaged; train the model again"
        ) from error


def _of_embedding(embedding: NDArray[Any], mean: Floats, components: Floats) -> Floats:
    """Principal components, and the logarithm of the length of what they leave over."""
    apart = np.asarray(embedding, dtype=np.float64) - mean
    along = apart @ components.T
    left = np.sqrt(np.maximum((apart**2).sum(axis=1) - (along**2).sum(axis=1), 0))
    return np.concatenate([along, np.log(left + 1e-6)[:, None]], axis=1)


def _of_photometry(photometry: pd.DataFrame | None) -> Floats | None:
    if photometry is None or not set(PHOTOMETRY) <= set(photometry.columns):
        return None
    g, r, i = (photometry[name].to_numpy(dtype=np.float64) for name in PHOTOMETRY)
    return np.stack([r, g - r, r - i], axis=1)


def _photometry_region(train: pd.DataFrame | None, validation: pd.DataFrame | None) -> Region | None:
    seen, judged = _of_photometry(train), _of_photometry(validation)
    if seen is None or judged is None:
        return None
    seen, judged = (one[np.isfinite(one).all(axis=1)] for one in (seen, judged))
    if min(len(seen), len(judged)) < MIN_ROWS:
        return None
    region = Region.around(seen)
    return region.bordered(_border(region.distance(judged), SHARE_OF_PHOTOMETRY))


def _joint_borders(regions: list[Region], judged: tuple[Floats, ...]) -> list[Region]:
    """Borders that equal shares of the validation rows lie beyond, and the chosen share beyond either of them."""
    distances = np.stack([region.distance(one) for region, one in zip(regions, judged, strict=True)])
    borders = np.array([_border(one, SHARE_OF_IMAGES) for one in distances])
    # who is beyond one border need not be beyond the other: both move out until the share is kept
    stretch = _border((distances / borders[:, None]).max(axis=0), SHARE_OF_IMAGES)
    return [region.bordered(float(border * stretch)) for region, border in zip(regions, borders, strict=True)]


def _border(distances: Floats, share: float) -> float:
    """The distance that a share of new objects lies beyond: the ceil((n + 1) (1 - share))-th, or the greatest one."""
    rank = min(math.ceil(round((distances.size + 1) * (1 - share), 9)), distances.size)
    return float(np.sort(distances)[rank - 1])


def _label_range(labels: Floats) -> tuple[float, float]:
    known = labels[np.isfinite(labels)]
    if not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, [0.01, 0.99])
    return float(low), float(high)

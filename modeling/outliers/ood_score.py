"""Training support: what a network has seen, so that an object unlike all of that is told apart.

A network answers for a star or a patch of sky as surely as for a galaxy. Three things are learnt from training rows: a
region of the network's own features of an image (its embedding), regions of statistics that no network chose, and what
sets the training cutouts apart from counterexamples. Each has a border beyond which few objects lie that it was not
learnt from: validation rows, and for what the network has no part in, training rows left out in turn. The magnitudes
have a region of their own, and so has what they miss the image's words by.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from modeling.outliers.catalog_consistency import PHOTOMETRY, Agreement, can_compare, colours_of
from modeling.outliers.image_statistics import Thumbnails, measure_images
from modeling.outliers.regions import Contrast, Floats, Region
from modeling.outliers.synthetic_outliers import COUNTEREXAMPLES, SMALLEST_PX
from schemas.errors import TrainingError, WeightsError

MOST_ROWS = 2048
"""Training rows, and validation rows, that a support is learnt from: 100 MB of images at 128 px."""

MIN_ROWS = 30
"""Training rows, and validation rows, below which nothing is learnt."""

SHARE_OF_IMAGES = 0.02
"""Of the validation rows and of the training rows, beyond any border of the images."""

SHARE_OF_CATALOG = 0.01
"""Of the validation rows with magnitudes, beyond their border; of these and of training rows left out in turn, beyond
that of what images say."""

N_COMPONENTS = 24
"""Principal components of the embedding."""

N_FOLDS = 5
"""In which training rows are left out in turn."""

Statistics = Mapping[str, NDArray[np.float64]]
"""Of images, (object, statistic) by what they speak of, as `measure_images` gives them."""

_LOOKED_AT = 256
_IMAGE = "image."
_AGREEMENT = "agreement."
_CONTRAST_ARRAYS = ("centre", "spread", "weights", "offsets")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What a network has seen of some objects.

    Attributes
    ----------
    embedding
        (object, feature), as of `Prediction`.
    pixels
        (object, y, x, band) counts at its level.
    catalog
        Columns `modeling.outliers.catalog_consistency.COMPARED`, NaN where there is no value; None where nothing but images is known.
    finer
        The same images at the next finer level, (object, 2 y, 2 x, band): of training objects, they show how galaxies
        look at twice the scale. None at the finest level.
    """

    embedding: NDArray[np.float32]
    pixels: NDArray[Any]
    catalog: pd.DataFrame | None = None
    finer: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Support:
    """What a network was trained on, and from where on an object is unlike it."""

    embedding: Region
    """Of principal components of the embedding, and what they leave over."""
    mean: Floats
    """(feature,) Of the embedding."""
    components: Floats
    """(component, feature) Principal components of the embedding, of unit length."""
    image: Mapping[str, Region]
    """Of the statistics of the images, by what they speak of."""
    contrast: Contrast | None
    """None at levels where counterexamples cannot be made."""
    photometry: Region | None
    """Of r, g - r and r - i; None where too few training rows have all magnitudes."""
    agreement: Agreement | None
    """None where too few training rows have all values that images are compared with."""
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
        embedding = Region.around(_of_embedding(vectors, mean, components))
        statistics, validated = _Statistics.of(train.pixels, train.finer), _measured(validation.pixels)
        judge = _ImageJudge.learn(statistics, validated)
        apart = embedding.distance(_of_embedding(validation.embedding, mean, components))
        # the network was fitted to the training rows: their embeddings say nothing about new ones
        unjudged = np.full(n_train, np.nan)
        borders = _joint_borders(
            {"embedding": np.concatenate([unjudged, apart]), **judge.distances}, n_judged=n_validation
        )
        regions, contrast = judge.bordered(borders)
        return cls(
            embedding=embedding.bordered(borders["embedding"]), mean=mean, components=components,
            image=regions, contrast=contrast,
            photometry=_photometry_region(train.catalog, validation.catalog),
            agreement=_agreement(_joined(statistics.ordinary), train.catalog, _joined(validated), validation.catalog),
            label_range=_label_range(labels), n_train=n_train, n_validation=n_validation,
        )  # fmt: skip

    def distance(self, embedding: NDArray[np.float32], statistics: Statistics) -> Floats:
        """How far images are from what the network was trained on; above 1 they are outside.

        Parameters
        ----------
        embedding
            (object, feature), as of `Prediction`.
        statistics
            Of the images at the network's level, by `measure_images`.

        Returns
        -------
        ndarray
            (object,), the largest of the distances of `distances`.
        """
        return np.asarray(np.max(list(self.distances(embedding, statistics).values()), axis=0), dtype=np.float64)

    def distances(self, embedding: NDArray[np.float32], statistics: Statistics) -> dict[str, Floats]:
        """Each distance by its name, in units of its border: why an image is outside."""
        told = {"embedding": self.embedding.distance(_of_embedding(embedding, self.mean, self.components))}
        told |= {name: region.distance(statistics[name]) for name, region in self.image.items()}
        if self.contrast is not None:
            told["counterexamples"] = self.contrast.distance(_joined(statistics))
        return told

    def photometry_distance(self, catalog: pd.DataFrame) -> Floats:
        """The same for magnitudes and colours, (object,); NaN where a magnitude or their region is not known."""
        colours = _of_photometry(catalog)
        if self.photometry is None or colours is None:
            return np.full(len(catalog), np.nan)
        return self.photometry.distance(colours)

    def disagreement(self, statistics: Statistics, catalog: pd.DataFrame) -> Floats:
        """How far images are from the catalog's words of their objects, (object,); NaN where a value is not known."""
        if self.agreement is None or not can_compare(catalog):
            return np.full(len(catalog), np.nan)
        return self.agreement.distance(_joined(statistics), catalog)

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        arrays = {"mean": self.mean, "components": self.components}
        for name, region in self._regions().items():
            arrays |= {f"{name}.centre": region.centre, f"{name}.axes": region.axes}
        if self.contrast is not None:
            arrays |= {f"contrast.{name}": getattr(self.contrast, name) for name in _CONTRAST_ARRAYS}
        if self.agreement is not None:
            arrays |= {f"{_AGREEMENT}{name}": one for name, one in self.agreement.to_arrays().items()}
        numbers = {
            "borders": {name: region.border for name, region in self._regions().items()},
            "contrast_border": None if self.contrast is None else self.contrast.border,
            "agreement_border": None if self.agreement is None else self.agreement.missed.border,
            "label_range": [None if math.isnan(one) else one for one in self.label_range],
            "n_train": self.n_train, "n_validation": self.n_validation,
        }  # fmt: skip
        contiguous = {name: np.ascontiguousarray(one) for name, one in arrays.items()}
        saved: bytes = save(contiguous, metadata={"support": json.dumps(numbers, sort_keys=True)})
        return saved

    def _regions(self) -> dict[str, Region]:
        regions = {"embedding": self.embedding, **{f"{_IMAGE}{name}": one for name, one in self.image.items()}}
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
        contrast, border = None, numbers["contrast_border"]
        if border is not None:
            contrast = Contrast(border=float(border), **{name: arrays[f"contrast.{name}"] for name in _CONTRAST_ARRAYS})
        agreement = None
        # supports of earlier versions know nothing of catalogs' words of images
        if numbers.get("agreement_border") is not None:
            learnt = {name.removeprefix(_AGREEMENT): one for name, one in arrays.items() if name.startswith(_AGREEMENT)}
            agreement = Agreement.from_arrays(learnt, float(numbers["agreement_border"]))
        image = {name.removeprefix(_IMAGE): one for name, one in regions.items() if name.startswith(_IMAGE)}
        low, high = (math.nan if one is None else float(one) for one in numbers["label_range"])
        return Support(
            embedding=regions["embedding"], mean=arrays["mean"], components=arrays["components"],
            image=image, contrast=contrast, photometry=regions.get("photometry"), agreement=agreement,
            label_range=(low, high),
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


def _of_photometry(catalog: pd.DataFrame | None) -> Floats | None:
    if catalog is None or not set(PHOTOMETRY) <= set(catalog.columns):
        return None
    return colours_of(catalog)


def _photometry_region(train: pd.DataFrame | None, validation: pd.DataFrame | None) -> Region | None:
    seen, judged = _of_photometry(train), _of_photometry(validation)
    if seen is None or judged is None:
        return None
    seen, judged = (one[np.isfinite(one).all(axis=1)] for one in (seen, judged))
    if min(len(seen), len(judged)) < MIN_ROWS:
        return None
    region = Region.around(seen)
    return region.bordered(_border(region.distance(judged), SHARE_OF_CATALOG))


def _agreement(
    statistics: Floats, catalog: pd.DataFrame | None, validated: Floats, judged: pd.DataFrame | None
) -> Agreement | None:
    if catalog is None or judged is None or not (can_compare(catalog) and can_compare(judged)):
        return None
    learnt = Agreement.learn(statistics, catalog)
    if learnt is None:
        return None
    agreement, left_out = learnt
    validation = agreement.distance(validated, judged)
    distances = np.concatenate([left_out, validation[np.isfinite(validation)]])
    return agreement.bordered(_border(distances, SHARE_OF_CATALOG)) if distances.size >= MIN_ROWS else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Statistics:
    """Statistics of training images, (object, statistic) by name, and of each kind of counterexample made of them."""

    ordinary: dict[str, Floats]
    others: Floats
    """(kind, object, statistic), all statistics side by side."""

    @classmethod
    def of(cls, pixels: NDArray[Any], finer: NDArray[Any] | None) -> _Statistics:
        rng = np.random.default_rng(0)
        parts = [slice(start, start + _LOOKED_AT) for start in range(0, len(pixels), _LOOKED_AT)]
        kinds = COUNTEREXAMPLES.values() if pixels.shape[1] >= SMALLEST_PX else ()
        images = [(pixels[one], None if finer is None else finer[one]) for one in parts]
        others = [np.concatenate([_joined(_measured(make(*one, rng))) for one in images]) for make in kinds]
        return cls(ordinary=_measured(pixels), others=np.array(others))

    def some(self, rows: NDArray[np.intp]) -> _Statistics:
        return _Statistics(
            ordinary={name: one[rows] for name, one in self.ordinary.items()},
            others=self.others[:, rows] if self.others.size else self.others,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ImageJudge:
    """Regions and contrast of image statistics, and distances of rows that they were not learnt from."""

    regions: dict[str, Region]
    contrast: Contrast | None
    distances: dict[str, Floats]
    """By name, of the training rows, each left out in turn, and of the validation rows."""

    @classmethod
    def learn(cls, train: _Statistics, validation: Mapping[str, Floats]) -> _ImageJudge:
        rows = np.arange(len(_joined(train.ordinary)))
        fold = rows % N_FOLDS
        regions, contrast = _fit(train)
        told: dict[str, Floats] = {
            name: np.concatenate([np.empty(rows.size), one])
            for name, one in _judge(regions, contrast, validation).items()
        }
        for k in range(N_FOLDS):
            left_out = rows[fold == k]
            judged = _judge(*_fit(train.some(rows[fold != k])), train.some(left_out).ordinary)
            for name, one in judged.items():
                told[name][left_out] = one
        return cls(regions=regions, contrast=contrast, distances=told)

    def bordered(self, borders: Mapping[str, float]) -> tuple[dict[str, Region], Contrast | None]:
        contrast = self.contrast and replace(self.contrast, border=borders["counterexamples"])
        return {name: region.bordered(borders[name]) for name, region in self.regions.items()}, contrast


def _measured(pixels: NDArray[Any]) -> dict[str, Floats]:
    return measure_images(Thumbnails.of(pixels))


def _fit(statistics: _Statistics) -> tuple[dict[str, Region], Contrast | None]:
    regions = {name: Region.around(one) for name, one in statistics.ordinary.items()}
    if not statistics.others.size:
        return regions, None
    return regions, Contrast.of(_joined(statistics.ordinary), statistics.others)


def _judge(
    regions: Mapping[str, Region], contrast: Contrast | None, statistics: Mapping[str, Floats]
) -> dict[str, Floats]:
    told = {name: region.distance(statistics[name]) for name, region in regions.items()}
    if contrast is not None:
        told["counterexamples"] = contrast.distance(_joined(statistics))
    return told


def _joined(statistics: Statistics) -> Floats:
    return np.concatenate(list(statistics.values()), axis=1, dtype=np.float64)


def _joint_borders(distances: Mapping[str, Floats], *, n_judged: int) -> dict[str, float]:
    """Borders that equal shares of objects lie beyond, and the chosen share of all objects beyond any of them.

    Parameters
    ----------
    distances
        (object,) by name, NaN where there is none.
    n_judged
        So many at the end are the validation rows, of which no more than the chosen share is beyond any border either.
    """
    for share in np.linspace(SHARE_OF_IMAGES, 0, 31):
        borders = {name: _border(one[np.isfinite(one)], float(share)) for name, one in distances.items()}
        beyond = np.any([one > borders[name] for name, one in distances.items()], axis=0)
        if max(beyond.mean(), beyond[-n_judged:].mean()) <= SHARE_OF_IMAGES:
            break
    # of distances that are all alike, 0 is no border
    return {name: max(border, 1e-6) for name, border in borders.items()}


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

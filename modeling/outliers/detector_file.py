"""Safetensors file of an out-of-distribution detector."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from modeling.outliers.catalog_consistency import CatalogConsistency
from modeling.outliers.image_scores import ImageScorer
from modeling.outliers.ood_score import OODDetector
from modeling.outliers.regions import LogisticDiscriminant, MahalanobisRegion
from schemas.errors import WeightsError

_IMAGE = "image."
_CONSISTENCY = "agreement."
_DISCRIMINANT_ARRAYS = ("centre", "spread", "weights", "offsets")


def detector_to_bytes(detector: OODDetector) -> bytes:
    """Serialise a detector as a safetensors file."""
    regions = {"embedding": detector.embedding}
    regions |= {f"{_IMAGE}{name}": region for name, region in detector.image.regions.items()}
    if detector.photometry is not None:
        regions["photometry"] = detector.photometry
    arrays = {"mean": detector.mean, "components": detector.components}
    for name, region in regions.items():
        arrays |= {f"{name}.centre": region.centre, f"{name}.axes": region.axes}
    discriminant, consistency = detector.image.discriminant, detector.consistency
    if discriminant is not None:
        arrays |= {f"contrast.{name}": getattr(discriminant, name) for name in _DISCRIMINANT_ARRAYS}
    if consistency is not None:
        arrays |= {f"{_CONSISTENCY}{name}": array for name, array in consistency.to_arrays().items()}
    numbers = {
        "borders": {name: region.threshold for name, region in regions.items()},
        "contrast_border": None if discriminant is None else discriminant.threshold,
        "agreement_border": None if consistency is None else consistency.residuals.threshold,
        "label_range": [None if math.isnan(end) else end for end in detector.label_range],
        "n_train": detector.n_train,
        "n_validation": detector.n_validation,
    }
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return bytes(save(contiguous, metadata={"support": json.dumps(numbers, sort_keys=True)}))


def read_ood_detector(path: Path) -> OODDetector:
    """Read a file of `detector_to_bytes`.

    Raises
    ------
    WeightsError
        The file is missing or damaged, or does not hold a detector.
    """
    try:
        with safe_open(path, framework="np") as file:
            numbers = json.loads((file.metadata() or {})["support"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        regions = {
            name: MahalanobisRegion(
                centre=arrays[f"{name}.centre"], axes=arrays[f"{name}.axes"], threshold=float(threshold)
            )
            for name, threshold in numbers["borders"].items()
        }
        discriminant, consistency = None, None
        if numbers["contrast_border"] is not None:
            weights = {name: arrays[f"contrast.{name}"] for name in _DISCRIMINANT_ARRAYS}
            discriminant = LogisticDiscriminant(threshold=float(numbers["contrast_border"]), **weights)
        # files of earlier versions lack this key
        if numbers.get("agreement_border") is not None:
            fitted = {
                name.removeprefix(_CONSISTENCY): array
                for name, array in arrays.items()
                if name.startswith(_CONSISTENCY)
            }
            consistency = CatalogConsistency.from_arrays(fitted, float(numbers["agreement_border"]))
        image = {name.removeprefix(_IMAGE): region for name, region in regions.items() if name.startswith(_IMAGE)}
        low, high = (math.nan if end is None else float(end) for end in numbers["label_range"])
        return OODDetector(
            embedding=regions["embedding"],
            mean=arrays["mean"],
            components=arrays["components"],
            image=ImageScorer(regions=image, discriminant=discriminant),
            photometry=regions.get("photometry"),
            consistency=consistency,
            label_range=(low, high),
            n_train=int(numbers["n_train"]),
            n_validation=int(numbers["n_validation"]),
        )
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{path} does not hold an out-of-distribution detector ({type(error).__name__}: {str(error)[:80]}): the "
            "file is missing or damaged; train the model again"
        ) from error

"""Safetensors file of an out-of-distribution detector."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from modeling.outliers.catalog_consistency import CatalogConsistency
from modeling.outliers.image_scores import COUNTEREXAMPLES_NAME, ImageScorer
from modeling.outliers.ood_score import OODDetector
from modeling.outliers.regions import LogisticDiscriminant, MahalanobisRegion
from schemas.errors import WeightsError

_IMAGE = "image."
_LINEAR = ("centre", "spread", "weights", "offsets")
"""Arrays of a linear model of standardised statistics."""


def detector_to_bytes(detector: OODDetector) -> bytes:
    discriminant, consistency = None, detector.consistency
    regions = {"embedding": detector.embedding}
    for name, model in detector.image.models.items():
        if isinstance(model, LogisticDiscriminant):
            discriminant = model
        else:
            regions[f"{_IMAGE}{name}"] = model
    if detector.photometry is not None:
        regions["photometry"] = detector.photometry
    arrays = {"mean": detector.mean, "components": detector.components}
    stored = regions if consistency is None else {**regions, "agreement.missed": consistency.residuals}
    for name, region in stored.items():
        arrays |= {f"{name}.centre": region.centre, f"{name}.axes": region.axes}
    if discriminant is not None:
        arrays |= {f"contrast.{name}": getattr(discriminant, name) for name in _LINEAR}
    if consistency is not None:
        arrays |= {f"agreement.{name}": getattr(consistency, name) for name in _LINEAR}
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
    """Read a file of `detector_to_bytes`; raise `WeightsError` for a missing or damaged one."""
    try:
        with safe_open(path, framework="np") as file:
            numbers = json.loads((file.metadata() or {})["support"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary

        def region(name: str, threshold: float) -> MahalanobisRegion:
            centre, axes = arrays[f"{name}.centre"], arrays[f"{name}.axes"]
            return MahalanobisRegion(centre=centre, axes=axes, threshold=float(threshold))

        regions = {name: region(name, threshold) for name, threshold in numbers["borders"].items()}
        image: dict[str, MahalanobisRegion | LogisticDiscriminant] = {
            name.removeprefix(_IMAGE): found for name, found in regions.items() if name.startswith(_IMAGE)
        }
        if numbers["contrast_border"] is not None:
            weights = {name: arrays[f"contrast.{name}"] for name in _LINEAR}
            image[COUNTEREXAMPLES_NAME] = LogisticDiscriminant(threshold=float(numbers["contrast_border"]), **weights)
        consistency = None
        # files of earlier versions lack this key
        if numbers.get("agreement_border") is not None:
            consistency = CatalogConsistency(
                residuals=region("agreement.missed", numbers["agreement_border"]),
                **{name: arrays[f"agreement.{name}"] for name in _LINEAR},
            )
        low, high = (math.nan if end is None else float(end) for end in numbers["label_range"])
        return OODDetector(
            embedding=regions["embedding"],
            mean=arrays["mean"],
            components=arrays["components"],
            image=ImageScorer(models=image),
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

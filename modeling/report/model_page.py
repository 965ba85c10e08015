"""Model page of the report: metrics of the network and of its baselines, figures and provenance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modeling.evaluation.metrics import Regression
from modeling.figures import predictions as figures
from modeling.figures.gallery import draw_gallery, gallery_rows
from modeling.models.training_log import EpochRecord
from modeling.report.pages import Heading, IngestCounts, Picture, picture, write_page
from schemas.errors import ContractError

NETWORK, MEAN, ORACLE, COLOURS = "network", "mean", "oracle", "colours"
FOREST, FULL_FOREST = "forest", "full_forest"
"""Known keys of `ModelPage.predictors`; other predictors are listed under their key."""

TITLES = {
    NETWORK: "this network",
    MEAN: "mean of the training labels",
    FOREST: "random forest on g, r, i magnitudes",
    FULL_FOREST: "random forest on all magnitudes",
    ORACLE: "oracle: best possible on the simulated sky",
    COLOURS: "best possible from total colours alone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Labelled objects that were held out of training, with their predictions."""

    split: str  # 'test' or 'validation'
    object_id: NDArray[np.int64]
    true: NDArray[np.float64]
    predicted: NDArray[np.float64]
    # positions within this evaluation -> (object, y, x, band), bands red, green, blue; called once, for the gallery
    read_cutouts: Callable[[NDArray[np.int64]], NDArray[np.uint8]]

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.object_id, self.true, self.predicted)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"the evaluation's columns have lengths {sorted(lengths)}: give equal ones of at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProvenance:
    """Model, training set, cube snapshot, library versions and recipe behind a report."""

    model_id: str
    training_set: str
    snapshot: str
    versions: Mapping[str, str]
    recipe: str  # TOML


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCatalog:
    """Number of objects of a new catalog, and of those with a prediction."""

    n: int
    n_scored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPage:
    """Content of the model page."""

    heading: Heading
    ingest: IngestCounts
    splits: Mapping[str, int]  # labelled objects of 'train', 'validation' and 'test'
    target: str  # name of the quantity for axes and sentences, such as '12 + log(O/H)'
    evaluation: Evaluation
    # metrics on the evaluated objects, by `NETWORK`, `MEAN`, `FOREST`, ...; a text is the reason for a missing result
    predictors: Mapping[str, Regression | str]
    training_log: tuple[EpochRecord, ...]
    best_epoch: int
    provenance: ModelProvenance
    new_catalog: NewCatalog | None = None  # the catalog that was scored last


def write_model_page(path: Path, page: ModelPage) -> None:
    content = {"report": page, "verdict": verdict(page), "predictors": _predictor_rows(page)}
    write_page(path, "report.html.j2", page.heading, **content, gallery=_gallery(page), images=_images(page))


def verdict(page: ModelPage) -> str:
    """Summarise the result in one or two sentences: errors, gain over the baselines, distance from the best possible.

    Raises
    ------
    ContractError
        The metrics of the network are missing.
    """
    network = page.predictors.get(NETWORK)
    if not isinstance(network, Regression):
        raise ContractError(f"predictors[{NETWORK!r}] is {network!r}: give the Regression of the network")
    sentence = (
        f"On {network.n:,} {page.evaluation.split} galaxies the network predicts {page.target} with RMSE "
        f"{network.rmse:.4f} dex and NMAD {network.nmad:.4f} dex"
    )
    gains = []
    for key, name in ((MEAN, "the mean"), (FOREST, "a random forest on magnitudes")):
        baseline = page.predictors.get(key)
        if isinstance(baseline, Regression):
            gain = 100 * (1 - network.rmse / baseline.rmse)
            gains.append(f"{abs(gain):.0f} % {'better' if gain >= 0 else 'WORSE'} than {name} ({baseline.rmse:.4f})")
    sentence += f": {' and '.join(gains)}." if gains else "."
    oracle = page.predictors.get(ORACLE)
    if isinstance(oracle, Regression):
        gap = network.rmse - oracle.rmse
        sentence += f" The best possible on this sky is {oracle.rmse:.4f} dex; the gap is {gap:.4f} dex."
    return sentence


def _predictor_rows(page: ModelPage) -> list[dict[str, object]]:
    mean, rows = page.predictors.get(MEAN), []
    mean_rmse = mean.rmse if isinstance(mean, Regression) else 0.0
    for key, result in page.predictors.items():
        row: dict[str, object] = {"title": TITLES.get(key, key), "is_network": key == NETWORK}
        if isinstance(result, Regression):
            relative = result.rmse / mean_rmse if mean_rmse else None
            rows.append((result.rmse, row | {"result": result, "note": "", "relative_to_mean": relative}))
        else:
            rows.append((math.inf, row | {"result": None, "note": result, "relative_to_mean": None}))
    return [row for _, row in sorted(rows, key=lambda item: item[0])]


def _gallery(page: ModelPage) -> Picture:
    evaluation = page.evaluation
    rows = gallery_rows(evaluation.true, evaluation.predicted)
    positions, inverse = np.unique(np.concatenate(list(rows.values())), return_inverse=True)
    cutouts = evaluation.read_cutouts(positions)[inverse]
    split = np.split(cutouts, np.cumsum([len(chosen) for chosen in rows.values()])[:-1])
    figure = draw_gallery(dict(zip(rows, split, strict=True)), rows, evaluation.true, evaluation.predicted)
    listed = "; ".join(
        f"{title}: " + ", ".join(f"{evaluation.predicted[i]:.2f} ({evaluation.true[i]:.2f})" for i in chosen)
        for title, chosen in rows.items()
    )
    return picture(
        figure,
        alt=f"Cutouts of {page.heading.survey} in seven rows of five, predicted (true) values: {listed}.",
        caption=f"Cutouts of {evaluation.split} galaxies with predicted (left, blue) and true (right, orange) values "
        "(Figure 1 of the paper).",
    )


def _images(page: ModelPage) -> dict[str, Picture]:
    true, predicted = page.evaluation.true, page.evaluation.predicted
    result = Regression.of(true, predicted)
    metrics = {
        TITLES.get(name, name): value for name, value in page.predictors.items() if isinstance(value, Regression)
    }
    pictures = {
        "comparison": picture(
            figures.draw_comparison(true, predicted, label=page.target),
            alt=f"Predicted against true {page.target} of {result.n} galaxies: RMSE {result.rmse:.4f}, NMAD "
            f"{result.nmad:.4f}, bias {result.bias:+.4f} dex, R² {result.r2:.3f}.",
            caption="Lower panel: predicted against true values, with the median, RMSE and NMAD of each 0.1-dex bin. "
            "Upper panel: the same scatter; areas are proportional to the number of galaxies, lines are for all "
            "galaxies (Figure 3).",
        ),
        "distributions": picture(
            figures.draw_distributions(true, predicted, label=page.target),
            alt=f"Histograms: true values have mean {true.mean():.3f} and standard deviation {true.std():.3f}, "
            f"predicted values {predicted.mean():.3f} and {predicted.std():.3f}.",
            caption="Distributions of the true and the predicted values (Figure 2). Predictions have a smaller spread "
            "than true values, because uncertain predictions regress towards the mean.",
        ),
        "predictors": picture(
            figures.draw_predictors(metrics),
            alt="RMSE of each predictor: "
            + ", ".join(f"{title} {value.rmse:.4f}" for title, value in metrics.items())
            + " dex.",
            caption=f"RMSE and NMAD of all predictors on the same {result.n:,} galaxies.",
        ),
    }
    if page.training_log:
        first, last = page.training_log[0], page.training_log[-1]
        pictures["training"] = picture(
            figures.draw_training(page.training_log, best_epoch=page.best_epoch),
            alt=f"Validation RMSE goes from {first.rmse:.4f} to {last.rmse:.4f} dex in {last.epoch} epochs; the "
            f"weights of epoch {page.best_epoch} are used.",
            caption="RMSE and NMAD of the validation galaxies after each epoch.",
        )
    return pictures
